"""Runs side by side: every answer is a row of the run, beside the row that it is held against."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from interp.cli import main
from interp.figures.style import named_rows
from interp.pages.compare import write_compare_page
from interp.results import read_frame, records, select
from interp.runs import Run, load
from interp.runs.further_frames import STATES
from interp.studies.across import (
    Correlation,
    Kept,
    addressing,
    correlation,
    kept,
    mean_over_models,
    rank_over_models,
    read_and_used,
)
from interp.studies.carried import best, scores
from interp.studies.comparing import ALL, answers_of, compared, side_by_side

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"


@pytest.fixture(scope="module")
def quickstart() -> Run:
    return load(CHECKPOINTS / "quickstart")


def test_accuracy_is_that_of_the_final_evaluation(quickstart: Run) -> None:
    frame = read_frame(quickstart.path / "metrics.parquet")
    found = {each.item: each for each in answers_of(quickstart) if each.question == "exact match"}
    macro = records(select(frame, metric="exact_match", aggregation="macro"))[-1]
    assert (found[ALL].estimate, found[ALL].n) == (macro["estimate"], macro["n"]) and macro["n"] == 20_000
    last = frame.loc[frame.index > frame.index[(frame.aggregation == "macro").to_numpy()][-1]]
    inc = records(select(last, metric="exact_match", op="INC", position=None))
    assert len(inc) == 2 and found["INC"].estimate == sum(row["estimate"] for row in inc) / 2
    assert found["INC"].n == sum(row["n"] for row in inc) and math.isnan(found["INC"].low)


def test_what_is_read_stands_beside_the_strongest_control_of_its_place(quickstart: Run) -> None:
    frame = quickstart.frame("probes")
    for answer in (each for each in answers_of(quickstart) if each.question == "read"):
        position, site = answer.place.rsplit(" ", 1)
        here = select(frame, variable=answer.item, site=site, position=position, metric="accuracy", method="logistic")
        (own,) = select(here, control=None, stratum=None).estimate
        controls = here.loc[here.control.notna()]
        assert answer.estimate == own and answer.control == controls.estimate.max()
        assert (controls.loc[controls.estimate == answer.control].control == answer.control_name).any()
        every = select(frame, variable=answer.item, metric="accuracy", method="logistic", stratum=None)
        inside = every.loc[every.site.notna() & (every.site != "blocks.0.hook_resid_pre")]
        for (s, p), of in inside.groupby(["site", "position"]):
            gap = select(of, control=None).estimate.iloc[0] - of.loc[of.control.notna()].estimate.max()
            assert gap <= answer.estimate - answer.control + 1e-12, (answer.item, s, p)


def test_what_is_used_leaves_the_input_and_the_output_out(quickstart: Run) -> None:
    frame = quickstart.frame("interventions")
    found = [each for each in answers_of(quickstart) if each.question == "used"]
    assert {each.op for each in found} > {None, "INC"}
    for answer in found:
        position, site = answer.place.rsplit(" ", 1)
        assert site not in ("blocks.0.hook_resid_pre", "blocks.3.hook_resid_post") and position != "all"
        wanted = {"pair_design": "independent"} if answer.op is None else {}
        rows = select(
            frame, variable=answer.item, op=answer.op, metric="iia", method="full_vector", stratum="changes", **wanted
        )
        own = select(rows, control=None)
        places = own.loc[
            ~own.site.isin(["blocks.0.hook_resid_pre", "blocks.3.hook_resid_post"]) & (own.position != "all")
        ]
        assert answer.estimate == places.estimate.max()
        alone = select(rows, site=site, position=position, control="unpatched")
        assert math.isnan(answer.control) if alone.empty else answer.control == alone.estimate.iloc[0]


def test_a_circuit_is_the_smallest_that_keeps_enough(quickstart: Run) -> None:
    frame = quickstart.frame("circuits")
    found = {each.item: each for each in answers_of(quickstart) if each.question == "circuit"}
    for op, answer in found.items():
        rows = select(frame, op=op, metric="faithfulness", stratum="absolute", granularity="edge")
        size, whole = (int(each.replace(",", "")) for each in answer.place.removesuffix(" edges").split(" of "))
        own = select(rows, control=None)
        assert own.loc[own.circuit_size == size].estimate.iloc[0] >= 0.9
        assert (own.loc[own.circuit_size < size].estimate < 0.9).all()
        assert answer.estimate == size / whole and whole == rows.circuit_size.max()
        assert answer.control == select(rows, control="random_circuit", circuit_size=size).estimate.iloc[0]


def test_two_runs_share_a_row_for_what_was_asked_of_both(quickstart: Run) -> None:
    other = load(CHECKPOINTS / "step_inplace")
    frame = compared([quickstart, other])
    both = side_by_side(frame, "quickstart", "step_inplace")
    assert (both.difference == both.estimate_2 - both.estimate_1).all()
    keys = [set(map(tuple, frame.loc[frame.run == name, ["question", "item", "op"]].fillna("").to_numpy()))
            for name in ("quickstart", "step_inplace")]  # fmt: skip
    assert set(map(tuple, both[["question", "item", "op"]].fillna("").to_numpy())) == keys[0] & keys[1]
    back = side_by_side(frame, "step_inplace", "quickstart")
    assert sorted(back.difference) == sorted(-both.difference)
    twice = compared([quickstart, Run(quickstart.path.parent / "." / "quickstart", quickstart.config)])
    assert twice.run.nunique() == 1 and "/" in twice.run.iloc[0]


def test_compare_prints_a_table_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "compare.md"
    names = ("quickstart", "step_inplace", "trace")
    main(["compare", *(str(CHECKPOINTS / name) for name in names), "--out", str(page)])
    assert "3 runs" in capsys.readouterr().out
    text = page.read_text()
    assert "Of 2 runs of the task step_inplace, 2 are right most often, and alike: 100.00 %" in text
    assert text.count("\n## ") == 4 and "| trace | transformer | trace | 465,633 | 384,000 | 0." in text
    row = next(line for line in text.splitlines() if line.startswith("| operand | "))
    answer = next(each for each in answers_of(load(CHECKPOINTS / "quickstart")) if each.item == "operand")
    assert row.split(" | ")[1] == f"{answer.estimate:.3f} ({answer.control:.2f})"


def test_what_is_read_and_used_are_above_what_each_is_held_against(quickstart: Run) -> None:
    pairs = read_and_used(quickstart)
    probes, swaps = quickstart.frame("probes"), quickstart.frame("interventions")
    assert len(pairs) >= 6 and not set(pairs.site) & {"blocks.0.hook_resid_pre", "blocks.3.hook_resid_post"}
    pair: Any
    for pair in named_rows(pairs):
        here = {"variable": pair.variable, "site": pair.site}
        rows = select(probes, **here, metric="accuracy", method="logistic", stratum=None)
        gaps = [
            select(of, control=None).estimate.max() - of.loc[of.control.notna()].estimate.max()
            for _, of in rows.groupby("position")
        ]
        assert pair.read == pytest.approx(max(gaps))
        rows = select(swaps, **here, metric="iia", method="full_vector", op=None)
        rows = select(rows.loc[rows.position != "all"], stratum="changes")
        gaps = [
            select(of, control=None).estimate.max() - select(of, control="unpatched").estimate.max()
            for _, of in rows.groupby("position")
        ]
        assert pair.used == pytest.approx(max(gaps))
    found = correlation(quickstart)
    assert found is not None and found.n == len(pairs) and -1 <= found.rho <= 1
    ranks: Any = pairs[["read", "used"]].rank()
    assert found.rho == pytest.approx(ranks["read"].corr(ranks["used"]))


def test_models_are_drawn_again_for_the_interval_of_their_mean() -> None:
    few = [Correlation("a", 0.2, 9), Correlation("b", 0.4, 9)]
    mean, low, high = mean_over_models(few)
    assert mean == pytest.approx(0.3) and math.isnan(low) and math.isnan(high)
    many = [Correlation(str(at), rho, 9) for at, rho in enumerate((0.1, 0.2, 0.3, 0.8))]
    mean, low, high = mean_over_models(many)
    assert mean == pytest.approx(0.35) and 0.1 <= low < mean < high <= 0.8
    assert mean_over_models([Correlation("a", 0.5, 9)] * 3) == (0.5, 0.5, 0.5)
    assert (
        math.isnan(rank_over_models([(1, 1), (2, 2), (3, 3)]))
        and rank_over_models([(1, 1), (2, 2), (3, 3), (4, 9)]) == 1
    )


def test_how_a_model_keeps_the_tape_is_told_from_state_interchange() -> None:
    lstm = kept(load(CHECKPOINTS / "trace_lstm"))
    assert lstm.carried == 640 and lstm.absolute is not None and lstm.relative is not None
    chosen = best(scores(STATES.read(load(CHECKPOINTS / "trace_lstm"))))
    relative = [score for name, score in chosen.items() if name.startswith("cell[@")]
    assert lstm.relative[0] == pytest.approx(sum(score.both for score in relative) / len(relative))
    assert lstm.old is not None and lstm.old[0].startswith("revealed 32")
    assert addressing(lstm) == "relative"
    one = {"run": "x", "longer": {}, "carried": 1, "old": None}
    told = {
        "both": ((0.6, 0.1), (0.65, 0.1)),
        "absolute": ((0.6, 0.1), (0.4, 0.1)),
        "neither": ((0.6, 0.55), (0.2, 0.15)),
        "relative": ((0.6, 0.55), (0.3, 0.15)),
    }
    for verdict, (absolute, relative) in told.items():
        assert addressing(Kept(**one, absolute=absolute, relative=relative)) == verdict


def test_the_page_of_architectures_is_what_the_bundled_rows_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `tapelens compare checkpoints/trace_small* --out docs/architectures.md --title …` writes it."""
    docs = CHECKPOINTS.parent / "docs"
    monkeypatch.chdir(CHECKPOINTS.parent)
    runs = [load(path) for path in sorted(Path("checkpoints").glob("trace_small*"))]
    shutil.copy(docs / "architectures_seeds.parquet", tmp_path)
    title = (docs / "architectures.md").read_text().partition("\n")[0].removeprefix("# ")
    page = write_compare_page(runs, compared(runs), tmp_path / "architectures.md", title=title)
    assert page.read_text() == (docs / "architectures.md").read_text()
    assert page.with_suffix(".svg").read_text() == (docs / "architectures.svg").read_text()
    assert len({run.config.model.architecture for run in runs}) >= 9
