"""Chains of thought asked whether they are used: on stand-ins that read the chain, the program, or both."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interp.pages.chains import beside, chains_drawing, chains_page
from interp.results import Control, Metric, records, rows_frame, select
from interp.runs import RunConfig, RunError
from interp.studies import chains
from interp.studies.chains import DESIGNS, FOLLOWS_CHAIN, FOLLOWS_PROGRAM, FROZEN, REGENERATED, THROUGHOUT, pass_at_k
from interp.tasks import TASKS
from interp.tasks.options import ScratchpadOptions
from interp.training import TrainingConfig, train
from interp.training.presets import PRESETS, transformer_for
from interp.worlds import as_world, world_from_dict

SIZES = {"n_instructions": 8, "n_cells": 2, "n_input": 2, "n_output": 2, "bits": 2}
SPEC = world_from_dict({"name": "machine", **SIZES}).spec  # type: ignore[attr-defined]
OPTIONS = ScratchpadOptions(n_steps=12, units="shown", even=True, longest=10)


class Reader:
    """Writes what the machine does from the last entry on, without a network: by the chain, or by the program alone.

    The output is read from the entries of PUT in the chain (`by_chain`), or from the program's own run.
    """

    def __init__(self, task: Any, examples: Any, *, by_chain: bool):
        self.task, self.by_chain = task, by_chain
        batch = task.render(examples)
        self.prompts = {tuple(row[: len(task.shown)]): k for k, row in enumerate(batch.tokens.tolist())}
        self.true = batch.targets[:, task.slots].tolist()

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        said = [self._next(row) for row in tokens.tolist()]
        return F.one_hot(torch.tensor(said), len(self.task.vocab)).float()[:, None].expand(-1, tokens.shape[1], -1)

    def _next(self, row: list[int]) -> int:
        task, n = self.task, len(self.task.shown)
        written, true = row[n:], self.true[self.prompts[tuple(row[:n])]]
        if task.id["="] not in written:
            return true[len(written)] if true[len(written)] >= 0 else task.id["="]
        at = len(written) - written.index(task.id["="]) - 1
        if not self.by_chain:
            return true[true.index(task.id["="]) + 1 + at]
        chain = written[: written.index(task.id["="])]
        printed = [
            chain[k + 2] for k, token in enumerate(chain) if token == task.id[f"PUT[{at}]"] and k + 4 < len(chain)
        ]
        return printed[0] if printed else task.vocab.index("EOO")


class Run:
    """A run whose model is a Reader."""

    def __init__(self, *, by_chain: bool):
        self.task = TASKS["scratchpad"](SPEC, OPTIONS)
        examples = self.task.draw_ending(60, (2, 12), seed=4)
        self.model = Reader(self.task, examples, by_chain=by_chain)


def shares(rows: Any) -> dict[tuple[str, str], float]:
    found = records(rows_frame(list(rows)))
    return {
        (row["pair_design"], row["part"]): row["estimate"]
        for row in found
        if row["control"] is None and row["position"] is None
    }


@pytest.mark.parametrize("by_chain", [True, False])
def test_who_reads_the_chain_is_told_from_who_reads_the_program(
    by_chain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "_LEAST", 5)
    found = shares(chains._frozen(Run(by_chain=by_chain), 60, seed=1))  # type: ignore[arg-type]
    for design in (FROZEN, THROUGHOUT):
        assert found[design, FOLLOWS_CHAIN] == by_chain and found[design, FOLLOWS_PROGRAM] == (not by_chain)


def test_edits_of_regenerated_chains_are_the_machines() -> None:
    """The expected output is that of a run in which the cell is set by hand."""
    run = Run(by_chain=True)
    task, world = run.task, run.task.world
    examples = task.draw_ending(40, (2, 10), seed=6)
    step = np.arange(40) % 2
    after = world.answer(examples).after(step + 1)
    pointer, other = after.array_ptr.astype(np.int64), np.full(40, 3)
    edited = chains._continued(world, task, after, pointer, other, step)
    assert (edited >= 0).any(axis=1).sum() > 10
    for row in np.flatnonzero((edited >= 0).all(axis=1)):
        cells = after.cells[[row]].copy()
        cells[0, pointer[row]] = 3
        state = after[[row]].replace("cells", cells)
        for _ in range(12):
            state = world.step(state).next
        printed = [f"NUM_{value}" for value in state.output[0, : state.output_length[0]]]
        said = [task.vocab[token] for token in edited[row] if task.vocab[token] != "EOO"]
        assert said == printed


def test_a_value_is_told_from_where_it_is_written_to_where_it_is_written_over() -> None:
    task = TASKS["scratchpad"](SPEC, OPTIONS)
    said = ["INC 0 1", "NEXT 1 0", "PREV 0 1", "PUT[0] 0 1", "NEXT 1 0", "PREV 0 1", "DEC 0 0", "INC 0 1"]
    tokens = np.full((1, task.n_steps + 1, 4), -1)
    for s, entry in enumerate(said):
        op, at, value = entry.split()
        tokens[0, s] = [task.id[f"ip[{s}]"], task.id[op], task.id[f"at[{at}]"], task.id[f"NUM_{value}"]]
    assert np.flatnonzero(chains._told(task, tokens, np.array([3]))[0]).tolist() == [0, 2, 3, 5]


def test_pass_at_k_by_hand() -> None:
    assert pass_at_k(4, 0, 2) == 0 and pass_at_k(4, 4, 1) == 1 and pass_at_k(4, 3, 2) == 1
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4) and pass_at_k(4, 1, 2) == pytest.approx(1 / 2)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)


def test_a_run_is_measured_and_told_about(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(chains, "_LEAST", 3)
    monkeypatch.setattr(chains, "_SAMPLES", 4)
    monkeypatch.setattr(chains, "_KS", (1, 4))
    settings = TrainingConfig(steps=40, batch_size=8, eval_every=40, eval_states=40, threads=1, validation=True)
    shape = transformer_for("scratchpad", SPEC, options=OPTIONS, n_layers=1, n_heads=2, d_model=32)
    run = train(RunConfig("scratchpad", as_world(SPEC), shape, settings, options=OPTIONS), tmp_path / "short")
    assert list(chains.bins_of(run)) == ["runs of 1 to 12 steps"]
    frame = chains.kept_or_measured(run, n=40, n_sampled=2, seed=1)
    again = chains.kept_or_measured(run, n=40, n_sampled=2, seed=1)
    assert frame.equals(again)
    found = select(frame, metric=Metric.PASS_AT_K)
    for _, group in found.groupby("stratum"):
        assert group["estimate"].is_monotonic_increasing
    control = select(frame, control=Control.UNPATCHED)
    assert len(control) == 1
    both = beside(frame.assign(run="other"), frame)
    assert list(dict.fromkeys(both["run"])) == ["short", "other"] and len(both) == 2 * len(frame)
    assert beside(frame, both).equals(both)
    page = chains_page(
        records(both),
        {"short": "tapelens train --preset scratchpad"},
        "tapelens chains --out docs",
        "tapelens chains short",
    )
    assert "- `short`: `tapelens train --preset scratchpad`" in page and "`other` " in page.split("\n\n")[1]
    assert chains_drawing(records(both)).count("<polyline") + chains_drawing(records(both)).count("<path") >= 2
    with pytest.raises(RunError, match="the task output writes no chain"):
        chains.require_chain(cast(Any, SimpleNamespace(task=TASKS["output"](SPEC))))


def test_the_preset_writes_at_most_256_tokens() -> None:
    config = PRESETS["scratchpad"]
    task = TASKS["scratchpad"](config.world, config.options)
    assert task.n_ctx == config.model.n_ctx <= 256 and task.longest == 32
    assert set(DESIGNS) == {REGENERATED, FROZEN, THROUGHOUT}
