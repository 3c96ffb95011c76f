"""A text that a model reads and writes on, token by token, for as long as somebody wants: streams, conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from interp.models.generation import draw_token


class Writer:
    """What was read and written so far, and the model's cache of it, so that each token is read once.

    Where the model can look back on `longest` tokens alone, the older half is forgotten when they are full, and what is
    left is read again; a model with a state reads on without end.

    Raises:
        ValueError: a number out of range, or a model that looks ahead.
    """

    def __init__(
        self,
        model: Any,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            model: a causal HookedModel, in eval mode.
            temperature: what logits are divided by; 0 takes the likeliest.
            top_k: draw among the k likeliest tokens alone.
            top_p: draw among the fewest likeliest tokens whose probabilities reach p, in (0, 1].
            seed: of the draws.
        """
        if not model.is_causal:
            raise ValueError("writing token by token needs a causal model; this one is bidirectional")
        if not 0 <= temperature < float("inf"):
            raise ValueError(f"temperature must be at least 0 (0 takes the likeliest), got {temperature!r}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k!r}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {top_p!r}")
        self.model, self.temperature, self.top_k, self.top_p = model, temperature, top_k, top_p
        self.generator = torch.Generator(model.device).manual_seed(seed)
        self.reset()

    def reset(self) -> None:
        """Forget everything but the state of the draws."""
        self.tokens: list[int] = []  # in the model's reach
        self.forgotten = 0  # tokens that have left it
        self._past, self._read = self.model.new_cache(1), 0

    def read(self, tokens: Tensor | list[int]) -> None:
        """Add tokens [pos] that somebody else wrote; they are read when something is to be written."""
        self.tokens += [int(token) for token in tokens]

    def write(self, most: int, *, stops: frozenset[int] = frozenset()) -> Iterator[int]:
        """Write on, at most so many tokens, up to and with the first of `stops`; each is added before it is given.

        Raises:
            ValueError: nothing was read yet.
        """
        if not self.tokens:
            raise ValueError("there must be a token to write on from")
        for _ in range(most):
            token = self._next()
            self.tokens.append(token)
            yield token
            if token in stops:
                return

    @torch.no_grad()
    def _next(self) -> int:
        self._make_room()
        unread = self.tokens[self._read :] if self._past is not None else self.tokens
        options = {} if self._past is None else {"past_kv_cache": self._past}
        logits = self.model(torch.tensor([unread], device=self.model.device), **options)[:, -1]
        self._read = len(self.tokens)
        if not self.temperature:
            return int(logits.argmax(dim=-1))
        return int(draw_token(logits, self.temperature, self.top_k, self.top_p, self.generator))

    def _make_room(self) -> None:
        longest = self.model.longest
        if longest is None or len(self.tokens) <= longest:
            return
        kept = max(1, longest // 2)
        self.forgotten += len(self.tokens) - kept
        self.tokens = self.tokens[-kept:]
        self._past, self._read = self.model.new_cache(1), 0
