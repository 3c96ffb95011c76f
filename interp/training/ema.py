"""An exponential moving average of the weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AveragedWeights:
    """The running average of a model's parameters, kept in a second model of the same shape.

    After step t (from 0) the average moves towards the weights by 1 - min(decay, (1 + t) / (10 + t)): the first steps
    forget the initial weights quickly, so that no bias towards them is left to correct.
    """

    prefixes = ("ema/",)

    def __init__(self, model: nn.Module, averaged: nn.Module, decay: float):
        self.model, self.averaged, self.decay = model, averaged.eval().requires_grad_(False), decay
        averaged.load_state_dict(model.state_dict())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after 0-based `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, weights in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
            average.lerp_(weights, 1 - decay)

    def state_tensors(self) -> dict[str, Tensor]:
        """The average under `ema/parameter`."""
        return {f"ema/{name}": tensor for name, tensor in self.averaged.state_dict().items()}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        self.averaged.load_state_dict({name.removeprefix("ema/"): tensor for name, tensor in tensors.items()})
