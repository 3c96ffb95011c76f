"""The run is resumable; its page, figure and summary hold the measured numbers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

import interp.calibration.run as calibration_run
from interp.calibration import score
from interp.calibration.registry import CALIBRATIONS, Entry, runs
from interp.calibration.run import calibrate, publish_summary
from interp.calibration.settings import QUICK, CalibrationSettings
from interp.calibration.summary import short, summarise
from interp.cli import main
from interp.pages.calibration import page, table, write_page
from interp.report.rows import calibration
from interp.results import Method, Metric, read_frame, select

ENTRIES = ("eap", "attribution_patching")


@pytest.fixture(scope="module")
def tiny() -> CalibrationSettings:
    return replace(QUICK, subjects=("rotated", "soft"), ops=("INC", "STOP"), n_pairs=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    out = tmp_path_factory.mktemp("calibration")
    calibrate(out, settings=tiny, only=ENTRIES)
    return out


def test_a_file_each_model_and_entry_and_one_frame_of_all(folder, tiny) -> None:
    files = {file.stem for file in (folder / "rows").iterdir()}
    assert files == {f"{model}.{entry}" for model in tiny.subjects for entry in ENTRIES}
    frame = read_frame(folder / "calibration.parquet")
    assert set(frame.run) == {"rotated", "soft"} and set(frame.method) == set(ENTRIES)
    assert frame.attrs["provenance"]["settings"]["n_pairs"] == 4


def test_what_is_on_disk_is_kept_until_settings_change(folder, tiny, monkeypatch, tmp_path) -> None:
    calls = []

    def counted(*given):
        calls.append(given)
        return []

    monkeypatch.setattr(calibration_run, "CALIBRATIONS", {name: Entry(counted) for name in CALIBRATIONS})
    before = read_frame(folder / "calibration.parquet")
    again = calibrate(folder, settings=tiny, only=ENTRIES)
    assert not calls
    assert again.estimate.tolist() == before.estimate.tolist()
    calibrate(tmp_path, settings=tiny, only=ENTRIES)
    assert len(calls) == 4
    calibrate(tmp_path, settings=tiny, only=ENTRIES)
    assert len(calls) == 4
    calibrate(tmp_path, settings=replace(tiny, seed=tiny.seed + 1), only=ENTRIES)
    assert len(calls) == 8


def test_an_interruption_keeps_what_was_measured(tiny, monkeypatch, tmp_path) -> None:
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setitem(calibration_run.CALIBRATIONS, "attribution_patching", Entry(stop))
    with pytest.raises(KeyboardInterrupt):
        calibrate(tmp_path, settings=tiny, only=ENTRIES)
    assert {file.name for file in (tmp_path / "rows").iterdir()} == {"rotated.eap.parquet", "soft.eap.parquet"}


def test_unknown_names_are_refused_with_those_there_are(tiny, tmp_path) -> None:
    with pytest.raises(ValueError, match="no calibration model 'dirty'; there are clean"):
        calibrate(tmp_path, settings=replace(tiny, subjects=("dirty",)))
    with pytest.raises(ValueError, match="no calibration entry 'guess'; there are logistic"):
        calibrate(tmp_path, settings=tiny, only=("guess",))
    with pytest.raises(ValueError, match="n_pairs must be a whole number of at least 1, got 0"):
        CalibrationSettings(n_pairs=0)


def test_cheap_entries_of_all_models_come_first() -> None:
    units = runs(("rotated", "soft"), ())
    assert [name for name, _ in units] == sorted((name for name, _ in units), key=list(CALIBRATIONS).index)
    assert ("acdc", "soft") not in units and ("eap", "soft") in units


def test_the_page_prints_the_rows_and_the_figure_is_an_image(folder, tiny, tmp_path) -> None:
    frame = read_frame(folder / "calibration.parquet")
    text = write_page(tmp_path, frame, tiny).read_text(encoding="utf-8")
    area = select(frame, method=Method.EAP, run="soft", metric=Metric.AUROC, ablation="resample").estimate.mean()
    line = next(line for line in text.splitlines() if line.startswith("| edge | EAP | `soft`"))
    assert short(float(area), 3) in line
    drawing = ElementTree.fromstring((tmp_path / "calibration.svg").read_text(encoding="utf-8"))
    words = [node.text for node in drawing.iter() if node.text]
    assert "EAP, soft" in words and "INC" in words
    assert "ACDC, 12 nats" not in words  # not measured


def test_a_page_without_rows_says_so(tiny, folder) -> None:
    frame = read_frame(folder / "calibration.parquet")
    assert page(frame.iloc[:0], tiny).count("*(not measured)*") >= 5
    assert table(["a", "b"], [["1", "2"]]).splitlines() == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]


def test_the_summary_has_a_phrase_for_what_was_measured(folder, tiny, tmp_path) -> None:
    frame = read_frame(folder / "calibration.parquet")
    publish_summary(tmp_path, frame, tiny)
    found = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["methods"]
    assert found == summarise(frame)
    assert set(found) == set(ENTRIES)
    area = select(frame, method=Method.EAP, metric=Metric.AUROC, ablation="resample").estimate.mean()
    assert found["eap"].startswith(f"edge AUROC {short(float(area), 3)}")


def test_the_bundled_summary_is_asked_by_method() -> None:
    phrase = score("eap_ig")
    assert phrase is not None and phrase.startswith("edge AUROC 0.")
    assert score("training") is None
    with pytest.raises(ValueError, match="no method 'guess'"):
        score("guess")


def test_reports_show_the_phrase_beside_results() -> None:
    (paragraph,) = calibration({"eap_ig": "EAP-IG gives", "training": "the curve"})
    assert f"EAP-IG gives {score('eap_ig')}" in paragraph and "the curve" not in paragraph
    assert calibration({"training": "the curve"}) == ()


def test_the_verb_writes_everything(tmp_path, capsys) -> None:
    main(["calibrate", "--out", str(tmp_path), "--quick", "--models", "rotated", "--methods", "true_subspace"])
    assert "the table in words in" in " ".join(capsys.readouterr().out.split())
    for name in ("calibration.parquet", "calibration.md", "calibration.svg", "summary.json"):
        assert (tmp_path / name).exists()
    with pytest.raises(SystemExit):
        main(["calibrate", "--out", str(tmp_path), "--quick", "--models", "dirty"])


def test_processes_measure_what_one_does(folder, tiny, tmp_path) -> None:
    calibrate(tmp_path, settings=tiny, only=("eap",), workers=2)
    alone, shared = (select(read_frame(at / "calibration.parquet"), method="eap") for at in (folder, tmp_path))
    assert shared.estimate.round(6).tolist() == alone.estimate.round(6).tolist()


def test_the_published_page_is_what_its_rows_say() -> None:
    """docs/calibration.parquet holds them; `tapelens calibrate --publish` writes all three."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    frame = read_frame(docs / "calibration.parquet")
    assert page(frame, CalibrationSettings()) == (docs / "calibration.md").read_text(encoding="utf-8")
    assert frame.attrs["provenance"]["settings"]["seed"] == CalibrationSettings().seed
