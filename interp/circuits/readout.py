"""Where the metric of pairs reads logits, and what it compares there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.circuits.pairs import Pairs
from interp.models.fast_pass import take


@dataclass(frozen=True)
class Readout:
    """Where the metric of n pairs reads, and what it compares there; k is the largest number of places of a pair."""

    positions: Tensor  # long [n, k], token positions; those that a pair does not need have weight 0
    choices: Tensor  # long [n, k, 2], the clean and the corrupted token
    weights: Tensor  # float [n, k]

    @classmethod
    def of(cls, pairs: Pairs) -> Readout:
        """The compared places of `pairs.logit_difference`, each pair's at positions of its own."""
        k = max(1, int((pairs.weights > 0).sum(dim=1).max()))
        weights, places = pairs.weights.topk(k, dim=1)
        answers = torch.stack([pairs.clean_answer, pairs.corrupted_answer], dim=-1)
        return cls(pairs.positions.gather(1, places), take(answers, places), weights)

    def metric(self, logits: Tensor) -> Tensor:
        """`Pairs.logit_difference` from logits [..., n, k, d_vocab] at `positions`: [..., n]."""
        values = logits.gather(-1, self.choices.expand(*logits.shape[:-1], 2))
        return ((values[..., 0] - values[..., 1]) * self.weights).sum(-1)
