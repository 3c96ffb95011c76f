"""Answers: where logits say them, and how many are right, by the world's strata."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.worlds.base import Strata


def exact_matches(right: np.ndarray, strata: Strata) -> pd.DataFrame:
    """Rows of EXACT_MATCH, one a stratum that is present, from right or wrong, bool [n]; Wilson intervals."""
    rows = []
    for stratum, part in strata.present():
        members = strata.members(stratum, part)
        n, successes = int(members.sum()), int(right[members].sum())
        low, high = wilson_interval(successes, n)
        named = {"op": strata.names[stratum], "stratum": strata.parts[part] if strata.parts else None}
        shares = {"estimate": successes / n, "ci_low": low, "ci_high": high, "n": n}
        rows.append({**named, "metric": Metric.EXACT_MATCH, **shares})
    return pd.DataFrame(rows)


def macro_average(scores: pd.DataFrame) -> float:
    """Mean exact match over the strata present in the rows of `Task.score`, each counted once."""
    return float(scores.loc[scores["metric"] == Metric.EXACT_MATCH, "estimate"].mean())


def read_answers(logits: Tensor, positions: Tensor | np.ndarray) -> Tensor:
    """Logits [n, pos, d_vocab] at positions [n, k], or [k] for all: [n, k, d_vocab]."""
    where = torch.as_tensor(positions, device=logits.device)
    if where.ndim == 1:
        return logits[:, where]
    return logits[torch.arange(len(logits), device=logits.device)[:, None], where]


def fixed_point_of(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The model's own quick greedy decoding (prompt, guess) -> answer; None where it has none, or a hook would see."""
    return getattr(model, "fixed_point", None)


def greedy_answer(model: Callable[[Tensor], Tensor], prompt: Tensor, guess: Tensor) -> Tensor:
    """The greedy answer behind each prompt, long [n, k], by fixed-point iteration from a guess [n, k].

    An answer in which every token is the arg max given the tokens before it *is* the greedy answer; token i is right
    after i + 1 rounds at the latest, and after a few where the guess is near (Jacobi decoding, Santilli et al. 2023).
    Where nobody watches the model, the prompt is read once and rows that stand still are left out.
    """
    if (decode := fixed_point_of(model)) is not None:
        return decode(prompt, guess)
    answer = guess.clone()
    for _ in range(guess.shape[1] + 1):
        better = model(torch.cat([prompt, answer], dim=1))[:, prompt.shape[1] - 1 : -1].argmax(dim=-1)
        if torch.equal(better, answer):
            break
        answer = better
    return answer
