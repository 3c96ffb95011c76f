"""Settings that grow without orphaning the runs made before: what a config says of itself in JSON."""

from __future__ import annotations

from dataclasses import asdict, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
_LATER = "later"


def later(default: T) -> T:
    """The default of a dataclass field that was added after runs had been saved.

    `config_dict` leaves such a field out while it has its default, so that the digest of an older run stays what it
    was. The default must therefore mean what runs did before the field existed.
    """
    return cast(T, field(default=default, metadata={_LATER: True}))


def config_dict(config: DataclassInstance) -> dict[str, Any]:
    """JSON-ready dict of a config's fields, without those added `later` that have their default."""
    config = getattr(config, "as_written", config)  # a built model's cfg carries state beside its fields
    values = asdict(config)
    for each in fields(config):
        if each.metadata.get(_LATER) and getattr(config, each.name) == each.default:
            del values[each.name]
    return values
