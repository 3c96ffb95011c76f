"""What is asked of a slot machine's inside: by hand where a hand can say it, and on the bundled runs."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.cli import main
from interp.models import build_model, resize
from interp.models.slot_memory import LearnedALU
from interp.results import Control, Metric, read_frame, records, rows_frame, select
from interp.runs import load
from interp.studies import slot_restarts
from interp.studies.slot_alu import alu_rows, filled_in, margins, through_sum
from interp.studies.slot_controller import asked_of, controller_swaps
from interp.studies.slot_inside import measure_inside
from interp.studies.slot_sharpness import (
    ADDRESSES,
    AS_IT_STANDS,
    MARGIN,
    SHARPENED,
    gradient_norms,
    sharpness_rows,
)
from interp.studies.slot_swaps import RIGHT, interchange_rows
from interp.studies.slots import visited_entries
from interp.training.slot_presets import resized_for, slot_machine_for
from interp.worlds.slots import SlotWorld

BUNDLED = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def adds():
    return load(BUNDLED / "slots_add")


@pytest.fixture(scope="module")
def learned():
    return load(BUNDLED / "slots_alu")


def test_near_addresses_have_keys_of_their_own() -> None:
    """Scores of addresses within reach alone change, by one key wherever the slot is, in a longer memory too."""
    world = SlotWorld(program="sort", size=4)
    model: Any = build_model(slot_machine_for(world, pointer_reach=1, n_layers=1, n_heads=2, d_model=16)).eval()
    query = torch.ones(1, world.spec.n_slots, 4, model.cfg.d_head)
    score = model._nearness(query)[0, :, 0]  # [slot, address]
    keys = model.near_keys[:, : model.cfg.d_head].sum(-1) / model.cfg.d_head**0.5
    for slot, address in ((5, 4), (5, 5), (5, 6), (9, 8)):
        assert torch.allclose(score[slot, address], keys[address - slot + 1])
    assert score[5, 7] == 0 and score[5, 3] == 0 and score[0, -1] == 0
    longer = resize(model, resized_for(model.cfg, world.changed(size=8)))
    assert torch.equal(longer.near_keys, model.near_keys)  # type: ignore[arg-type]
    assert "near_keys" not in build_model(slot_machine_for(world)).state_dict()


def test_what_is_exchanged_softly_is_followed_where_base_is_right(adds) -> None:
    rows = rows_frame(list(interchange_rows(adds, n_pairs=24, execution="soft")))
    for variable in ("carry", "content[16]"):
        own = records(select(rows, variable=variable, metric=Metric.IIA, stratum=RIGHT))
        followed = [row["estimate"] for row in own if row["control"] is None]
        left = [row["estimate"] for row in own if row["control"] == Control.UNPATCHED]
        assert len(followed) == 5 and min(followed) > 0.7 and max(left) < 0.2
    assert set(select(rows, control=Control.SAME_VALUE)["variable"]) == {"carry", "content[16]", "next[10]", "pc"}


def test_a_plan_is_exact_where_it_is_sharp_enough(adds) -> None:
    rows = rows_frame(list(sharpness_rows(adds, 5, n=4)))
    own = select(rows, part=ADDRESSES)
    n_slots = adds.config.world.spec.n_slots
    sure = records(select(own, metric=Metric.CONFIDENCE, position="temperature 0.5"))[0]["estimate"]
    assert sure == pytest.approx(1 / (1 + (n_slots - 1) * math.exp(-MARGIN / 0.5)))
    for how, position, right in ((AS_IT_STANDS, "1", 0), (AS_IT_STANDS, "0.1", 1), (SHARPENED, "0.3", 1)):
        assert set(select(own, map=how, position=f"temperature {position}")["estimate"]) == {right}


def test_the_last_gradient_is_the_loss_s_own(learned) -> None:
    """With respect to the memory after the last step it is -1 / (k p) at each of k answers, and 0 elsewhere."""
    norms = gradient_norms(learned, n=3)
    task, model = learned.task, learned.model
    batch = task.sample(3, seed=20_017)
    with torch.no_grad():
        final = model(batch.tokens, memory=task.memories(batch), returned="run", n_steps=norms.shape[1]).final
    slots = list(learned.config.world.program.answers)
    true = torch.from_numpy(learned.config.world.answer(batch.examples).values)
    says = final.contents[:, slots].gather(-1, true[..., None])[..., 0]
    assert norms[:, -1] == pytest.approx((1 / (len(slots) * says)).norm(dim=1).numpy(), rel=1e-4)
    assert (norms > 0).all()


def test_margins_and_the_share_through_the_sum_by_hand() -> None:
    found = margins(torch.tensor([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]), torch.tensor([0, 1]))
    assert found.tolist() == pytest.approx([math.log(3.5), -math.log(3.5)])
    alu = LearnedALU(8, 4)
    with torch.no_grad():
        weight = torch.arange(4.0)[:, None] + 1  # every hidden unit hears the sum, as loud as it likes
        values = torch.arange(8.0)
        alu.fc_in.weight[:, 7:15] = alu.fc_in.weight[:, 15:23] = weight * values
        alu.fc_in.weight[:, 23:] = weight * torch.arange(2.0)
        assert through_sum(alu, 4, 8) == pytest.approx(1.0)
        alu.fc_in.weight[:, 15:23] = 0
        assert through_sum(alu, 4, 8) < 0.7


def test_a_learned_alu_has_every_entry_and_says_no_more(learned) -> None:
    rows = rows_frame(list(alu_rows(learned, visited_entries(learned.config.world, n=300))))
    visited = select(rows, part="visited")
    assert set(select(visited, metric=Metric.EXACT_MATCH)["estimate"]) == {1}
    assert all(row["estimate"] > 0 for row in records(select(visited, metric=Metric.LOGIT_DIFFERENCE)))
    filled = select(rows, part="left out of the table")
    result, carry = (
        [row["estimate"] for row in records(select(filled, variable=each))] for each in ("result", "carry")
    )
    assert max(result) < 0.3 < 0.6 < min(carry) and len(carry) == 3
    shown = SimpleNamespace(base=2, n_values=8, d_alu=32)
    assert filled_in(shown, 0, left_out=2, n_steps=1).shape == (2, 2)


def test_the_controller_s_stream_holds_what_its_slot_will(adds) -> None:
    _, places = asked_of(adds.config.world)
    rows = rows_frame(list(controller_swaps(adds, n_pairs=16)))
    changes = [row for row in records(select(rows, stratum="changes")) if row["control"] is None]
    first, last = adds.model.residual_hooks()[0], adds.model.residual_hooks()[-1]

    def share(site: str, position: str) -> float:
        return next(row["estimate"] for row in changes if (row["site"], row["position"]) == (site, position))

    assert share(first, places[0]) == share(last, places[-1]) == 1, "the prompt's token, and the slot itself"
    assert share(first, places[-1]) == share(last, places[0]) == share(last, "=") == 0


def test_a_program_is_judged_by_what_it_does() -> None:
    world = SlotWorld(program="add", size=1, form="straight", base=2, n_values=8)
    true = world.program.slots(world.program.row[None])[0, slot_restarts.instruction_slots(world)]
    wrong = true.copy()
    wrong[0, 0] = 8  # CMP in the place of the addition
    right, told = slot_restarts.solved(world, np.stack([true, wrong]))
    assert right.tolist() == [True, False]
    assert told[0] == "ADC a[0] b[0] → sum[0]; ADC nil nil → sum[1]"


def test_restarts_find_a_copy_and_say_how_often(tmp_path: Path) -> None:
    rows = rows_frame(list(slot_restarts.restart_rows("copy one value", "both", n_restarts=8, n_steps=80, seed=0)))
    rate = records(select(rows, metric=Metric.EXACT_MATCH))[0]
    assert rate["estimate"] >= 0.5 and rate["n"] == 8 and rate["ci_low"] < rate["estimate"]
    again = slot_restarts.restart_rows("copy one value", "both", n_restarts=8, n_steps=80, seed=0)
    pd.testing.assert_frame_equal(rows_frame(list(again)), rows)
    main(["slots-restarts", "--out", str(tmp_path), "--n-restarts", "2", "--n-steps", "2", "--threads", "1"])
    written = read_frame(tmp_path / "slots_restarts.parquet")
    assert set(written["stratum"]) == set(slot_restarts.CASES) and set(written["map"]) == set(slot_restarts.WAYS)


def test_a_small_run_is_looked_into_and_the_page_says_so(learned, tmp_path: Path) -> None:
    rows = measure_inside(learned, n=4)
    assert {"gradient_norm", "explained"} <= set(rows["metric"]) and Metric.IIA not in set(rows["metric"])
    with pytest.raises(ValueError, match="n_pairs must be"):
        measure_inside(learned, n_pairs=0)
    main(["slots-page", str(BUNDLED / "slots_add"), str(BUNDLED / "slots_alu"), "--out", str(tmp_path),
          "--restarts", str(BUNDLED.parent / "docs" / "slots_restarts.parquet")])  # fmt: skip
    page = (tmp_path / "slots.md").read_text(encoding="utf-8")
    headings = (
        "Exchanged while it runs softly", "How sharp addresses must be", "Where the plan is before",
        "A table, or a sum", "Gradients by executed step", "A plan learned from answers alone",
    )  # fmt: skip
    for heading in headings:
        assert f"## {heading}" in page, heading
    assert "nan" not in page
