"""Answers of unequal length, written token by token until every row says that it is over: greedily, or sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def write_tokens(
    model: Any,
    prompt: Tensor,
    n_tokens: int,
    *,
    over: Callable[[Tensor], Tensor],
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a model writes behind a prompt, long [n, n_tokens], -1 behind the last token that any row needed.

    Args:
        model: gives logits of tokens; one that has a cache of what it has read (`new_cache`) reads each token once.
        prompt: [n, pos].
        n_tokens: how many at most.
        over: whether what was written so far, [n, k], is all of an answer, bool [n].
        generator: of the draws, from the model's own distribution; None: the likeliest token.
    """
    new_cache = getattr(model, "new_cache", None)
    past = None if new_cache is None else new_cache(len(prompt))
    sequence, unread = prompt.long(), prompt.long()
    start = prompt.shape[1]
    for _ in range(n_tokens):
        logits = (model(sequence) if past is None else model(unread, past_kv_cache=past))[:, -1]
        if generator is None:
            unread = logits.argmax(dim=-1, keepdim=True)
        else:
            chances = logits.float().softmax(-1).to(generator.device)
            unread = torch.multinomial(chances, 1, generator=generator).to(sequence.device)
        sequence = torch.cat([sequence, unread], dim=1)
        if over(sequence[:, start:]).all():
            break
    left = n_tokens - (sequence.shape[1] - start)
    rest = torch.full((len(sequence), left), -1, dtype=torch.long, device=sequence.device)
    return torch.cat([sequence[:, start:], rest], dim=1)
