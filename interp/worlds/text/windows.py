"""Examples of a text: stretches of so many tokens, each from one unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Windows:
    """n stretches of a text."""

    tokens: NDArray[np.int64]  # [n, length]; behind the end of a document END
    hashes: NDArray[np.uint64]  # [n]: of the unit that each is from
    places: NDArray[np.int64]  # [n]: where each begins, in tokens of the whole text

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Any) -> Windows:
        return Windows(self.tokens[rows], self.hashes[rows], self.places[rows])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Windows):
            return NotImplemented
        return np.array_equal(self.tokens, other.tokens) and np.array_equal(self.places, other.places)

    @classmethod
    def concatenate(cls, parts: Sequence[Windows]) -> Windows:
        """The windows of all parts, in order."""
        return cls(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.hashes for part in parts]),
            np.concatenate([part.places for part in parts]),
        )
