"""What a looped transformer is: how its layers are shared, when it stops, and through what it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from interp.configuration import later
from interp.models.config import TransformerConfig
from interp.models.model_config import AttentionPart, in_turn

_HALTING = ("none", "fixed_point", "act", "ponder", "right")
_INJECTION = ("none", "add", "concatenate")


@dataclass(frozen=True, kw_only=True, eq=False)
class LoopedConfig(TransformerConfig):
    """A prelude, a core that is run again and again, a coda. `n_layers` counts the core's; the rest is of all blocks.

    Raises:
        ValueError: a value is out of range, unknown, or contradicts another; the message names the field.
    """

    architecture: str = "looped"  # key in MODELS
    n_prelude: int = later(0)  # blocks before the loop
    n_coda: int = later(0)  # blocks after it
    n_loops: int = later(8)  # how often the core is run, where nothing else is asked; at most, where it halts
    max_loops: int = later(0)  # how often it can be run, each with hook points of its own; 0: n_loops
    injection: Literal["none", "add", "concatenate"] = later("add")  # of the input, at every step; none: at the first
    step_embedding: bool = later(False)  # a learned vector for each step, added to what enters it
    carry_norm: bool = later(False)  # the carry is normalised after each step
    carry_head: bool = later(False)  # the carry is a linear map of what the core's last block gives
    halting: Literal["none", "fixed_point", "act", "ponder", "right"] = later("none")  # see halting.py
    halt_threshold: float = later(0.5)  # fixed_point: how far it moved; right, ponder: a probability
    halt_periods: int = later(1)  # fixed_point: a cycle of up to so many steps counts as standing still
    ponder_cost: float = later(0.01)  # act: nats a step; ponder: weight of the divergence from the prior
    ponder_prior: float = later(0.2)  # ponder: the prior's chance of halting at each step
    backprop_steps: int = later(0)  # learn through the last so many steps, the carry before them detached; 0: all
    least_loops: int = later(0)  # random depth: each batch runs from so many steps to n_loops; 0: always n_loops
    deep_supervision: bool = later(False)  # the loss is the mean over the answers after every step

    drafts_in: ClassVar[str | None] = "loop step"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_prelude", "n_coda", "backprop_steps", "least_loops", "max_loops"):
            _require("at least 0", name, getattr(self, name), getattr(self, name) >= 0)
        for name in ("n_loops", "halt_periods"):
            _require("at least 1", name, getattr(self, name), getattr(self, name) >= 1)
        _require(f"at most max_loops = {self.max_loops}", "n_loops", self.n_loops, self.n_loops <= self.most_loops)
        _require(f"at most n_loops = {self.n_loops}", "least_loops", self.least_loops, self.least_loops <= self.n_loops)
        for name, allowed in (("halting", _HALTING), ("injection", _INJECTION)):
            _require(f"one of {allowed}", name, getattr(self, name), getattr(self, name) in allowed)
        if self.halting != "none" and self.attention_dir == "causal":
            raise ValueError(
                f"halting is decided from a whole row, later tokens too, so it needs attention_dir='bidirectional'; "
                f"got halting={self.halting!r} with attention_dir='causal'"
            )
        for name in ("halt_threshold", "ponder_cost"):
            _require("at least 0", name, getattr(self, name), getattr(self, name) >= 0)
        _require("between 0 and 1", "ponder_prior", self.ponder_prior, 0 < self.ponder_prior < 1)

    @property
    def has_graph(self) -> bool:
        """False: edges of a loop are not declared."""
        return False

    @property
    def attention_parts(self) -> tuple[AttentionPart, ...]:
        """Of each step of the loop, between those that run once."""
        core = range(self.n_layers)
        loops = ((f"loop step {t + 1}", core) for t in range(self.n_loops))
        parts = [("prelude", range(self.n_prelude)), *loops, ("coda", range(self.n_coda))]
        return in_turn((name, tuple(layers)) for name, layers in parts)

    @property
    def most_loops(self) -> int:
        """How often the core can be run: `max_loops`, or `n_loops` where that is 0."""
        return self.max_loops or self.n_loops

    @property
    def has_halting_head(self) -> bool:
        """Whether a learned logit decides when to stop."""
        return self.halting in ("act", "ponder", "right")

    @property
    def n_params(self) -> int:
        """As the transformer's, of all blocks, each counted once however often it is run."""
        return super().n_params // self.n_layers * (self.n_prelude + self.n_layers + self.n_coda)


def _require(what: str, name: str, value: object, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} must be {what}; got {value!r}")
