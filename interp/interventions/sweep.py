"""Many interchanges in few forward passes.

Each pass starts at the layer that is patched, from the base's cached residual stream, and several sites share a pass
along the batch axis. The residual streams of base and source advance one layer at a time, so memory holds one layer
of one batch, whatever the model's depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp.interventions.declared import (
    axes_of,
    can_enter_layers,
    first_position,
    layer_of,
    n_layers,
    require_hook,
    residual_hooks,
)
from interp.interventions.patching import Patch, check_basis, patch_activation, read_positions, write_positions
from interp.ranges import counted
from interp.tasks.answers import read_answers


def greedy(logits: Tensor) -> Tensor:
    """The arg max of logits [..., d_vocab]."""
    return logits.argmax(dim=-1)


@dataclass(frozen=True)
class Interchange:
    """One site at which every pair's base takes the source's activation, in `basis` alone where one is given."""

    hook: str
    base_positions: Tensor  # long [n, k]
    source_positions: Tensor  # long [n, k]
    head: int | None = None
    basis: Tensor | None = None  # [rank, d], orthonormal rows


@counted(batch_size=1)
@torch.no_grad()
def interchange_answers(
    model: Any,
    base: Tensor,
    source: Tensor,
    interchanges: Sequence[Interchange],
    *,
    positions: Tensor | None = None,
    answer: Callable[[Tensor], Tensor] = greedy,
    batch_size: int = 512,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """The model's answers on base under each interchange, and without any.

    Args:
        model: a hooked model, hooks that stand on it included; passes start at the patched layer where layers can be
            entered.
        base: tokens, long [n, pos].
        source: tokens, long [n, pos].
        interchanges: what to swap, each for all n pairs.
        positions: long [n, k]: where each pair's logits are read; None: everywhere.
        answer: from these logits, [rows, k or pos, d_vocab], to what is kept of them, [rows, ...].
        batch_size: rows a forward pass.
        progress: called with the share done, 0 to 1.

    Returns:
        [len(interchanges) + 1, n, ...]; the last is the unpatched answer.

    Raises:
        ValueError: the model lacks a hook or a head, or a basis is not finite orthonormal rows that fit.
    """
    for interchange in interchanges:
        require_hook(model, interchange.hook)
        check_basis(interchange.basis, model)
    stages = [entry_point(model, interchange.hook) for interchange in interchanges]
    batches: list[Tensor] = []
    n = len(base)
    for start in range(0, n, batch_size):
        rows = slice(start, min(start + batch_size, n))
        walk = _Walk(model, base[rows], source[rows], answer, None if positions is None else positions[rows])
        answers: dict[int, Tensor] = {}
        for layer in walk.layers():
            here = [index for index, stage in enumerate(stages) if stage[0] == layer]
            answers |= walk.swap({index: (interchanges[index], stages[index][1]) for index in here}, rows, batch_size)
            if progress is not None:
                progress((start + (rows.stop - start) * len(answers) / max(1, len(stages))) / n)
        batches.append(torch.stack([*(answers[index] for index in range(len(stages))), walk.unpatched()]))
    return torch.cat(batches, dim=1)


def entry_point(model: Any, hook: str) -> tuple[int, bool]:
    """The layer before which a pass may start, and whether the hook is the residual stream there.

    -1 stands for the tokens: hooks outside the layers, and models that cannot start at one.
    """
    layer = layer_of(model, hook)
    if layer is None or not can_enter_layers(model):
        return -1, False
    # A residual hook that fires inside the layer before: what reaches the next layer has passed it, standing hooks and
    # all, and can be written into as it is. The first one fires inside layer 0, and so does not count.
    stream = residual_hooks(model)
    after = stream.index(hook) if hook in stream else 0
    return (after, True) if layer < after else (layer, False)


class _Walk:
    """Base and source going through the layers side by side."""

    def __init__(
        self,
        model: Any,
        base: Tensor,
        source: Tensor,
        answer: Callable[[Tensor], Tensor],
        positions: Tensor | None,
    ):
        self.model, self._answer, self._positions = model, answer, positions
        self.layer = -1  # what base and source are: tokens, or the residual stream before this layer
        self.base, self.source = base, source

    def layers(self):
        """Yield -1, 0 … n_layers, base and source having advanced to each; -1 alone where no layer can be entered."""
        yield -1
        count = n_layers(self.model)
        if count is None or not can_enter_layers(self.model):
            return
        for layer in range(count + 1):
            self.base, self.source = (
                self._forward(x, stop=layer) if layer else self._embed(x) for x in (self.base, self.source)
            )
            self.layer = layer
            yield layer

    def answer(self, logits: Tensor) -> Tensor:
        """What is kept of logits [repeats of the base's rows, pos, d_vocab]."""
        if self._positions is not None:
            logits = read_answers(logits, self._positions.repeat(len(logits) // len(self._positions), 1))
        return self._answer(logits)

    def unpatched(self) -> Tensor:
        return self.answer(self._forward(self.base))

    def swap(
        self, interchanges: dict[int, tuple[Interchange, bool]], rows: slice, batch_size: int
    ) -> dict[int, Tensor]:
        """Answers under interchanges that enter at this layer; the flag says that the residual stream is patched."""
        taken = self._source_activations({swap.hook for swap, direct in interchanges.values() if not direct})
        patches: dict[int, Patch] = {}
        for index, (swap, direct) in interchanges.items():
            activation, axes = (self.source, axes_of(self.model, swap.hook)) if direct else taken[swap.hook]
            at = {"positions": swap.source_positions[rows], "head": swap.head}
            value = read_positions(activation, axes, swap.hook, **at, first=first_position(self.model, swap.hook))
            patches[index] = Patch(swap.hook, swap.base_positions[rows], value, head=swap.head, basis=swap.basis)
        n = len(self.base)
        per_pass = max(1, batch_size // n)
        answers: dict[int, Tensor] = {}
        indices = list(interchanges)
        for first in range(0, len(indices), per_pass):
            group = indices[first : first + per_pass]
            stack = self.base.repeat(len(group), *[1] * (self.base.ndim - 1))
            by_hook: dict[str, list[tuple[int, Patch]]] = {}
            for place, index in enumerate(group):
                if interchanges[index][1]:
                    hook = patches[index].hook
                    write_positions(stack, axes_of(self.model, hook), patches[index], first_row=place * n)
                else:
                    by_hook.setdefault(patches[index].hook, []).append((place * n, patches[index]))
            hooks = [
                (hook, partial(patch_activation, model=self.model, patches=parts)) for hook, parts in by_hook.items()
            ]
            with self.model.hooks(fwd_hooks=hooks):
                kept = self.answer(self._forward(stack))
            answers |= {index: kept[place * n : (place + 1) * n] for place, index in enumerate(group)}
        return answers

    def _source_activations(self, hooks: set[str]) -> dict[str, tuple[Tensor, tuple[str, ...]]]:
        """The source's activation at each hook, and the names of its axes."""
        if not hooks:
            return {}
        taken: dict[str, tuple[Tensor, tuple[str, ...]]] = {}

        def keep(activation: Tensor, hook: Any, name: str) -> None:
            taken[name] = activation, axes_of(self.model, name)  # under the name asked for: a hook may have several

        with self.model.hooks(fwd_hooks=[(name, partial(keep, name=name)) for name in hooks]):
            last = self.layer in (-1, n_layers(self.model))
            self._forward(self.source, stop=None if last else self.layer + 1)
        return taken

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, stop_at_layer=0)

    def _forward(self, x: Tensor, *, stop: int | None = None) -> Tensor:
        if self.layer < 0:
            return self.model(x)
        return self.model(x, start_at_layer=self.layer, stop_at_layer=stop)
