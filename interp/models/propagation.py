"""Edits at a hook point that carry a state: what was edited, and how it reaches every later position.

A hook at a carrier receives the states of one run, [batch, pos, …], and returns them edited. Elements that differ from
what it was given are *set*; at every other element the recurrence goes on from what is before it. So an edit at
position t is read out at t and by everything after it, an edit at a later position replaces what the earlier one had
made of those elements, and a hook that returns what it was given has edited nothing. (An element that the hook sets to
the very number it had counts as not edited: alone it makes no difference; after another edit it does not undo it.)

Several carriers: hooks of a layer are given the run in which all edits of the layers below have been made, so edits at
several layers are made from the lowest up, at all positions of a layer before the next. Edits of the carriers of one
layer (a convolution's window, then the state that it feeds) likewise. With the whole carrier set at t, what comes after
t depends on what was set and on later tokens alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.models.hooks import live, only_read


@dataclass(frozen=True)
class Edit:
    """What a hook made of a stack of states or gates, each [batch, pos, …]."""

    given: Tensor
    returned: Tensor

    @cached_property
    def mask(self) -> Tensor:
        """Which elements differ, bool."""
        return self.returned.detach() != self.given.detach()

    @cached_property
    def empty(self) -> bool:
        """Whether nothing was edited."""
        return self.returned is self.given or torch.equal(self.returned.detach(), self.given.detach())

    @property
    def in_graph(self) -> bool:
        """Whether a gradient at the hook point may be asked for."""
        return torch.is_grad_enabled() and self.returned.requires_grad

    def slot(self, index: int) -> Edit:
        """The part of it at an index of the last axis."""
        return Edit(self.given[..., index], self.returned[..., index])

    def steps(self) -> list[Callable[[Tensor], Tensor]]:
        """For each position, what `apply` does there, to values [batch, …]."""
        parts = zip(*(each.unbind(1) for each in (self.given, self.returned, self.mask)), strict=True)
        return [lambda value, part=part: _replace(value, *part) for part in parts]

    def apply(self, value: Tensor) -> Tensor:
        """Set the edited elements of newly made states.

        The others keep their value, and yet are tied to the hook point: `returned - given` is 0 there, and its gradient
        makes the gradient at the hook point the whole effect of the state, through all later positions, while what
        would flow back into `given` a second time cancels.
        """
        return _replace(value, self.given, self.returned, self.mask)


def _replace(value: Tensor, given: Tensor, returned: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, returned, value + (returned - given))


def fire(hook_point: HookPoint, x: Tensor) -> Tensor:
    """Fire a hook point whose value may be a view or a constant: hooks may write into it and ask for its gradient."""
    if not live(hook_point):
        return x
    x = x.clone() if x.requires_grad or not torch.is_grad_enabled() else x.detach().requires_grad_().clone()
    return hook_point(x)


def ask(hook_point: HookPoint, given: Tensor) -> Edit:
    """Fire a hook point once on a stack [batch, pos, …]; hooks may write into what they are given."""
    if not torch.is_grad_enabled() and only_read(hook_point):
        hook_point(given)
        return Edit(given, given)
    returned = hook_point(given.clone())
    if returned.shape != given.shape:
        raise ValueError(
            f"a hook at {hook_point.name} must return {list(given.shape)}, as it was given; got {list(returned.shape)}"
        )
    return Edit(given, returned.to(given.dtype))


def propagate(run: Callable[[Tensor, Tensor, Tensor], Tensor], edit: Edit) -> Tensor:
    """The states after an edit, by as many further calls as there are edited positions in a row: one for one.

    Args:
        run: given rows [n], positions [n, steps] and the states [n, …] before them, the states after each of those
            positions, [n, steps, …], as the recurrence makes them without edits. Rows start where their edit is, so
            positions differ by row; they may run past the end, where what comes back is not used.
        edit: at the carrier.

    Returns:
        [batch, pos, …].
    """
    final = edit.given.clone()
    n_pos = final.shape[1]
    edited_at = edit.mask.flatten(2).any(-1)  # [batch, pos]
    count = edited_at.cumsum(1)
    for number in range(1, int(count[:, -1].max()) + 1):
        rows = (count[:, -1] >= number).nonzero()[:, 0]
        at = (count[rows] >= number).int().argmax(1)  # [n], position of the row's edit of this number
        here = (rows, at)
        state = torch.where(edit.mask[here], edit.returned[here], final[here])
        final = final.index_put(here, state)
        # up to the row's next edit, whose own elements are set in the next round, or to the end
        after = torch.where(
            count[rows, -1] > number, (count[rows] >= number + 1).int().argmax(1), torch.full_like(at, n_pos - 1)
        )
        steps = int((after - at).max())
        if steps:
            positions = at[:, None] + 1 + torch.arange(steps, device=at.device)
            wanted = positions <= after[:, None]
            made = run(rows, positions.clamp(max=n_pos - 1), state)
            into = (rows[:, None].expand_as(positions)[wanted], positions[wanted])
            final = final.index_put(into, made[wanted])
    return final
