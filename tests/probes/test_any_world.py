"""The one sweep on a world that is no machine: sums of two digits, shown as four tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.models import build_model
from interp.models.config import TransformerConfig
from interp.probing import SweepConfig, directions, draw_examples, probe_sweep, sweep_hooks
from interp.probing.editing import edit_rows
from interp.results import Control, Method, Metric, rows_frame, select
from interp.tasks.base import Task
from interp.tasks.batch import Batch
from interp.tasks.counterfactual import Counterfactual
from interp.tasks.machine_task import as_targets
from interp.worlds.base import Split, Strata, Variable, World, in_split

N_DIGITS = 4
INPUT, LAST = "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"


@dataclass(frozen=True)
class Sums:
    """Sums to be worked out; each stands on a sheet of its own."""

    digits: np.ndarray  # int64 [n, 2]
    sheet: np.ndarray  # uint64 [n]

    def __len__(self) -> int:
        return len(self.sheet)

    def __getitem__(self, rows: Any) -> Sums:
        return Sums(self.digits[rows], self.sheet[rows])

    @classmethod
    def concatenate(cls, parts: Any) -> Sums:
        return cls(np.concatenate([part.digits for part in parts]), np.concatenate([part.sheet for part in parts]))


@dataclass(frozen=True)
class Total:
    values: np.ndarray  # int64 [n]

    @property
    def valid(self) -> np.ndarray:
        return self.values >= 0


class Adding(World):
    """`digit[0]` and `digit[1]` are drawn, `total` is their sum modulo 4."""

    name = "adding"
    unit = "sheet"
    capabilities = frozenset({"do"})

    def variables(self) -> dict[str, Variable]:
        drawn = {
            f"digit[{i}]": Variable(f"digit[{i}]", "digit", "root", (), N_DIGITS, f"digits[{i}]", True, "drawn")
            for i in (0, 1)
        }
        parents = ("digit[0]", "digit[1]")
        return drawn | {"total": Variable("total", "total", "result", parents, N_DIGITS, None, True, "the sum mod 4")}

    def draw(
        self, n: int, *, seed: int, start: int = 0, split: Split = "evaluation", weights: np.ndarray | None = None
    ) -> Sums:
        rows = []
        for i in range(start, start + n):
            rng = np.random.default_rng([seed, i])
            sheet = rng.integers(1 << 40, dtype=np.uint64)
            while not in_split(np.array([sheet]), split)[0]:
                sheet = rng.integers(1 << 40, dtype=np.uint64)
            rows.append((rng.integers(N_DIGITS, size=2), sheet))
        return Sums(np.stack([digits for digits, _ in rows]), np.array([sheet for _, sheet in rows]))

    def read(self, examples: Sums, name: str, at: Any = 0) -> np.ndarray:
        self.variable(name)
        first, second = examples.digits.T
        values = {"digit[0]": first, "digit[1]": second, "total": (first + second) % N_DIGITS}[name]
        times = np.asarray(at)
        return np.where(times == 0, values[:, None], -1) if times.ndim == 2 else np.where(times == 0, values, -1)

    def answer(self, examples: Sums, do: Any = None, at: Any = 0) -> Total:
        found = {name: self.read(examples, name) for name in ("digit[0]", "digit[1]")} | dict(do or {})
        return Total(found.get("total", (found["digit[0]"] + found["digit[1]"]) % N_DIGITS))

    def groups(self, examples: Sums) -> np.ndarray:
        return examples.sheet

    def strata(self, examples: Sums) -> Strata:
        return Strata(self.stratum_title, (), np.full(len(examples), -1))

    def types(self, examples: Sums, name: str) -> np.ndarray:
        return examples.digits @ [N_DIGITS, 1]

    def main_variables(self) -> list[str]:
        return list(self.variables())

    def to_dict(self) -> dict[str, Any]:
        return {}


class Shown(Adding):
    """The same, of which nothing may be asked but what is so."""

    capabilities = frozenset()


class FourTokens(Task):
    """`(`, both digits, `=`; the total is read off at `=`."""

    name = "four tokens"
    attention_dir = "causal"

    @property
    def vocab(self) -> tuple[str, ...]:
        return ("0", "1", "2", "3", "(", "=")

    @property
    def position_names(self) -> tuple[str, ...]:
        return ("(", "digits[0]", "digits[1]", "=")

    @property
    def prompt_positions(self) -> slice:
        return slice(0, 4)

    @property
    def answer_positions(self) -> np.ndarray:
        return np.array([3])

    def render(self, examples: Sums, answers: np.ndarray | None = None) -> Batch:
        tokens = np.insert(examples.digits, [0, 2], [4, 5], axis=1)
        answers = self.expected(self.world.answer(examples)) if answers is None else answers
        return Batch(*as_targets(tokens, self.answer_positions, answers), examples)

    def expected(self, answer: Total) -> np.ndarray:
        return answer.values[:, None]

    def answer(self, model: Any, batch: Batch) -> torch.Tensor:
        return model(batch.tokens).argmax(-1)[:, self.answer_positions]

    def score(self, predicted: torch.Tensor, batch: Batch) -> pd.DataFrame:
        right = (predicted == batch.targets[:, self.answer_positions]).float().mean().item()
        return pd.DataFrame([{"metric": Metric.EXACT_MATCH, "estimate": right, "n": len(batch)}])


class Pooled(FourTokens):
    """The same, where a probe may read either digit's token."""

    name = "pooled tokens"

    def token_places(self) -> dict[str, Any]:
        return {"digits": lambda batch: np.tile([False, True, True, False], (len(batch), 1))}


TASK = FourTokens(Adding())


@pytest.fixture(scope="module")
def model() -> Any:
    """A little transformer that adds: trained on all sums for a few seconds."""
    shape = TransformerConfig(d_vocab=6, n_ctx=4, n_layers=1, n_heads=2, d_model=32, attention_dir="causal")
    model = build_model(shape)
    batch = TASK.render(Sums(np.stack(np.divmod(np.arange(16), 4), axis=1), np.arange(16, dtype=np.uint64)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(600):
        loss = TASK.loss(model(batch.tokens), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert TASK.headline(TASK.score(TASK.answer(model, batch), batch)) == 1
    return model.eval()


def sweep(model: Any, task: Task, **settings: Any) -> list[Any]:
    values: dict[str, Any] = {"n": 600} | settings
    config = SweepConfig(**values)
    return list(sweep_hooks(model, task, untrained=build_model(model.cfg).eval(), config=config))


def test_what_is_read_where(model: Any) -> None:
    results = sweep(model, TASK, places=("digits[0]", "="))
    assert [(each.hook, each.places) for each in results] == [(hook, ("digits[0]", "=")) for hook in (INPUT, LAST)]
    frame = rows_frame([row for each in results for row in each.rows])
    accuracy = select(frame, metric=Metric.ACCURACY, control=None).set_index(["variable", "site", "position"]).estimate
    assert accuracy["digit[0]", INPUT, "digits[0]"] == 1 and accuracy["total", LAST, "="] == 1
    for name in ("digit[0]", "total"):  # every "=" is the same token
        majority = select(frame, control=Control.MAJORITY_CLASS, variable=name, site=INPUT, position="=")
        assert accuracy[name, INPUT, "="] == float(majority.estimate.iloc[0])
    assert accuracy["digit[1]", LAST, "digits[0]"] < 0.5  # nothing looks ahead
    controls = set(select(frame, metric=Metric.ACCURACY, variable="total").control.dropna())
    assert controls == {
        Control.MAJORITY_CLASS,
        Control.CONTROL_TASK,
        Control.SHUFFLED_LABELS,
        Control.EMBEDDING_ONLY,
        Control.UNTRAINED_MODEL,
    }  # this world has no altered meanings


def test_a_family_is_scored_for_whole(model: Any) -> None:
    (result,) = sweep(model, TASK, places=("=",), hooks=(LAST,), controls=False)
    frame = select(rows_frame(result.rows), control=None)
    one = [float(select(frame, variable=f"digit[{i}]").estimate.iloc[0]) for i in (0, 1)]
    whole = select(frame, variable="digits").set_index("metric").estimate
    assert whole[Metric.ACCURACY] == pytest.approx(np.mean(one)) and whole[Metric.JOINT_EXACTNESS] <= min(one)


def test_an_edit_moves_the_answer_as_the_world_says(model: Any) -> None:
    (result,) = sweep(model, TASK, places=("digits[0]",), hooks=(INPUT,), controls=False)
    rows = edit_rows(model, TASK, result, other_hook=LAST, n_pairs=40, seed=4)
    by = {(row["variable"], row["control"]): row["estimate"] for row in rows}
    assert by["digit[0]", None] == 1 and by["digit[0]", Control.UNPATCHED] == 0  # its token is all there is of it
    assert by["digit[0]", Control.WRONG_SITE] == 0  # nobody reads it any more
    assert by["digit[1]", None] < 0.5
    assert {site.positions for _, site in directions(TASK, result)} == {"digits[0]"}
    assert edit_rows(model, FourTokens(Shown()), result, other_hook=LAST, n_pairs=40, seed=4) == []


def test_one_call_gives_rows_directions_and_edits(model: Any) -> None:
    found = probe_sweep(model, TASK, untrained=None, n=400, controls=False, n_edits=8)
    assert {row["position"] for row in found.rows} == {"digits[0]"}  # the first slot of the only block
    assert {row["method"] for row in found.rows} == {Method.LOGISTIC, Method.PROBE_MEAN}
    assert {name for name, _ in found.subspaces} == set(Adding().variables())


def test_pooled_tokens_share_a_probe(model: Any) -> None:
    (result,) = sweep(model, Pooled(Adding()), places=("digits",), hooks=(INPUT,), per_stream=2, controls=False)
    read = select(rows_frame(result.rows), control=None, variable="digit[0]")
    assert int(read.n.iloc[0]) == 300 and 0.4 < float(read.estimate.iloc[0]) < 0.8  # right where the token is its own
    data = draw_examples(
        Pooled(Adding()), 40, variables=["total"], places=("digits", "="), per_example=1, seed=0, split="train"
    )
    assert set(data["digits"].position) == {1, 2} and set(data["="].position) == {3}
    assert len(set(data["digits"].row)) == len(data["digits"]) == 40


def test_what_is_lacking_is_said(model: Any) -> None:
    cases: tuple[tuple[Task, dict[str, Any], str], ...] = (
        (TASK, {"places": ("digits",)}, "a probe reads one position; 'digits' names 2"),
        (TASK, {"variables": ("carry",)}, "the world adding has no variable 'carry'"),
        (TASK, {"hooks": ("blocks.0.attn.ln",)}, "no hook"),
        (Pooled(Adding()), {"places": ("sums",)}, "there are digits, or a position such as ="),
        (TASK, {"n": 16}, "16 examples come from 8 sheets"),
    )
    for task, change, words in cases:
        with pytest.raises(ValueError, match=words):
            sweep(model, task, **change)


def test_pairs_are_the_common_ones() -> None:
    pairs = TASK.counterfactual(20, "digit[1]", seed=0)
    assert isinstance(pairs, Counterfactual)
    assert np.array_equal(
        pairs.expected[:, 0].numpy(), (pairs.base.examples.digits[:, 0] + pairs.source.examples.digits[:, 1]) % 4
    )
    assert np.array_equal(pairs.changes, pairs.expected[:, 0].numpy() != pairs.unedited[:, 0].numpy())
