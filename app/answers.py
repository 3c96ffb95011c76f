"""A model's answers to examples of any task, token by token, beside the world's; from forward passes made here and now.

A token of the answer is *asked* somewhere. Where the answer stands in the tokens itself (`Task.shows_answer`), the
model writes its own, and what it says of a token is told at that token; elsewhere at the token that asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from app.run_access import LoadedModel


@dataclass(frozen=True)
class Answers:
    """What is asked of n examples and what the model says, on the positions of the tokens."""

    asked: np.ndarray  # bool [n, pos]: where the world's answer is told
    truth: np.ndarray  # int64 [n, pos]; -1 where nothing is asked
    said: np.ndarray  # int64 [n, pos], the model's token; -1 where nothing is asked
    p: np.ndarray  # float32 [n, pos], probability of what the model says
    p_truth: np.ndarray  # float32 [n, pos], of the truth

    @property
    def right(self) -> np.ndarray:
        """Whether each asked token is right, bool [n, pos]; True where nothing is asked."""
        return self.said == self.truth

    @property
    def all_right(self) -> np.ndarray:
        """Whether everything that is asked of an example is right, bool [n]."""
        return np.asarray(self.right.all(axis=1))


def asked_tokens(task: Any, batch: Any) -> np.ndarray:
    """The world's answer on the positions where it is told, int64 [n, pos]; -1 where nothing is asked."""
    return _at_tokens(task, batch.targets.numpy())


def answers(loaded: LoadedModel, batch: Any) -> Answers:
    """The model's greedy answers to a batch. Holds the model's lock while it runs."""
    import torch

    task, model = loaded.run.task, loaded.run.model
    with loaded.lock, torch.no_grad():
        shown = _with_own_answer(task, model, batch)
        p = model(shown.tokens).float().softmax(dim=-1)  # [n, pos, d_vocab]
    targets = batch.targets
    asked = targets >= 0
    top, said = p.max(dim=-1)
    if task.shows_answer:  # decoded token by token, which need not be the arg max of one pass over ties
        said = torch.where(asked, shown.targets, said)
        top = p.gather(-1, said.clamp(min=0)[..., None])[..., 0]  # -1 where its own answer is over
    p_truth = p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    nothing = torch.full_like(targets, -1)
    return Answers(
        asked=_at_tokens(task, asked.numpy(), fill=False),
        truth=_at_tokens(task, targets.numpy()),
        said=_at_tokens(task, torch.where(asked, said, nothing).numpy()),
        p=_at_tokens(task, torch.where(asked, top, 0.0).numpy(), fill=0.0),
        p_truth=_at_tokens(task, torch.where(asked, p_truth, 0.0).numpy(), fill=0.0),
    )


def shown_tokens(loaded: LoadedModel, examples: Any) -> np.ndarray:
    """The tokens [n, pos] that a model reads, with its own answer where the answer stands in them."""
    import torch

    task = loaded.run.task
    with loaded.lock, torch.no_grad():
        return _with_own_answer(task, loaded.run.model, task.render(examples)).tokens.numpy()


def _with_own_answer(task: Any, model: Any, batch: Any) -> Any:
    if not task.shows_answer:
        return batch
    return task.render(batch.examples, model.answer(task, batch).numpy())


def _at_tokens(task: Any, values: np.ndarray, *, fill: Any = -1) -> np.ndarray:
    """Values at the positions that ask [n, pos], moved to where their answer stands: logits say the token after."""
    if not task.shows_answer:
        return values
    moved = np.full_like(values, fill)
    moved[:, 1:] = values[:, :-1]
    return moved
