"""The knobs of a compiled model's noise; noise.py says what each does."""

from __future__ import annotations

from dataclasses import dataclass

from interp.ranges import require_fields

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
        require_fields(self, distractor_heads=0, distractor_neurons=0, squeeze=0, seed=0)
