"""The task of the slot machine: tokens by hand, roles that do not hang on the size, and the journey of a small run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.cli import main
from interp.models import build_model
from interp.results import Metric, read_frame, records, select
from interp.runs import RunConfig, load
from interp.studies.slots import EXECUTED, PLANNED, measure_slots, visited_entries
from interp.tasks import TASKS
from interp.training import TrainingConfig, train
from interp.training.slot_presets import slot_machine_for
from interp.worlds.rows import Rows
from interp.worlds.slots import SlotWorld


def spelt(task, tokens) -> str:
    return " ".join(task.vocab[each] for each in np.asarray(tokens).tolist())


@pytest.mark.parametrize(
    ("program", "inputs", "prompt", "answer"),
    [
        ("add", [7, 5, 8, 4], "add 7 5 | 8 4 =", "5 0 1"),
        ("sort", [3, 1], "sort 3 1 =", "1 3"),
        ("search", [9, 1, 9], "search 9 | 1 9 =", "1"),
        ("substring", [0, 1, 1], "substring 0 1 | 1 =", "1"),
        ("reverse", [4, 2], "reverse 4 2 =", "2 4"),
    ],
)
def test_a_task_is_spelt_and_answered(program: str, inputs: list[int], prompt: str, answer: str) -> None:
    task = TASKS["slots"](SlotWorld(program=program, size=2), None)
    batch = task.render(Rows(np.array([inputs])))
    tokens = batch.tokens[0]
    assert spelt(task, tokens[task.prompt_positions]) == prompt
    assert set(spelt(task, tokens[task.prompt_positions.stop :]).split()) == {"_"}
    assert spelt(task, batch.targets[0][batch.loss_mask[0]]) == answer


def test_a_slot_has_one_role_at_every_size() -> None:
    small, large = (TASKS["slots"](SlotWorld(size=size), None) for size in (3, 9))
    roles = {}
    for task in (small, large):
        names = [*task.position_names[task.prompt_positions], *task.world.program.names]
        found = dict(zip([f"{at >= len(task._shown)} {name}" for at, name in enumerate(names)], task.position_roles))  # noqa: B905
        for name in ("True p", "True step[2]", "True a[0]", "True a[1]", "False b[0]", "True nil"):
            roles.setdefault(name, set()).add(found[name])
    assert all(len(each) == 1 for each in roles.values())
    assert max(small.position_roles) == max(large.position_roles)
    shown, stored = large.position_names.index("a[4]"), len(large._shown) + large.world.program.names.index("a[4]")
    assert large.position_indices[shown] == large.position_indices[stored] == 3


def test_in_training_indices_are_scattered_and_alike_in_prompt_and_memory() -> None:
    world = SlotWorld(size=6)
    task: Any = TASKS["slots"](world, None)
    model: Any = build_model(slot_machine_for(world))
    batch = task.sample(50, seed=0, split="fit")
    drawn = model.pos_embed.drawn(batch.tokens)
    names, offset = world.program.names, len(task._shown)
    shown = [task.position_names.index(f"a[{i}]") for i in range(1, 5)]
    stored = [offset + names.index(f"a[{i}]") for i in range(1, 5)]
    assert torch.equal(drawn[:, shown], drawn[:, stored])
    assert (drawn[:, shown].diff(dim=1) > 0).all() and int(drawn[:, shown].max()) > 55
    assert (drawn[:, offset + names.index("p")] == 0).all() and len(drawn[:, shown[0]].unique()) > 10
    assert torch.equal(drawn, model.pos_embed.drawn(batch.tokens)), "a row's own tokens decide"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """A small controller of sums of one and two digits, trained for a few seconds."""
    world = SlotWorld(size=2)
    model = slot_machine_for(world, n_layers=1, n_heads=2, d_model=32)
    settings = TrainingConfig(
        steps=250, batch_size=32, muon_lr=0.02, eval_every=250, eval_states=50, threads=1, validation=True,
        balance="natural", warmup_steps=10,
    )  # fmt: skip
    return train(RunConfig("slots", world, model, settings), tmp_path_factory.mktemp("runs") / "slots_small")


def test_a_small_run_learns_its_plan_and_is_measured(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = measure_slots(load(run.path), n=20, n_pairs=12, sizes=(2, 3))
    executed = select(rows, part=EXECUTED)
    assert set(executed["estimate"]) == {1} and set(executed["time"]) == {2, 3}
    planned = records(select(rows, part=PLANNED, metric=Metric.EXACT_MATCH, time=2))
    assert planned[0]["estimate"] > 0.9
    swaps = select(rows, metric=Metric.IIA)
    assert {"carry", "pc"} <= set(swaps["variable"]) and swaps["estimate"].between(0, 1).all()
    patched = swaps[swaps["control"].isna() & (swaps["variable"] == "carry")]
    assert min(patched["estimate"].tolist()) > 0.9, "a carry that is set is carried on"
    main(["slots", str(run.path), "--n", "20", "--n-pairs", "12", "--sizes", "2", "3", "--threads", "1"])
    assert len(read_frame(run.path / "slots.parquet")) == len(rows)
    main(["slots-page", str(run.path), "--out", str(tmp_path)])
    page = (tmp_path / "slots.md").read_text(encoding="utf-8")
    assert "slots_small" in page and "](slots_sizes.svg)" in page and (tmp_path / "slots_sizes.svg").exists()
    with pytest.raises(ValueError, match="n_pairs must be"):
        measure_slots(run, n_pairs=0)


def test_a_learned_alu_is_judged_on_the_entries_that_runs_visit() -> None:
    world = SlotWorld(size=2)
    entries = visited_entries(world, n=300)
    assert set(entries[:, 0]) == {0} and {(0, 0)} <= set(map(tuple, entries[:, 1:3].tolist()))
    carried = entries[entries[:, 3] == 1]
    assert 120 < len(entries) <= 200 and len(carried) > 20


def test_a_run_that_is_given_its_plan_answers_by_it() -> None:
    world = SlotWorld(size=2)
    task = TASKS["slots"](world, None)
    given = slot_machine_for(world, n_layers=1, n_heads=1, d_model=8, plan_given=True)
    batch = task.sample(20, seed=0)
    with torch.no_grad():
        assert task.right(build_model(given).eval().answer(task, batch), batch).all()
