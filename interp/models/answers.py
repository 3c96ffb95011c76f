"""Greedy answers of an encoder–decoder: token by token, with or without a cache, or guessed and re-read."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.models.encoder_decoder import EncoderDecoder

_ROWS_AT_ONCE = 128  # a cache of this many rows stays small


@torch.no_grad()
def greedy_answers(model: EncoderDecoder, prompt: Tensor, n_tokens: int, *, use_cache: bool = True) -> Tensor:
    """The answer to each prompt, every token the arg max given all before it.

    Args:
        model: in eval mode.
        prompt: integers [batch, n_prompt].
        n_tokens: how many to write, at most n_answer.
        use_cache: read the prompt once, and each token once; otherwise everything so far, at every token.

    Returns:
        long [batch, n_tokens].

    Raises:
        ValueError: a prompt of another length, or more tokens than an answer has.
    """
    cfg = model.cfg
    if prompt.ndim != 2 or prompt.shape[1] != cfg.n_prompt:
        raise ValueError(f"prompt must be [batch, {cfg.n_prompt}]; got {list(prompt.shape)}")
    if not 0 <= n_tokens <= cfg.n_answer:
        raise ValueError(f"an answer has {cfg.n_answer} tokens; got {n_tokens} to write")
    written = torch.zeros(len(prompt), n_tokens, dtype=torch.long, device=prompt.device)
    if not use_cache:
        for i in range(n_tokens):  # the last token of a record is not read: what stands there does not matter
            logits = model(torch.cat([prompt.long(), written[:, : i + 1]], dim=1))
            written[:, i] = logits[:, cfg.n_prompt - 1 + i].argmax(dim=-1)
        return written
    memory, past = model.read_prompt(prompt), model.new_answer(len(prompt))
    unread = torch.full_like(prompt[:, :1].long(), cfg.d_vocab)
    for i in range(n_tokens):
        unread = model.write_on(memory, unread, past)[:, -1:].argmax(dim=-1)
        written[:, i] = unread[:, 0]
    return written


@torch.no_grad()
def fixed_point_answers(model: EncoderDecoder, prompt: Tensor, guess: Tensor) -> Tensor:
    """What `greedy_answers` gives, in a few passes where the answer is nearly known (see `fixed_point_decode`).

    Args:
        model: in eval mode, without hooks.
        prompt: integers [batch, n_prompt].
        guess: integers [batch, n_tokens], the better the faster.
    """
    parts = zip(prompt.long().split(_ROWS_AT_ONCE), guess.long().split(_ROWS_AT_ONCE), strict=True)
    return torch.cat([_fixed_point(model, *part) for part in parts]) if len(prompt) else guess.long()


def _fixed_point(model: EncoderDecoder, prompt: Tensor, guess: Tensor) -> Tensor:
    memory, answer = model.read_prompt(prompt), guess.clone()
    rows, start = torch.arange(len(answer), device=answer.device), torch.full_like(prompt[:, :1], model.cfg.d_vocab)
    for _ in range(answer.shape[1] + 1):
        old = answer[rows]
        read = torch.cat([start[: len(old)], old[:, :-1]], dim=1)
        new = model.write_on(memory, read, model.new_answer(len(old))).argmax(dim=-1)
        answer[rows] = new
        moved = (new != old).any(dim=1)
        if not moved.any():
            break
        rows, memory = rows[moved], memory[moved]
    return answer
