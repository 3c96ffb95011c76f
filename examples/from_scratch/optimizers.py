"""SGD and Adam over arrays with gradients, the same for the engine's Values and for torch tensors.

They take what has `data` (a NumPy array, or torch's) and `grad`, and change `data` in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class SGD:
    """x ← x − rate · gradient."""

    def __init__(self, parameters: Sequence[Any], rate: float):
        self.parameters, self.rate = list(parameters), rate

    def step(self) -> None:
        """Follow the gradients once."""
        for each in self.parameters:
            each.data -= self.rate * each.grad

    def zero_grad(self) -> None:
        """Forget the gradients, which add up otherwise."""
        for each in self.parameters:
            each.grad = each.grad * 0


class Adam(SGD):
    """Adaptive moments (Kingma and Ba 2015): the mean of past gradients over the root of the mean of their squares.

    m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²
    x ← x − rate · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)
    """

    def __init__(
        self, parameters: Sequence[Any], rate: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ):
        super().__init__(parameters, rate)
        self.betas, self.eps, self.steps = betas, eps, 0
        self.moments = [(each.data * 0, each.data * 0) for each in self.parameters]

    def step(self) -> None:
        """Follow the gradients once."""
        self.steps += 1
        first, second = self.betas
        for number, each in enumerate(self.parameters):
            mean, square = self.moments[number]
            mean = first * mean + (1 - first) * each.grad
            square = second * square + (1 - second) * each.grad**2
            self.moments[number] = mean, square
            unbiased = square / (1 - second**self.steps)
            each.data -= self.rate * (mean / (1 - first**self.steps)) / (unbiased**0.5 + self.eps)
