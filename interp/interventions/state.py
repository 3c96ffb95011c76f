"""State interchange: the full carrier of a source at a position put into a base.

A model's carrier at t is everything through which positions up to t reach later ones (`model.carrier_hooks()`): keys
and values of every layer, or the states of every recurrent layer. With all of it taken from source,

    model(base, carrier at positions up to t <- source's) = model(source[<= t], then base[> t])   at positions after t

exactly, up to float error: the test that the hooks of an architecture are the whole carrier, and that what is put in
reaches what follows. Positions that are learned need the same token index in both, which is so here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from interp.interventions.declared import axes_of

_ALONG = ("pos", "key_pos")  # the axes that a carrier's positions are counted along


@torch.no_grad()
def carrier_values(model: Any, tokens: Tensor, t: int) -> dict[str, Tensor]:
    """What the model carries past position t: the activation at each carrier hook, at positions up to and with t.

    Args:
        model: a hooked model that declares carriers; hooks that stand on it count.
        tokens: long [batch, pos].
        t: a position.

    Returns:
        By hook [batch, …], with t + 1 positions along the axis of positions.

    Raises:
        ValueError: the model declares no carrier, or there is no position t.
    """
    taken: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        axis = _position_axis(model, hook.name)
        taken[hook.name] = activation.narrow(axis, 0, t + 1).clone()

    with model.hooks(fwd_hooks=[(name, keep) for name in _carriers(model, tokens, t)]):
        model(tokens)
    return taken


@torch.no_grad()
def carrier_swapped(model: Any, base: Tensor, source: Tensor, t: int) -> Tensor:
    """Logits [batch, pos, d_vocab] on base with the full carrier of source at t; read them behind t.

    At t and before it they are what the base's own tokens make of a carrier that is not theirs.

    Args:
        model: a hooked model that declares carriers; hooks that stand on it count.
        base: long [batch, pos].
        source: long [batch, pos], as many rows, at least t + 1 tokens long.
        t: the last position that is source's.

    Raises:
        ValueError: the model declares no carrier, the batches differ in size, or there is no position t.
    """
    hooks = _carriers(model, base, t)
    if len(base) != len(source):
        raise ValueError(f"base and source must have as many rows; got {len(base)} and {len(source)}")
    values = carrier_values(model, source, t)

    def put(activation: Tensor, hook: Any) -> Tensor:
        patched = activation.clone()
        patched.narrow(_position_axis(model, hook.name), 0, t + 1).copy_(values[hook.name])
        return patched

    with model.hooks(fwd_hooks=[(name, put) for name in hooks]):
        return model(base)


def _carriers(model: Any, tokens: Tensor, t: int) -> tuple[str, ...]:
    hooks = model.carrier_hooks() if hasattr(model, "carrier_hooks") else ()
    if not hooks:
        raise ValueError("the model declares no carrier: its positions also look ahead, or it names none")
    if not 0 <= t < tokens.shape[1]:
        raise ValueError(f"t must be a position from 0 to {tokens.shape[1] - 1}, got {t}")
    return tuple(hooks)


def _position_axis(model: Any, hook: str) -> int:
    axes = axes_of(model, hook)
    for name in _ALONG:
        if name in axes:
            return axes.index(name)
    raise ValueError(f"the carrier {hook} has no axis of positions; its axes are {', '.join(axes)}")
