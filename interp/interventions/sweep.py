"""Many interchanges in few forward passes.

Each pass starts at the layer that is patched, from the base's cached residual stream, and several sites share a pass
along the batch axis. The residual streams of base and source advance one layer at a time, so memory holds one layer
of one batch, whatever the model's depth.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp.interventions.patching import Patch, check_basis, patch_activation, read_positions, write_positions

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Interchange:
    """One site at which every pair's base takes the source's activation, in `basis` alone where one is given."""

    hook: str
    base_positions: Tensor  # long [n, k]
    source_positions: Tensor  # long [n, k]
    head: int | None = None
    basis: Tensor | None = None  # [rank, d], orthonormal rows


@torch.no_grad()
def interchange_answers(
    model: Any,
    base: Tensor,
    source: Tensor,
    interchanges: Sequence[Interchange],
    *,
    answer: Callable[[Tensor], Tensor],
    batch_size: int = 512,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """The model's answers on base under each interchange, and without any.

    Args:
        model: a hooked model; passes start at the patched layer where its forward takes `start_at_layer`.
        base: tokens, long [n, pos].
        source: tokens, long [n, pos].
        interchanges: what to swap, each for all n pairs.
        answer: from logits to what is kept of them, [rows, ...].
        batch_size: rows a forward pass.
        progress: called with the share done, 0 to 1.

    Returns:
        [len(interchanges) + 1, n, ...]; the last is the unpatched answer.

    Raises:
        ValueError: the model lacks a hook, or a basis is not orthonormal.
    """
    for interchange in interchanges:
        if interchange.hook not in model.hook_dict:
            raise ValueError(f"the model has no hook {interchange.hook!r}")
        check_basis(interchange.basis)
    stages = [entry_point(model, interchange.hook) for interchange in interchanges]
    batches: list[Tensor] = []
    n = len(base)
    for start in range(0, n, batch_size):
        rows = slice(start, min(start + batch_size, n))
        walk = _Walk(model, base[rows], source[rows], answer)
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

    -1 stands for the tokens: embedding hooks, and models that cannot start at a layer.
    """
    if "blocks.0.hook_resid_pre" not in model.hook_dict:
        return -1, False
    if hook.startswith("ln_final"):
        return model.cfg.n_layers, False
    match = _BLOCK.fullmatch(hook)
    if match is None:
        return -1, False
    layer, name = int(match[1]), match[2]
    return {"hook_resid_pre": (layer, True), "hook_resid_post": (layer + 1, True)}.get(name, (layer, False))


class _Walk:
    """Base and source going through the layers side by side."""

    def __init__(self, model: Any, base: Tensor, source: Tensor, answer: Callable[[Tensor], Tensor]):
        self.model, self.answer = model, answer
        self.layer = -1  # what base and source are: tokens, or the residual stream before this layer
        self.base, self.source = base, source

    def layers(self):
        """Yield -1, 0 … n_layers, base and source having advanced to each; -1 alone where no layer can be entered."""
        yield -1
        if "blocks.0.hook_resid_pre" not in self.model.hook_dict:
            return
        for layer in range(self.model.cfg.n_layers + 1):
            self.base, self.source = (
                self._forward(x, stop=layer) if layer else self._embed(x) for x in (self.base, self.source)
            )
            self.layer = layer
            yield layer

    def unpatched(self) -> Tensor:
        return self.answer(self._forward(self.base))

    def swap(
        self, interchanges: dict[int, tuple[Interchange, bool]], rows: slice, batch_size: int
    ) -> dict[int, Tensor]:
        """Answers under interchanges that enter at this layer; the flag says that the residual stream is patched."""
        taken = self._source_activations({swap.hook for swap, direct in interchanges.values() if not direct})
        patches: dict[int, Patch] = {}
        for index, (swap, direct) in interchanges.items():
            activation = self.source if direct else taken[swap.hook]
            value = read_positions(activation, swap.hook, positions=swap.source_positions[rows], head=swap.head)
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
                    write_positions(stack, patches[index], first_row=place * n)
                else:
                    by_hook.setdefault(patches[index].hook, []).append((place * n, patches[index]))
            hooks = [(hook, partial(patch_activation, patches=parts)) for hook, parts in by_hook.items()]
            with self.model.hooks(fwd_hooks=hooks):
                kept = self.answer(self._forward(stack))
            answers |= {index: kept[place * n : (place + 1) * n] for place, index in enumerate(group)}
        return answers

    def _source_activations(self, hooks: set[str]) -> dict[str, Tensor]:
        if not hooks:
            return {}
        taken: dict[str, Tensor] = {}
        with self.model.hooks(
            fwd_hooks=[(name, lambda act, hook: taken.__setitem__(hook.name, act)) for name in hooks]
        ):
            last = self.layer in (-1, getattr(self.model.cfg, "n_layers", None))
            self._forward(self.source, stop=None if last else self.layer + 1)
        return taken

    def _embed(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, stop_at_layer=0)

    def _forward(self, x: Tensor, *, stop: int | None = None) -> Tensor:
        if self.layer < 0:
            return self.model(x)
        return self.model(x, start_at_layer=self.layer, stop_at_layer=stop)
