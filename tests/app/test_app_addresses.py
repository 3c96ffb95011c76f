"""What an address may ask for, which app is started, and that damaged files end in a sentence on every page."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import program
from app.numbers import quoted, whole_number
from app.run_access import linked_path
from app.selection import parse
from benchmarks.app import visit as open_first_page
from cython_vm import MachineSpec
from interp.reading import RunError

from .browser import STRANGERS

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "app" / "main.py"
ABSURD = ["9" * 5000, "0" * 5000, "-1", "1e9", "²", "٣" * 400, "0x10", " ", "1" * 19]


@pytest.mark.parametrize("text", ABSURD)
def test_absurd_numbers_in_an_address_become_a_notice(text: str) -> None:
    spec = MachineSpec()
    selection, notices = parse({"step": text}, ("INC",))
    assert selection.step == 0 and len(notices) == 1 and len(notices[0]) < 200
    for name in ("instruction_ptr", "array_ptr"):
        with pytest.raises(program.ProgramError) as error:
            program.from_address({"program": "INC", name: text}, spec)
        assert len(str(error.value)) < 200
    if text.strip():
        for name in ("input", "cells", "output"):
            with pytest.raises(program.ProgramError) as error:
                program.from_address({"program": "INC", name: text}, spec)
            assert len(str(error.value)) < 200


def test_numbers_that_can_be_meant_are_read() -> None:
    assert (whole_number("0"), whole_number("017"), whole_number("9" * 18)) == (0, 17, 10**18 - 1)
    assert quoted("short") == "'short'" and len(quoted("x" * 9000)) < 70


@pytest.mark.parametrize("page", ["step", "attention", "probe_results", "circuit"])
def test_an_absurd_address_opens_every_page(page: str, open_page: Open, run_folder: Path) -> None:
    digits = "9" * 5000
    kind = {"attention": "head", "circuit": "node", "probe_results": "probe"}.get(page, "head")
    at = open_page(
        page, run_folder, step=digits, program=digits, instruction_ptr=digits, input=digits, kind=kind,
        id=f"{digits}.{digits}:{digits}", op=digits,
    )  # fmt: skip
    assert not at.exception and not at.error
    assert at.query_params["step"] in ("1", ["1"]) and at.query_params["program"] != digits  # mended in the address


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_folder: Path) -> Path:
    """A folder that the app is started in: runs/mine, checkpoints/theirs; and beside it a run of somebody else."""
    here = tmp_path / "here"
    for folder in (here / "runs" / "mine", here / "checkpoints" / "theirs", here / "started", tmp_path / "secret"):
        folder.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(run_folder / name, folder / name)
    (here / "runs" / "link").symlink_to(tmp_path / "secret")
    (here / "runs" / "circle").symlink_to(here / "runs" / "circle")
    monkeypatch.chdir(here)
    monkeypatch.setenv("TAPELENS_RUN", str(here / "started"))
    return here


def test_a_link_opens_runs_and_checkpoints_and_the_run_that_was_named(place: Path) -> None:
    for name in ("runs/mine", "runs/../runs/mine", "checkpoints/theirs", "started", str(place / "runs" / "mine")):
        assert linked_path(name) == Path(name)
    assert linked_path(str(ROOT / "checkpoints" / "quickstart")).is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "../secret", "runs/../../secret", "runs/link", "runs/circle/x", "/", "/etc", ".", "..", "runs-of-others/x", "~",
        "runs/\0", "x" * 5000, "started/../../secret", "PLACE/../secret", "file:///etc", "nowhere",
    ],
)  # fmt: skip
def test_a_link_opens_nothing_else(name: str, place: Path) -> None:
    with pytest.raises(RunError) as error:
        linked_path(name.replace("PLACE", str(place)))
    assert "a link opens runs in runs/ and checkpoints/ alone" in str(error.value) and "\n" not in str(error.value)


def test_what_is_there_and_what_is_not_are_refused_alike(place: Path) -> None:
    """So that links cannot be used to find out what lies on a machine."""
    told = set()
    for name in ("../secret", "../nothing"):
        with pytest.raises(RunError) as error:
            linked_path(name)
        told.add(str(error.value).replace(name, ""))
    assert len(told) == 1


def visit(**parameters: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=120)
    for name, value in parameters.items():
        at.query_params[name] = value
    return at.run()


def test_the_page_of_a_refused_link_is_one_sentence(place: Path, words: Words) -> None:
    at = visit(run="../secret")
    assert not at.exception
    assert [error.value for error in at.error] == [
        "The link asks for the run '../secret'; a link opens runs in runs/ and checkpoints/ alone, and the one that "
        "the app was started with."
    ]
    at = visit(run="runs/mine")
    assert not at.exception and not at.error and "Run mine:" in words(at)
    at = visit()
    assert not at.exception and not at.error and "Run started:" in words(at)


FILES = {
    "attention.safetensors": "attention",
    "probes.parquet": "probe_results",
    "interventions.parquet": "probe_results",
    "probe_errors.parquet": "probe_results",
    "circuits/INC.json": "circuit",
    "circuits/edges/INC.json": "circuit",
    "circuits/summary.json": "circuit",
    "circuits.parquet": "circuit",
    "metrics.parquet": "step",
    "model.safetensors": "step",
    "config.json": "step",
}


def picked(page: str, run: Path) -> dict[str, str]:
    """An address that has the page read all its files."""
    if page == "circuit":
        edges = json.loads((run / "circuits" / "edges" / "INC.json").read_text())["detail"]["edges"]
        return {"op": "INC", "kind": "edge", "id": next(iter(edges))}
    if page == "probe_results":
        return {"kind": "probe", "id": "op|blocks.1.hook_resid_post|cells[0]"}
    return {"op": "INC"}


@pytest.mark.parametrize("damage", ["nested", "folder", "flipped"])
@pytest.mark.parametrize("file", FILES)
def test_no_damaged_file_shows_a_traceback(file: str, damage: str, open_page: Open, copied_run: Path) -> None:
    page, path = FILES[file], copied_run / file
    address, data = picked(page, copied_run), bytearray(path.read_bytes())
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "nested":
        path.write_text("[" * 100_000)
    else:
        for place in np.random.default_rng(0).integers(0, len(data), size=20):
            data[int(place)] ^= 1 << int(place % 8)
        path.write_bytes(data)
    at = open_page(page, copied_run, **address)
    if page == "attention":
        at.segmented_control[0].set_value("mean over an instruction").run()
    assert not at.exception
    assert not any("could not be drawn" in error.value for error in at.error)  # its reader knew better


def test_a_file_that_contradicts_itself_ends_in_a_sentence(open_page: Open, copied_run: Path) -> None:
    """Whole JSON of the right types, which no reader refuses, and no page can draw."""
    file = copied_run / "circuits" / "INC.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "faithfulness": []}))
    at = open_page("circuit", copied_run, op="INC")
    assert not at.exception
    assert at.error[0].value.startswith("This page could not be drawn (ValueError: ")


@pytest.mark.xdist_group("browser")  # whose server it is
def test_the_app_is_our_own_whatever_lies_in_the_folder(server: str, home: Path) -> None:
    """A stranger's app.py, and modules of the names that we import, in the folder where the command is called."""
    assert all((home / name).exists() for name in STRANGERS)
    with urllib.request.urlopen(f"{server}/_stcore/health", timeout=30) as answer:
        assert answer.read() == b"ok"
    drawn = open_first_page(int(server.rpartition(":")[2]))
    assert any("4 layers × 4 heads" in words for words in drawn)
    assert not (home / "ran").exists()
