"""The knobs of a compiled model's noise; noise.py says what each does."""

from __future__ import annotations

from dataclasses import dataclass

KEY_FILE = "compiled.json"  # in the folder of a compiled run, and of no other


@dataclass(frozen=True)
class NoiseConfig:
    """How far a compiled model is from a clean one.

    Raises:
        ValueError: a count is negative.
    """

    rotate: bool = False  # the residual stream in a random orthonormal basis: no feature is a coordinate
    distractor_heads: int = 0  # a layer
    distractor_neurons: int = 0  # a layer
    antipodal: bool = False  # two values of a variable, never present together, share a dimension
    squeeze: int = 0  # dimensions taken away
    redundant: tuple[str, ...] = ()  # subspaces written twice: op, array_ptr, output_length, input_head
    seed: int = 0  # of all that is drawn

    def __post_init__(self) -> None:
        object.__setattr__(self, "redundant", tuple(self.redundant))
        for name in ("distractor_heads", "distractor_neurons", "squeeze", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
