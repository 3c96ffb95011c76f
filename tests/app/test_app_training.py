"""The Training and Data pages without a browser: a kept step is opened everywhere, files are offered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

import interp
from app import training_data
from interp.results import records, select

ALONG = Path(__file__).resolve().parents[2] / "checkpoints" / "step_inplace"
Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]


def test_curves_are_the_runs_own_rows() -> None:
    run = interp.load(ALONG)
    macro = records(select(run.frame("metrics"), metric="exact_match", aggregation="macro", checkpoint_step=12000))
    mean = training_data.accuracy(run)[0]
    assert mean.name == "mean over strata"
    assert dict(mean.points)[12000] == sum(row["estimate"] for row in macro) / len(macro)
    names = {curve.name for curve in training_data.probes(run)}
    assert {"op", "array_ptr"} <= names
    formed = {curve.name: dict(curve.points) for curve in training_data.circuits(run)}
    assert formed["INC"][12000] > formed["INC"][0]


def test_a_kept_step_is_opened_on_every_page(open_page: Open, words: Words) -> None:
    at = open_page("training", ALONG)
    assert not at.exception and not at.error
    assert {"**Exact match**", "**Probe accuracy**", "**Circuit formed**"} <= {each.value for each in at.markdown}
    box = next(each for each in at.selectbox if each.key == "weights_step")
    box.set_value("557").run()
    assert at.query_params["weights"] in ("557", ["557"])
    assert "Run step_inplace@557" in words(at) and "weights of step 557" in words(at)
    at.switch_page("views/probe_results.py").run()
    assert not at.exception and "weights of step 557" in words(at)


def test_a_step_that_was_not_kept_is_told(open_page: Open, words: Words) -> None:
    at = open_page("data", ALONG, weights="7")
    assert not at.exception and not at.error
    assert "the weights of step '7', which step_inplace has not kept" in words(at)
    assert "weights of step 12,000" in words(at)


def test_data_names_hashes_versions_and_commands(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("data", run_folder)
    run = interp.load(run_folder)
    assert not at.exception and not at.error
    table = dict(at.dataframe[0].value.to_numpy().tolist())
    assert table["config"] == run.config.digest and table["torch"].startswith("2.")
    assert table["weights, SHA-256"] == hashlib.sha256((run_folder / "model.safetensors").read_bytes()).hexdigest()
    told = [code.value for code in at.code]
    assert any(code.startswith("tapelens probe") for code in told)
    assert f"**probes.parquet**, what can be read: {len(run.frame('probes')):,} rows" in words(at)
