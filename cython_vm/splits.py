"""Three splits of whatever is held out whole, by a 64-bit hash of it: training, validation, evaluation.

hash % 20 = 0 is "evaluation", 1 is "validation", the others are "fit". "train" is all but "evaluation": what was
learned from before there was a validation split, so that streams drawn then are drawn again as they were.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cython_vm.arguments import check_choice, integers

SPLITS = ("all", "train", "evaluation", "validation", "fit")  # in the order of the kernels: see _splits.pxd
N_PARTS = 20  # of which evaluation and validation are one each


def in_split(hashes: NDArray[np.uint64], split: str) -> NDArray[np.bool_]:
    """Which hashes belong to a split: bool, of the shape of `hashes` (integers, none negative).

    Raises ValueError on an unknown split and negative hashes, TypeError on hashes that are no integers.
    """
    check_choice("split", split, SPLITS)
    given = integers("hashes", hashes)
    if given.dtype.kind != "u" and given.size and given.min() < 0:
        raise ValueError(f"hashes must not be negative, got {given.min()}")
    part = given.astype(np.uint64) % np.uint64(N_PARTS)
    return {
        "all": np.ones_like(part, dtype=bool),
        "train": part != 0,
        "evaluation": part == 0,
        "validation": part == 1,
        "fit": part > 1,
    }[split]
