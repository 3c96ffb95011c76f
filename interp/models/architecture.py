"""What an architecture is to the rest of the house: an entry of MODELS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.models.base import HookedModel


def always(task: Any) -> None:
    """For architectures that can be trained on every task: no reason against any."""


def causal_only(task: Any) -> str | None:
    """For architectures that read from left to right: the sentence that says why a task does not suit them, or None."""
    if task.attention_dir == "causal":
        return None
    return (
        f"the task {task.name} asks at positions that must see what comes later; this architecture reads from left to "
        "right alone"
    )


def answer_behind_prompt(task: Any) -> bool:
    """Whether the answer stands in the tokens, as one block behind the prompt."""
    n_prompt = len(range(task.n_ctx)[task.prompt_positions])
    behind = list(range(n_prompt - 1, task.n_ctx - 1))
    return bool(task.shows_answer) and [int(p) for p in task.answer_positions] == behind


@dataclass(frozen=True)
class Architecture:
    """One way of computing logits, with all that training and methods need to know before a model is built.

    A model answers the rest itself, see `facts.py`. An architecture may bring an objective, or a way of fitting in
    place of gradients; without them it is trained by `task.loss(model(tokens), batch)`.
    """

    config: type  # frozen dataclass; all share the fields architecture, d_vocab, n_ctx, seed, dtype
    build: Callable[[Any], HookedModel]  # config -> model, on the CPU, with initial weights from config.seed
    words: str  # one plain sentence: what it is
    suits: Callable[[Any], str | None] = always  # task -> None, or the sentence that says why not
    objective: Callable | None = None  # (model, task, batch, generator) -> loss, a scalar tensor; or it and the logits
    fit: Callable | None = None  # (model, task, batch) -> loss: learn from a batch in place of gradients
