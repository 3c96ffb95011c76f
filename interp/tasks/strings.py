"""`strings`: a string of a rule, character by character; each next one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.base import Task
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.counterfactual import Counterfactual, PairDesign
from interp.tasks.sites import check_disjoint
from interp.tasks.string_pairs import draw_string_pairs, string_contrasts
from interp.worlds.base import Split, Strata

START = "^"


class Strings(Task):
    """`^` and then the characters of a string, each asked for at the token before it.

    The loss is of the characters that were drawn. An answer is right where the character held likeliest is the rule's
    own likeliest; where two are equally likely, nothing is judged.
    """

    name = "strings"
    attention_dir = "causal"
    positions = "learned"
    has_strata = False
    n_probed = 16_000
    words = (
        "The model reads a string that was made by a rule, character by character, and says at each one which "
        "character comes next; the rule gives the exact probability of every character."
    )

    def __init__(self, world: Any, options: Any = None):
        super().__init__(world, options)
        if "language" not in self.world.capabilities:
            raise self.world.lacks("language")

    @property
    def vocab(self) -> tuple[str, ...]:
        """The characters, then the start."""
        return (*self.world.rule.alphabet, START)

    @property
    def position_names(self) -> tuple[str, ...]:
        """The start, then all characters but the last, which is asked for alone."""
        return (START, *(f"string[{index}]" for index in range(self.world.rule.length - 1)))

    @property
    def prompt_positions(self) -> slice:
        """All: a string is given and asked at once."""
        return slice(0, self.n_ctx)

    @property
    def answer_positions(self) -> np.ndarray:
        """Every position."""
        return np.arange(self.n_ctx)

    def render(self, examples: Any, answers: np.ndarray | None = None) -> Batch:
        """The strings, which carry their own answers: `answers` of a counterfactual are judged, never shown.
        Behind its END nothing is asked of a string."""
        tokens = torch.full((len(examples), self.n_ctx), len(self.vocab) - 1)
        values = torch.from_numpy(examples.values)
        tokens[:, 1:] = values[:, :-1]
        asked = torch.from_numpy(np.arange(self.n_ctx) < self.world.lengths(examples)[:, None])
        targets = torch.where(asked, values, -1)
        return Batch(tokens, targets, asked, examples)

    def expected(self, answer: Any) -> np.ndarray:
        """The rule's likeliest character, int64 [n, 1]; −1 where none is."""
        return answer.values

    def strata(self, batch: Batch, at: int | np.ndarray = 0) -> Strata:
        """What is due once `at` characters are read."""
        return self.world.strata(batch.examples, at)

    def times(self, batch: Batch) -> np.ndarray:
        """How many characters each token has seen, itself included; −1 behind the end."""
        return np.where(batch.loss_mask.numpy(), np.arange(self.n_ctx), -1)

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable once each token is read, int64 [batch, pos]."""
        return self.world.read(batch.examples, name, self.times(batch))

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """(token, position), int64 [batch, pos]: all that the embedding sees."""
        return batch.tokens.numpy() * self.n_ctx + np.arange(self.n_ctx)

    def probe_places(self) -> list[str]:
        """Every token of a string."""
        return ["string"]

    def token_places(self) -> Mapping[str, Callable[[Batch], np.ndarray]]:
        """The characters of a string, without its start."""
        return {"string": lambda batch: batch.loss_mask.numpy() & (np.arange(self.n_ctx) > 0)}

    def position_sets(self) -> list[str]:
        """The token at which the edit acts and is judged, the one before it, and all."""
        return ["string[@here]", "string[@before]", "all"]

    def resolve(self, positions: str, batch: Batch, at: int | np.ndarray = 0) -> Tensor:
        """As `Task.resolve`; `string[@here]` is the token that has seen `at` characters, `string[@before]` the one
        before it."""
        step = np.broadcast_to(np.asarray(at, dtype=np.int64), len(batch))
        found = []
        for part in (each.strip() for each in positions.split("+")):
            if part in ("string[@here]", "string[@before]"):
                found.append(torch.from_numpy(np.maximum(step - (part == "string[@before]"), 0))[:, None])
            else:
                found.append(super().resolve(part, batch, at))
        resolved = torch.cat(found, dim=1)
        check_disjoint(resolved.numpy(), positions)
        return resolved

    # Answers.

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """Teacher-forced: the character held likeliest at every position, long [n, pos]."""
        return model(batch.tokens).argmax(dim=-1)

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """Likeliest characters right, by what is due, and strings without an error. `n` counts places, not strings."""
        exact = self.world.conditionals(batch.examples)
        top = exact.max(axis=2, keepdims=True)
        alone = np.isclose(exact, top, rtol=1e-9, atol=0).sum(axis=2) == 1
        judged = batch.loss_mask.cpu().numpy() & alone
        right = (predicted.cpu().numpy() == exact.argmax(axis=2)) & judged
        n, length = right.shape
        number = self.world.strata(batch.examples, np.tile(np.arange(length), (n, 1))).number
        rows = []

        def add(members: np.ndarray, correct: np.ndarray, **columns: Any) -> None:
            if count := int(members.sum()):
                successes = int((correct & members).sum())
                low, high = wilson_interval(successes, count)
                rows.append({**columns, "estimate": successes / count, "ci_low": low, "ci_high": high, "n": count})

        for stratum, name in enumerate(self.world.stratum_names):
            add(judged & (number == stratum), right, op=name, stratum=None, metric=Metric.EXACT_MATCH)
        whole = (right == judged).all(axis=1)
        add(np.ones(n, dtype=bool), whole, op=None, stratum=None, metric=Metric.SEQUENCE_MATCH)
        return pd.DataFrame(rows)

    # Pairs.

    def counterfactual(
        self,
        n: int,
        name: str,
        *,
        seed: int,
        design: PairDesign = "independent",
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> Counterfactual:
        """Pairs of strings and a place of each; judged is the next character of base if the variable took its value
        from source there. Raises ValueError: weights, or a variable without a value, or that cannot be set."""
        if weights is not None:
            raise ValueError("a string belongs to no one stratum: leave weights out")
        return draw_string_pairs(self, n, name, seed=seed, design=design, split=split)

    def edit_times(self, base: Any, source: Any, name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Any place of each string at which the variable has a value; 0 where there is none."""
        steps = np.tile(np.arange(self.n_ctx), (len(base), 1))
        times = []
        for each in (base, source):
            has = (self.world.read(each, name, steps) >= 0) & (steps < self.world.lengths(each)[:, None])
            times.append(np.where(has.any(axis=1), np.where(has, rng.random(has.shape), -1).argmax(axis=1), 0))
        return times[0], times[1]

    def asked_after(self, examples: Any, at: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The very token: what follows it is the answer."""
        step = np.broadcast_to(np.asarray(at, dtype=np.int64), len(examples))
        return step[:, None], step

    def has_minimal_pairs(self, name: str) -> bool:
        """False: another character makes another string."""
        return False

    def contrasts(self) -> Mapping[str, Contrast]:
        """One a stratum; see `string_contrasts`."""
        return string_contrasts(self)
