"""What a sweep can do with each of its runs: train it, and the verbs that measure it.

Two verbs of the command line have a second half, which has a name of its own here: beyond is `eval --n-steps`,
carried is `patch --part`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, get_type_hints

from interp.stage_options import (
    BeyondOptions,
    CardOptions,
    CircuitOptions,
    EvaluationOptions,
    PatchOptions,
    ProbeOptions,
    SourceOptions,
    StateOptions,
)


@dataclass(frozen=True)
class Stage:
    """A verb: what it is asked, and the function (run, options, *, progress) that does it, by its place."""

    options: type
    place: str

    @property
    def function(self) -> Callable[..., Any]:
        """The function, imported at its first use."""
        module, _, name = self.place.partition(":")
        return getattr(import_module(module), name)

    def asked(self, values: Mapping[str, Any]) -> Any:
        """Its options from a file: lists become tuples.

        Raises:
            ValueError: a name that the verb has no option of, or a list where one value is meant, or the reverse.
        """
        known = {each.name: each for each in fields(self.options)}
        if unknown := set(values) - set(known):
            raise ValueError(f"{min(unknown)} is none of its options, which are {', '.join(known)}")
        hints = get_type_hints(self.options)
        for name, value in values.items():
            several = str(hints[name]).startswith("tuple")
            if isinstance(value, list) != several:
                raise ValueError(f"{name} must be {'a list' if several else 'one value'}, got {value!r}")
        return self.options(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


TRAIN = "train"
STAGES: dict[str, Stage] = {
    "eval": Stage(EvaluationOptions, "interp.studies.evaluation_stage:evaluate_stage"),
    "probe": Stage(ProbeOptions, "interp.studies.probe_stage:probe_stage"),
    "beyond": Stage(BeyondOptions, "interp.studies.beyond:beyond_stage"),
    "patch": Stage(PatchOptions, "interp.studies.patch_stage:patch_stage"),
    "carried": Stage(StateOptions, "interp.studies.state_stage:carried_stage"),
    "sources": Stage(SourceOptions, "interp.studies.sources:sources_stage"),
    "circuit": Stage(CircuitOptions, "interp.studies.circuit_stage:circuit_stage"),
    "card": Stage(CardOptions, "interp.pages.cards:card_stage"),
}
VERBS = (TRAIN, *STAGES)
