"""Greedy decoding: a token at a time, or a whole answer guessed and re-read until it stands still."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor

from interp.models.base import HookedModel
from interp.models.kv_cache import KeyValueCache

_ROWS_AT_ONCE = 128  # a cache of this many rows stays small


def check_room(model: Any, prompt: Tensor, n_tokens: int) -> None:
    """Raise ValueError where n_tokens cannot be written after the prompt, one after the other."""
    if prompt.ndim != 2 or not prompt.shape[1]:
        raise ValueError(f"prompt must be [batch, pos] with at least one token; got {list(prompt.shape)}")
    if not model.is_causal:
        raise ValueError("writing token by token needs a causal model; this one is bidirectional")
    most = None if model.longest is None else model.longest - prompt.shape[1] + 1  # the last is written, not read
    if n_tokens < 0 or (most is not None and n_tokens > most):
        raise ValueError(
            f"the tokens to write must be from 0 to {most} after a prompt of {prompt.shape[1]} "
            f"(at most {model.longest} are read); got {n_tokens}"
        )


@torch.no_grad()
def greedy_decode(model: Any, prompt: Tensor, n_tokens: int, *, use_kv_cache: bool = True) -> Tensor:
    """The tokens that follow a prompt, each the arg max given all before it.

    Hooks on the model fire once a token. With the cache they see the prompt first and then one position at a time,
    [batch, 1, …]; without it, the whole sequence so far.

    Args:
        model: a causal HookedModel, in eval mode.
        prompt: integers [batch, pos], pos at least 1.
        n_tokens: how many to write; pos + n_tokens - 1 must not exceed model.longest.
        use_kv_cache: keep what was read where the model can, so that a token costs one position instead of all of
            them. The tokens are the same, up to ties within float error.

    Returns:
        The new tokens alone, long [batch, n_tokens].

    Raises:
        ValueError: the prompt is empty, the model is not causal, or the sequence would be too long.
    """
    check_room(model, prompt, n_tokens)
    past = model.new_cache(len(prompt)) if use_kv_cache else None
    sequence, unread = prompt.long(), prompt.long()
    for _ in range(n_tokens):
        logits = model(sequence) if past is None else model(unread, past_kv_cache=past)
        unread = logits[:, -1:].argmax(dim=-1)
        sequence = torch.cat([sequence, unread], dim=1)
    return sequence[:, prompt.shape[1] :]


def is_plain(model: Any) -> TypeGuard[HookedModel]:
    """Whether nobody would notice how passes are cut: a model with a KeyValueCache, in eval mode, without hooks."""
    if not isinstance(model, HookedModel) or model.training or not isinstance(model.new_cache(1), KeyValueCache):
        return False
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@torch.no_grad()
def fixed_point_decode(model: HookedModel, prompt: Tensor, guess: Tensor) -> Tensor:
    """What `greedy_decode` gives, in a few passes where the answer is nearly known (Jacobi decoding).

    An answer in which every token is the arg max given the tokens before it *is* the greedy answer. The guess is
    replaced by the arg max at all its positions at once until it stands still; token i is right after i + 1 rounds at
    the latest (Santilli et al. 2023). The prompt is read once, and rows that stand still are left out.

    Args:
        model: one for which `is_plain` holds.
        prompt: integers [batch, pos].
        guess: integers [batch, n_tokens], the better the faster.

    Returns:
        long [batch, n_tokens].
    """
    parts = zip(prompt.long().split(_ROWS_AT_ONCE), guess.long().split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([_fixed_point(model, *part) for part in parts]) if len(prompt) else guess.long()


def _fixed_point(model: HookedModel, prompt: Tensor, guess: Tensor) -> Tensor:
    past = KeyValueCache(model.cfg, len(prompt))
    first = model(prompt, past_kv_cache=past)[:, -1:].argmax(dim=-1)
    if guess.shape[1] < 2:
        return first[:, : guess.shape[1]]
    answer = torch.cat([first, guess[:, 1:]], dim=1)
    rows = torch.arange(len(answer), device=answer.device)
    for _ in range(answer.shape[1]):
        past.length = prompt.shape[1]
        old = answer[rows]
        new = torch.cat([old[:, :1], model(old[:, :-1], past_kv_cache=past).argmax(dim=-1)], dim=1)
        answer[rows] = new
        moved = (new != old).any(dim=1)
        if not moved.any():
            break
        rows = rows[moved]
        past.keep(moved)
    return answer
