"""Writing on from a prompt by sampling, a token at a time, until stop tokens say that it is enough."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from interp.models.decoding import check_room


@torch.no_grad()
def generate_tokens(
    model: Any,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    do_sample: bool = True,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop_tokens: Iterable[int] = (),
    generator: torch.Generator | None = None,
    use_past_kv_cache: bool = True,
) -> Tensor:
    """The prompt [batch, pos] with what follows it, [batch, pos + at most max_new_tokens].

    A row that has written a stop token is filled up with it; writing ends when every row has. For the other arguments
    and ValueError see HookedModel.generate.
    """
    check_room(model, prompt, max_new_tokens)
    stops = torch.tensor(sorted(set(stop_tokens)), dtype=torch.long, device=prompt.device)
    past = model.new_cache(len(prompt)) if use_past_kv_cache else None
    sequence, unread = prompt.long(), prompt.long()
    for _ in range(max_new_tokens):
        logits = model(sequence) if past is None else model(unread, past_kv_cache=past)
        last = logits[:, -1]  # [batch, d_vocab]
        unread = draw_token(last, temperature, top_k, top_p, generator) if do_sample else last.argmax(-1, keepdim=True)
        stopped = torch.isin(sequence[:, -1:], stops) if sequence.shape[1] > prompt.shape[1] else None
        if stopped is not None:
            unread = torch.where(stopped, sequence[:, -1:], unread)
        sequence = torch.cat([sequence, unread], dim=1)
        if len(stops) and torch.isin(unread, stops).all():
            break
    return sequence


def draw_token(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float | None, generator: torch.Generator | None
) -> Tensor:
    """One token a row from logits [batch, d_vocab], [batch, 1]."""
    logits = logits.double() / temperature
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None:
        ordered, order = logits.softmax(-1).sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # probability of all likelier tokens: the first is always kept
        dropped = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)
