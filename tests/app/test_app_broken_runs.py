"""Every page without a browser: on a run where nothing was measured, and on broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import interp
from interp.runs import save_weights, write_config

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
PAGES = ("step", "attention", "probe_results", "circuit", "intervene")
MEASURED = PAGES[1:4]  # pages that read files of measurements


@pytest.mark.parametrize("page", PAGES)
def test_a_run_without_measurements_names_the_command(page: str, open_page: Open, words: Words, bare_run: Path) -> None:
    at = open_page(page, bare_run)
    if page == "attention":  # this state needs no file; the mean does
        assert not at.code
        at.segmented_control[0].set_value("mean over an instruction").run()
    assert not at.exception
    assert not at.error
    if page in MEASURED:
        verb = "probe" if page == "probe_results" else "circuit"
        assert [code.value for code in at.code] == [f"tapelens {verb} {bare_run}"]
        assert "does not exist yet" in words(at)


@pytest.mark.parametrize(
    ("page", "file"),
    [("attention", "attention.safetensors"), ("probe_results", "probes.parquet"), ("circuit", "circuits/INC.json")],
)
def test_a_broken_file_is_named_with_its_command(page: str, file: str, open_page: Open, copied_run: Path) -> None:
    data = (copied_run / file).read_bytes()
    (copied_run / file).write_bytes(data[: len(data) // 2])
    at = open_page(page, copied_run, op="INC")
    if page == "attention":
        at.segmented_control[0].set_value("mean over an instruction").run()
    assert not at.exception
    assert file.split("/")[-1] in at.error[0].value
    assert at.code[0].value.startswith("tapelens ")


@pytest.mark.parametrize("page", PAGES)
def test_a_foreign_config_is_refused_on_every_page(page: str, open_page: Open, copied_run: Path) -> None:
    config = json.loads((copied_run / "config.json").read_text())
    (copied_run / "config.json").write_text(json.dumps(config | {"format": 99}))
    at = open_page(page, copied_run)
    assert not at.exception
    assert "format 99" in at.error[0].value
    assert at.code


@pytest.mark.parametrize("page", MEASURED)
def test_measurements_of_another_config_are_refused_with_both_hashes(
    page: str, open_page: Open, copied_run: Path, run_folder: Path
) -> None:
    old = interp.load(run_folder).config
    new = interp.RunConfig(old.task, old.spec, old.model, type(old.training)(**{**vars(old.training), "seed": 77}))
    write_config(copied_run, new)
    at = open_page(page, copied_run, op="INC")
    if page == "attention":  # the weights, too, belong to the other config, and are refused first
        assert old.digest in at.error[0].value
        assert new.digest in at.error[0].value
        return
    assert not at.exception
    assert old.digest in at.error[0].value
    assert new.digest in at.error[0].value


def test_measurements_of_other_weights_are_refused(open_page: Open, copied_run: Path) -> None:
    run = interp.load(copied_run)
    save_weights(copied_run / "model.safetensors", run.model, run.config, step=run.step + 1)
    for page, name in (("probe_results", "probes.parquet"), ("circuit", "INC.json")):
        at = open_page(page, copied_run, op="INC")
        assert f"{name} was measured on the weights of step {run.step}" in at.error[0].value
        assert at.code[0].value.startswith("tapelens ")


def test_no_run_at_all(open_page: Open, tmp_path: Path) -> None:
    at = open_page("step", tmp_path / "nothing")
    assert not at.exception
    assert "o run at" in at.error[0].value
    assert at.code[0].value.startswith("tapelens train")


def test_truncated_weights_leave_the_machine_running(open_page: Open, bare_run: Path) -> None:
    weights = bare_run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    at = open_page("step", bare_run)
    assert not at.exception
    assert "not a whole safetensors file" in at.error[0].value
    assert at.code[0].value == f"tapelens train --fresh --out {bare_run}"
    next(b for b in at.button if b.key == "next").click().run()
    assert "step 2 of 14" in at.markdown[0].value


def test_missing_weights_leave_the_machine_running(open_page: Open, bare_run: Path) -> None:
    (bare_run / "model.safetensors").unlink()
    at = open_page("step", bare_run)
    assert not at.exception
    assert "has no trained weights yet" in at.error[0].value
    assert at.code[0].value == f"tapelens train --resume --out {bare_run}"


def test_a_pickle_is_never_opened(open_page: Open, bare_run: Path) -> None:
    (bare_run / "model.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    at = open_page("step", bare_run)
    assert "pickle" in at.error[0].value
