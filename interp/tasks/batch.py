"""A batch: examples of a world as a task shows them to a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Examples of a world as a task shows them."""

    tokens: Tensor  # long [batch, pos]
    targets: Tensor  # long [batch, pos]; -1 where nothing is to be predicted
    loss_mask: Tensor  # bool [batch, pos]; where the loss is taken
    examples: Any  # of the world, one a row

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, rows: slice | np.ndarray) -> Batch:
        """Some of the examples, by a slice or their numbers."""
        return Batch(self.tokens[rows], self.targets[rows], self.loss_mask[rows], self.examples[rows])
