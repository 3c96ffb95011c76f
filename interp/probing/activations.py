"""Activations at chosen tokens, from forward passes that stop after the last layer anybody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import stop_layer
from interp.probing.draw import Chosen
from interp.ranges import counted

_ROWS = 64  # examples a forward pass


@counted(batch_size=1)
@torch.no_grad()
def read_tokens(
    model: Any, tokens: Tensor, hooks: Sequence[str], chosen: Chosen, *, batch_size: int = _ROWS
) -> dict[tuple[str, str], Tensor]:
    """What each hook holds at the chosen tokens.

    Args:
        model: a hooked model.
        tokens: long [n, pos].
        hooks: hook points with an axis of positions; patterns are read by query position.
        chosen: place -> rows of `tokens`, rising, and positions, [m] each.
        batch_size: examples a forward pass.

    Returns:
        (place, hook) -> float32 [m, d]; further axes, such as heads, are laid side by side.

    Raises:
        ValueError: no such hook, or its activation has no axis of positions.
    """
    axes = {hook: position_axis(model, hook) for hook in hooks}
    stop = stop_layer(model, list(hooks)) if model.can_enter_layers else None
    found: dict[tuple[str, str], list[Tensor]] = {(place, hook): [] for place in chosen for hook in hooks}
    for start in range(0, len(tokens), batch_size):
        cache: dict[str, Tensor] = {}

        def keep(activation: Tensor, hook: Any, cache: dict[str, Tensor] = cache) -> None:
            cache[hook.name] = activation

        some = tokens[start : start + batch_size]
        with model.hooks(fwd_hooks=[(hook, keep) for hook in hooks]):
            model(some, stop_at_layer=stop) if stop is not None else model(some)
        for place, (row, position) in chosen.items():
            low, high = np.searchsorted(row, [start, start + batch_size])
            rows = torch.from_numpy(row[low:high] - start)
            for hook in hooks:
                # Positions next to the batch, and only then one vector a token.
                by_position = cache[model.hook_name(hook)].movedim(axes[hook], 1)
                at = torch.from_numpy(position[low:high]) - model.first_position(hook)
                if len(at) and not (int(at.min()) >= 0 and int(at.max()) < by_position.shape[1]):
                    raise ValueError(f"{hook} is about one side of a record alone, which {place!r} is not on")
                found[place, hook].append(by_position[rows, at].flatten(1).float().cpu())
    return {key: torch.cat(parts) for key, parts in found.items()}


def position_axis(model: Any, hook: str) -> int:
    """Which axis of a hook's activation goes by token position. Raises ValueError where none does."""
    axes = model.axes(hook)
    for axis, name in enumerate(axes):  # of one side of a model with two: prompt_pos, answer_query_pos
        if name.endswith("pos") and not name.endswith("key_pos"):
            return axis
    raise ValueError(f"a probe reads single tokens; the activation at {hook!r} goes by {', '.join(axes)}")
