"""What the README and the examples show runs as shown, and the tree that it draws exists."""

from __future__ import annotations

import re
import runpy
import subprocess
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import pytest
from house import PAGE, page

from interp.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHOWN = README + (ROOT / "docs" / "machine.md").read_text()
PICTURES = sorted(file.name for file in (ROOT / "docs").iterdir() if file.suffix in (".svg", ".png"))
REMADE = re.findall(
    r"^\| ([^|\n]+) \| [^|\n]+ \| ([^|\n]+) \|$",
    (ROOT / "CONTRIBUTING.md").read_text().partition("## How a figure is remade")[2],
    flags=re.MULTILINE,
)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", SHOWN, flags=re.DOTALL))
def test_readme_code_runs(block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block, "a page", "exec"), {})
    out = capsys.readouterr().out
    if "[[3 2 1]]" in block:
        assert out.strip() == "[[3 2 1]]"
    elif "outcome_token" in block:
        assert out.startswith("['AT_") and out.strip().endswith("'RAN']")
    else:
        assert float(re.search(r"([\d.]+)%", out)[1]) > 50  # type: ignore[index]


def test_the_readmes_tree_exists() -> None:
    tree = re.search(r"```\n(cython_vm/.*?)```", README, flags=re.DOTALL)[1]  # type: ignore[index]
    folder = ROOT
    for line in tree.splitlines():
        names = re.findall(r"(?:^|\s)([\w_*]+(?:\.pyx?|/)|_\*\.pyx)(?=\s|$)", line)
        if not line.startswith(" "):
            folder = ROOT / names[0]
            assert folder.is_dir(), line
            continue
        for name in names:
            assert list(folder.glob(name.rstrip("/"))), f"{name} of {line!r}"


def test_the_house_shows_every_module_in_a_line() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/house.md is out of date; make it with: make house"


def test_the_training_page_names_options_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    known = set(re.findall(r"--[a-z][a-z.-]*", capsys.readouterr().out))
    torchruns = {"--nproc_per_node"}
    named = set(re.findall(r"--[a-z][a-z._-]*", (ROOT / "docs" / "training.md").read_text()))
    assert len(named) > 10 and named - torchruns <= known


def test_the_pictures_of_the_readme_exist() -> None:
    for path in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).stat().st_size > 10_000


def test_the_example_trains_and_probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "train_cache_probe.py"), run_name="__main__")
    shares = [float(x) for x in re.findall(r"([\d.]+)%", capsys.readouterr().out)]
    assert len(shares) == 5 and max(shares[1:]) > shares[0]


def test_nothing_of_ours_is_imported_by_the_wrong_room() -> None:
    """cython_vm ← interp ← app; probes take arrays and import nothing of ours; interp imports cython_vm and probes."""
    allowed = {"cython_vm": {"cython_vm"}, "probes": {"probes"}, "interp": {"cython_vm", "interp", "probes"}}
    rooms = {"cython_vm", "interp", "probes", "app"}
    for room, may in allowed.items():
        for file in (ROOT / room).rglob("*.py*"):
            if file.suffix not in (".py", ".pyx"):
                continue
            found = set(re.findall(r"^\s*(?:from|import) (\w+)", file.read_text(), flags=re.MULTILINE)) & rooms
            assert found <= may, f"{file} imports {found - may}"


def test_bundled_files_are_small() -> None:
    """A file of tens of megabytes among the runs is a mistake; every clone would carry it."""
    names = subprocess.run(["git", "ls-files", "-z", "checkpoints"], cwd=ROOT, capture_output=True, text=True).stdout
    sizes = {name: (ROOT / name).stat().st_size for name in names.split("\0") if name and (ROOT / name).exists()}
    assert {name: size for name, size in sizes.items() if size > 4_000_000} == {}
    assert sum(sizes.values()) < 125_000_000


@pytest.mark.parametrize("picture", PICTURES)
def test_how_each_picture_is_remade_is_told_with_its_command(picture: str) -> None:
    """In one row of the table in CONTRIBUTING.md, by its name or by a pattern of names."""
    commands = [
        made for names, made in REMADE if any(fnmatch(picture, each) for each in re.findall(r"`([^`]+)`", names))
    ]
    assert len(commands) == 1, f"{picture} stands in {len(commands)} rows"
    (told,) = re.findall(r"`([^`]+)`", commands[0])[:1]
    program, verb, *_ = told.split()
    if program == "tapelens":
        assert verb in COMMANDS
    else:
        assert told.startswith(("python -m benchmarks.", "python -m pytest tests/app/"))
        assert find_spec(told.split()[2]) is not None


def test_every_picture_that_is_told_is_there() -> None:
    for names, _ in REMADE[2:]:
        for each in re.findall(r"`([^`]+\.(?:svg|png))`", names):
            assert any(fnmatch(picture, each) for picture in PICTURES), f"no picture of docs/ is named {each}"


def test_the_readme_is_one_page() -> None:
    assert len(README.splitlines()) <= 110
