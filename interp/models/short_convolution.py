"""A short causal convolution along positions, channel by channel, whose window is part of a model's carrier."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.hooks import live
from interp.models.propagation import Edit, ask


class ShortConvolution(nn.Module):
    """`y_t = bias + Σ_j weight[:, j] * x_{t - size + 1 + j}`, with zeros before the first position.

    hook_window holds the last size - 1 inputs at each position, oldest first: what later positions see of this one and
    those before it. An element set there at t is what positions from t + 1 on see, until it leaves their window.
    """

    def __init__(self, channels: int, size: int, *, bias: bool = False) -> None:
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.hook_window = HookPoint()  # [batch, pos, channel, size - 1]

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Uniform in ±1 / sqrt(size), as torch's convolutions; bias 0."""
        self.weight.uniform_(-(self.size**-0.5), self.size**-0.5, generator=generator)
        if self.bias is not None:
            self.bias.zero_()

    def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        """[batch, pos, channel] to the same; `past["window"]` [batch, channel, size - 1] is brought up to date."""
        n_pos = x.shape[1]
        before = past.get("window")
        if before is None:
            before = x.new_zeros(len(x), x.shape[2], self.size - 1)
        padded = torch.cat([before.transpose(1, 2), x], dim=1)  # [batch, size - 1 + pos, channel]
        edit = None
        if live(self.hook_window):
            # [batch, pos, channel, size - 1], oldest first; a view
            edit = ask(self.hook_window, padded.unfold(1, self.size - 1, 1)[:, 1:])
        if edit is not None and (edit.in_graph or not edit.empty):
            seen, past["window"] = self._edited(x, before, edit)
        else:
            past["window"] = padded[:, n_pos:].transpose(1, 2)
            seen = [padded[:, self.size - 1 - age : self.size - 1 - age + n_pos] for age in range(self.size)]
        # a sum of shifted products: on processors faster than a grouped convolution, in its backward pass above all
        weight = self.weight.to(x.dtype)
        y = seen[0] * weight[:, -1]
        for age in range(1, self.size):
            y = torch.addcmul(y, seen[age], weight[:, self.size - 1 - age])
        return y if self.bias is None else y + self.bias

    def _edited(self, x: Tensor, before: Tensor, edit: Edit) -> tuple[list[Tensor], Tensor]:
        """What each position sees, by age, each [batch, pos, channel], and the last window."""
        seen, kept = [x], x
        slots = []  # of the windows with what was set, newest first
        for age in range(self.size - 1):
            slot = self.size - 2 - age
            kept = edit.slot(slot).apply(kept)
            slots.append(kept)
            # a position later it is one older; the first position sees what was there before
            kept = torch.cat([before[:, None, :, slot], kept[:, :-1]], dim=1)
            seen.append(kept)
        return seen, torch.stack(slots[::-1], dim=-1)[:, -1]
