"""What the configurations of all architectures share: their JSON, and the state that a built model keeps on them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

from interp.configuration import config_dict


@dataclass(frozen=True)
class AttentionPart:
    """Layers of heads that attend from the same positions to the same positions: "cross-attention", say."""

    name: str
    rows: tuple[int, ...]  # its hooks among `ModelFacts.attention_hooks`, from 0
    layers: tuple[int, ...]  # the block of each of them, as blocks are numbered
    nodes: tuple[str, ...] = ()  # their heads' names in circuits, "a1" of "a1.h3"; () where there are none
    queries: tuple[int, int | None] = (0, None)  # positions of a record that look: from, up to; None: to the end
    keys: tuple[int, int | None] = (0, None)  # positions that are looked at


def in_turn(parts: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[AttentionPart, ...]:
    """Parts that run one after the other, each a name and its blocks; those without a block are left out."""
    found, first = [], 0
    for name, layers in parts:
        if layers:
            found.append(AttentionPart(name, tuple(range(first, first + len(layers))), layers))
            first += len(layers)
    return tuple(found)


class ModelConfig:
    """Base of an architecture's frozen dataclass, declared with `eq=False`: equality and hash are of the fields.

    `model.cfg` is a copy with state that TransformerLens's tools look for, which is no part of the fields: `device`,
    switches, and `dtype` as a `torch.dtype`, that of the weights now. `as_written` is the configuration without it.
    """

    architecture: str
    dtype: Any  # its name; of a built model's cfg the torch.dtype
    device: ClassVar[str | None] = None
    _written: ClassVar[Any] = None

    has_attention: ClassVar[bool] = False
    """Whether a model of it has attention patterns, known before it is built; see `ModelFacts.attention_hooks`."""

    drafts_in: ClassVar[str | None] = None
    """What the passes are called in which a model of it goes over its answer; see `ModelFacts.drafts`."""

    @property
    def answer_passes(self) -> int | None:
        """In how many passes a model of it fills in an answer where nothing else is asked; None where it does not."""
        return getattr(self, "denoising_steps", None)

    @property
    def has_graph(self) -> bool:
        """Whether a model of it declares a graph of edges, known before it is built; see `ModelFacts.graph`."""
        return False

    @property
    def attention_nodes(self) -> tuple[str, ...]:
        """What the heads of each of `ModelFacts.attention_hooks` are called in circuits: "a1" of "a1.h3"."""
        return tuple(f"a{layer}" for layer in range(getattr(self, "n_layers", 0)))

    @property
    def attention_parts(self) -> tuple[AttentionPart, ...]:
        """The kinds of attention, in the order of the model; they share out all of `ModelFacts.attention_hooks`."""
        nodes = self.attention_nodes
        layers = tuple(range(len(nodes)))
        return (AttentionPart("self-attention", layers, layers, nodes),)

    @property
    def as_written(self) -> Self:
        """The configuration that a model was built from; itself where it is no model's."""
        return self if self._written is None else self._written

    @property
    def model_name(self) -> str:
        """The architecture's key, by TransformerLens's name for it."""
        return self.architecture

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-ready, as a run's config.json has them."""
        return config_dict(cast(Any, self.as_written))

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self.as_written, each.name) for each in fields(cast(Any, self)))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == cast(Self, other)._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))


def with_state(cfg: Any, **state: Any) -> Any:
    """A copy of a frozen config with attributes that are state of a built model, no fields."""
    built = copy.copy(cfg)
    if isinstance(cfg, ModelConfig):
        state["_written"] = cfg.as_written
    for name, value in state.items():
        object.__setattr__(built, name, value)
    return built
