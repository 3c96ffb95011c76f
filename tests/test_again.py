"""Models of a comparison from other seeds: which runs repeat one another, and what their rows say together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from interp.cli import main
from interp.pages.across_seeds import seed_sections, seed_sentences
from interp.results import APART, Aggregation, Control, Method, Metric, rows_frame
from interp.runs import load
from interp.studies.again import again, gather, repeats, shared_circuits

CHECKPOINTS = Path(__file__).resolve().parents[1] / "checkpoints"


def rows_of(run: str, seed: int, exact: float, longer: float, by_place: float, by_distance: float) -> pd.DataFrame:
    mean = {"metric": Metric.EXACT_MATCH, "aggregation": Aggregation.MACRO}
    own = [
        {**mean, "method": Method.GREEDY, "estimate": exact, "checkpoint_step": 9, "n": 1000},
        {**mean, "stratum": "24 steps", "estimate": exact, "n": 100},
        {**mean, "stratum": "72 steps", "estimate": longer, "n": 100},
    ]
    for variable, moved in (("cell[0]", by_place), ("cell[@array_ptr+1]", by_distance)):
        part = {"variable": variable, "metric": Metric.IIA, "stratum": APART, "part": "layer0", "carrier_size": 32}
        own.append({**part, "part_size": 16, "estimate": moved, "n": 40})
        own.append({**part, "part_size": 16, "estimate": 0.1, "n": 40, "control": Control.RANDOM_PART})
    return rows_frame(own).assign(run=run, seed=seed)


@pytest.fixture
def frame() -> pd.DataFrame:
    parts = [
        rows_of("gru", 0, 0.99, 0.95, 0.2, 0.8),
        rows_of("gru", 1, 0.97, 0.90, 0.2, 0.7),
        rows_of("path", 0, 0.98, 0.96, 0.8, 0.2),
        rows_of("path", 1, 1.00, 0.99, 0.2, 0.8),
    ]
    key = {"metric": Metric.JACCARD, "op": "PUT", "stratum": "seeds", "aggregation": Aggregation.MEAN}
    pair = [{**key, "estimate": 0.4}, {**key, "estimate": 0.2, "ci_high": 0.25, "control": Control.RANDOM_MATCHING}]
    return pd.concat([*parts, rows_frame(pair).assign(run="path|path_s1")], ignore_index=True)


def test_seeds_of_a_model_are_told_together(frame: pd.DataFrame) -> None:
    gru, path = again(frame)
    assert (gru.run, gru.seeds, gru.exact) == ("gru", (0, 1), (0.99, 0.97))
    assert [kept.longer["72 steps"] for kept in gru.kept] == [0.95, 0.90]
    assert gru.verdicts == ("relative", "relative") and path.verdicts == ("absolute", "relative")
    (put,) = shared_circuits(frame)
    assert (put.op, put.jaccard, put.null, put.above) == ("PUT", (0.4,), (0.25,), 1)


def test_the_page_says_what_holds_from_seed_to_seed(frame: pd.DataFrame) -> None:
    said = " ".join(seed_sentences(frame))
    assert "differ by up to 2.00 points, families (their means) by 1.00" in said
    assert "the same for each seed in 1 of 2 families; it changes with the seed in `path`" in said
    assert "share 40 to 40 % of their edges" in said and "in 1 of 1 comparisons more than with heads" in said
    text = "\n".join(seed_sections(frame))
    assert "| gru | 0, 1 | 99.00, 97.00 | 95.0, 90.0 | 0.80, 0.70 | 0.20, 0.20 | by distance |" in text
    assert "by place, by distance" in text and "| PUT | 0.40 | 0.25 |" in text


def test_a_run_repeats_one_that_differs_in_the_seed_alone() -> None:
    run: Any = load(CHECKPOINTS / "trace_small_gru")
    config = run.config
    seeded = replace(config, model=replace(config.model, seed=1), training=replace(config.training, seed=1))
    other: Any = SimpleNamespace(config=seeded)
    wider: Any = SimpleNamespace(config=replace(seeded, training=replace(seeded.training, adamw_lr=0.1)))
    assert repeats(run, other) and not repeats(run, wider)
    assert not repeats(run, load(CHECKPOINTS / "trace_small_lstm"))
    with pytest.raises(ValueError, match="none of these runs is another seed"):
        gather([run], [load(CHECKPOINTS / "trace_small_lstm")])


def test_a_folder_that_is_no_sweep_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.md"
    with pytest.raises(SystemExit):
        main(["compare", str(CHECKPOINTS / "trace_small_gru"), "--seeds", str(tmp_path), "--out", str(out)])
    assert "is no folder of a sweep: it has no runs/" in capsys.readouterr().err
    assert not out.exists()
