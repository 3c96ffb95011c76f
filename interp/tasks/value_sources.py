"""Where a value that an instruction asks for comes from: what made it, what told it, what was overwritten since.

PUT asks for what the cell under the pointer holds. Its history, in executed instructions on that cell:

- `made`: those that changed it since GET last set it (that GET too), or since the start;
- `told`: those since its last change that show its value (PUT) or whether it is 0 (WHILE, ENDW);
- `overwritten`: everything on that cell before the GET that set it;
- `other cells`: what acted on another cell; `moves`: NEXT and PREV; `itself`: PUT's own token and the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("made", "told", "overwritten", "other cells", "moves", "itself")
NEVER, COUNTED, READ_IN, OVERWRITTEN = "never changed", "counted from 0", "set by GET", "overwritten by GET"
HISTORIES = (NEVER, COUNTED, READ_IN, OVERWRITTEN)


@dataclass(frozen=True, eq=False)
class ValueSources:
    """Each value that a batch asks for, and what every token before it was to its cell."""

    row: np.ndarray  # int64 [asked]: the example
    position: np.ndarray  # int64 [asked]: of the token that asks
    kinds: np.ndarray  # int64 [asked, pos]: places of KINDS; -1 after the token that asks
    untold: np.ndarray  # bool [asked]: nothing has shown the value since it last changed
    history: np.ndarray  # int64 [asked]: how the cell came by its value, places of HISTORIES

    def shares(self, weights: np.ndarray) -> np.ndarray:
        """Of magnitudes [asked, head, pos] the share of each kind, [asked, head, kind]; NaN where all are 0."""
        size = np.abs(weights) * (self.kinds >= 0)[:, None]
        found = np.stack([(size * (self.kinds == kind)[:, None]).sum(-1) for kind in range(len(KINDS))], axis=-1)
        with np.errstate(invalid="ignore"):
            return found / found.sum(-1, keepdims=True)
