"""Run cards, learning curves, and the verbs that make them, on a tiny run and on the bundled one."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config

from cython_vm import MachineSpec
from interp.cli import main
from interp.console import by_op_words
from interp.evaluation.measure import measure
from interp.figures import accuracy_by_op, reliability_diagram, survival_curves
from interp.pages.card_page import card_page
from interp.pages.cards import make_card, read_card
from interp.pages.curves import learning_curve_of, learning_curves_drawing, original_curve
from interp.pages.models import reach_drawing, write_models_page
from interp.results import Aggregation, Metric, read_frame, records, rows_frame, select
from interp.runs import Run, RunError, load
from interp.training import train
from interp.training.presets import transformer_for
from interp.worlds import as_world

BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints"


@pytest.fixture
def copy(tiny_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(tiny_run.path, tmp_path / "tiny")
    return load(tmp_path / "tiny")


def test_a_card_says_what_was_measured(copy: Run) -> None:
    values = make_card(copy, n=240, seed=3, programs=20)
    assert values == read_card(copy.path)
    again = measure(copy, n=240, seed=3, programs=20)
    assert values["n_wrong"] == again.n_wrong and len(values["rows"]) == len(again.rows)
    assert values["training"]["records"] == 30 * 8 and values["training"]["seconds"] > 0
    assert values["training"]["hardware"]["cores"] >= 1 and values["command"] is None
    assert values["parameters"] == sum(p.numel() for p in copy.model.parameters())
    page = (copy.path / "card.md").read_text()
    assert f"{values['n_wrong']:,} of 240 answers are wrong" in page
    assert f"| records seen | {30 * 8} |" in page
    worst = min(
        (row for row in values["rows"] if row["metric"] == Metric.EXACT_MATCH and row["aggregation"] == "mean"),
        key=lambda row: row["estimate"],
    )
    known = page.partition("## Known failures")[2].splitlines()[2]
    assert known.startswith(f"- {worst['op']}, {worst['stratum'].replace('_', ' ').lower()}: ")
    assert values["failures"][0]["words"] in page


@pytest.mark.parametrize("folder", sorted(BUNDLED.glob("*/card.json")), ids=lambda file: file.parent.name)
def test_new_states_agree_with_a_bundled_card(folder: Path) -> None:
    """Other held-out states give every figure again, within the two 95 % intervals (a stratum in twenty may not)."""
    card = read_card(folder.parent)
    assert (folder.parent / "card.md").read_text() == card_page(card)
    run = load(folder.parent)
    assert card["digest"] == run.config.digest and card["step"] == run.step
    tokens = run.task.n_ctx
    found = records(measure(run, n=min(600, 100_000 // tokens), seed=card["evaluation"]["seed"] + 1, programs=0).rows)
    new = {_name(row): row for row in found if row["metric"] == Metric.EXACT_MATCH}
    old = {_name(row): row for row in card["rows"] if row["metric"] == Metric.EXACT_MATCH}
    assert new.keys() == old.keys() if run.task.has_strata else new.keys() <= old.keys() and len(new) > len(old) / 2
    apart = [
        name for name in new if new[name]["ci_high"] < old[name]["ci_low"] or new[name]["ci_low"] > old[name]["ci_high"]
    ]
    assert len(apart) <= 1 and (None, None, None) not in apart, apart


def _name(row: dict[str, Any]) -> tuple[Any, ...]:
    return row.get("op"), row.get("stratum"), row.get("position")


def test_the_models_page_says_what_the_cards_say(copy: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no card.json; make it with: tapelens card"):
        write_models_page([copy.path], tmp_path)
    card = make_card(copy, n=240, seed=3, programs=0)
    page = write_models_page([copy.path], tmp_path).read_text()
    line = next(line for line in page.splitlines() if line.startswith("| [tiny](tiny/card.md)"))
    macro = next(row for row in card["rows"] if row["aggregation"] == "macro" and row["metric"] == Metric.EXACT_MATCH)
    assert f"{100 * macro['estimate']:.4f} %" in line and f"| {card['n_wrong']:,} | 240 |" in line
    assert f"| {card['parameters']:,} | 240 |" in line and not (tmp_path / "models_output.svg").exists()


def test_cards_say_whose_weights_a_run_began_with(tmp_path: Path) -> None:
    card = read_card(BUNDLED / "trace_tuned")
    assert "| begins with | the weights of `checkpoints/trace` at step 12,000 |" in card_page(card)
    page = write_models_page([BUNDLED / "trace_tuned", BUNDLED / "trace"], tmp_path).read_text()
    assert "| 176,000 after trace |" in page and "| 384,000 |" in page
    assert "begins with" not in card_page(read_card(BUNDLED / "trace"))


def test_how_far_a_model_sees_is_drawn_by_steps() -> None:
    rows = [
        {"metric": "exact_match", "aggregation": "mean", "stratum": f"{k:02d} steps", "estimate": 1 / k}
        | {"ci_low": 0.5 / k, "ci_high": 1.0}
        for k in (1, 2, 4)
    ]
    drawn = reach_drawing([{"name": "short-sighted", "rows": rows}])
    ET.fromstring(drawn)
    heights = [float(y) for y in re.findall(r'<circle cx="[^"]+" cy="([^"]+)"', drawn)]
    assert len(heights) == 3 and heights[2] - heights[1] == pytest.approx((heights[1] - heights[0]) / 2)


def test_the_curve_of_a_run_is_what_its_training_logged(tiny_run: Run) -> None:
    curve = learning_curve_of(tiny_run)
    assert curve.records == (80, 160, 240) and curve.n == 60
    macro = select(tiny_run.frame("metrics"), metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
    assert curve.macro == tuple(macro.sort_values("checkpoint_step")["estimate"])
    assert set(curve.by_op) == {"NEXT", "PREV", "INC", "DEC", "PUT", "GET", "WHILE", "ENDW", "STOP"}


def test_the_originals_points_end_at_its_headline() -> None:
    curve = original_curve()
    assert len(curve.records) == 10 and curve.records[-1] == 5_119_488 and curve.macro[-1] == 0.999


def test_a_drawing_has_a_point_for_every_evaluation(tiny_run: Run) -> None:
    drawing = ET.fromstring(learning_curves_drawing([learning_curve_of(tiny_run, name="a <b> & c")]))
    svg = "{http://www.w3.org/2000/svg}"
    assert len(drawing.findall(f"{svg}circle")) == 3 + 10
    assert len(drawing.findall(f"{svg}polyline")) == 2 + 9 + 9  # macro averages, opcodes, the opcodes' legend
    assert "a <b> & c" in [each.text for each in drawing.findall(f"{svg}text")]
    points = drawing.findall(f"{svg}polyline")[1].get("points", "").split()  # the original's
    heights = [float(point.split(",")[1]) for point in points]
    assert heights[0] == max(heights) and min(heights) == heights[8]  # 90.33 % lowest, 99.95 % highest
    with pytest.raises(ValueError, match="at least one run"):
        learning_curves_drawing([])


def test_the_verbs_write_what_they_say(copy: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, rows = str(copy.path), tmp_path / "rows.json"
    main(["eval", run, "--n", "90", "--programs", "5", "--threads", "1", "--json", str(rows)])
    out = capsys.readouterr().out
    assert "wrong: row" in out and "rollout: 5 held-out programs" in out and "calibration" in out
    written = json.loads(rows.read_text())
    assert written[0]["run"] == "tiny" and written[0]["metric"] == "exact_match" and written[0]["n"] == 90
    main(["curves", run, run, "--out", str(tmp_path / "curves.svg")])
    assert (tmp_path / "curves.svg").read_text().count(run) >= 2  # alike names are told apart by where they are
    main(["card", run, "--n", "60", "--programs", "0", "--threads", "1"])
    assert "the card is in" in capsys.readouterr().out and (copy.path / "card.md").exists()


def test_a_saved_evaluation_takes_the_place_of_the_one_before(copy: Run) -> None:
    curve = len(read_frame(copy.path / "metrics.parquet"))
    save = ["--save", "--programs", "5", "--threads", "1"]
    main(["eval", str(copy.path), "--n", "90", *save])
    first = len(copy.frame("metrics")) - curve
    main(["eval", str(copy.path), "--n", "120", *save])
    metrics = copy.frame("metrics")
    macro = select(metrics, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
    assert macro["n"].tolist() == [60, 60, 60, 120] and len(metrics) - curve <= first + 20
    assert len(select(metrics, metric=Metric.SURVIVAL)) == 16
    assert learning_curve_of(copy).n == 60


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["eval", "RUN", "--save", "--seed", "3"], "--save keeps the final evaluation"),
        (["eval", "RUN", "--programs", "-1"], "--programs must be a whole number of at least 0"),
        (["card", "RUN", "--n", "0"], "--n must be at least 1"),
        (["curves", "RUN", "--out", "x.png"], "--out must end in .svg"),
        (["eval", "RUN", "--archive", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_a_bad_request_is_one_line(
    arguments: list[str], says: str, tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tiny_run.path) if each == "RUN" else each for each in arguments])
    assert says in capsys.readouterr().err


def traces(figure: Any) -> list[Any]:
    """The traces of a plotly figure, whose type plotly does not tell."""
    return list(figure.data)


def test_the_figures_of_an_evaluation_show_its_rows(tiny_run: Run) -> None:
    rows = measure(tiny_run, n=120, seed=1, programs=10).rows
    survival = select(rows, metric=Metric.SURVIVAL)
    lines = [trace for trace in traces(survival_curves(rows)) if trace.mode == "lines+markers"]
    assert list(lines[0].y) == survival["estimate"].tolist() and lines[0].x[-1] == 100
    (points,) = [trace for trace in traces(reliability_diagram(rows)) if trace.mode == "markers"]
    assert list(points.y) == select(rows, metric=Metric.RELIABILITY)["estimate"].tolist()
    assert list(points.x) == select(rows, metric=Metric.CONFIDENCE)["estimate"].tolist()
    without = select(rows, metric=Metric.EXACT_MATCH)
    for draw in (survival_curves, reliability_diagram):
        with pytest.raises(ValueError, match="as tapelens eval gives"):
            draw(without)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("trace", ["| PUT | emitted |", "never revealed", "op × outcome"]),
        ("chain", ["t+1", "op × outcome"]),
        ("output", ["output[0]", "| all |", "strata"]),
    ],
)
def test_tasks_that_do_not_answer_with_a_state_have_cards(
    task: str, says: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their own strata and places; no partial credit, calibration or rollout."""
    spec = MachineSpec(n_instructions=8, n_cells=4, n_input=2, n_output=2, bits=2)  # programs on it run for 8 steps
    config = tiny_config(task=task, steps=2, eval_states=8, eval_every=2)
    config = replace(config, world=as_world(spec), model=transformer_for(task, spec, n_layers=1, n_heads=2, d_model=16))
    run = train(config, tmp_path / task)
    values = make_card(run, n=40, programs=10)
    assert values["n_wrong"] is None and values["rollouts"] == [] and values["failures"] == []
    page = (run.path / "card.md").read_text()
    assert "Whole sequences without an error" in page and "Calibration" not in page
    assert not [words for words in says if words not in page]
    main(["eval", str(run.path), "--n", "40", "--threads", "1"])
    out = capsys.readouterr().out
    (points,) = traces(accuracy_by_op(rows_frame(values["rows"]).assign(checkpoint_step=2)))
    assert list(points.x) == [
        row["estimate"] for row in values["rows"] if row["metric"] == "exact_match" and row["aggregation"] == "mean"
    ]
    assert "by place" in out and "whole sequences without an error" in out and says[-1] in out


def test_exact_match_by_op_is_told_without_rounding_up() -> None:
    assert by_op_words({"NEXT": 1.0, "PREV": 0.99999}) == "exact match by op, %: NEXT 100  PREV 99.9"


def test_the_page_of_every_bundled_card_can_be_made(tmp_path: Path) -> None:
    runs = [folder.parent for folder in sorted(BUNDLED.glob("*/card.json"))]
    page = write_models_page(runs, tmp_path).read_text()
    assert all(run.name in page for run in runs) and (tmp_path / "models_output.svg").exists()
