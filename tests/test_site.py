"""The documentation site builds strictly and offline, shows every public name, and its notebooks run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import zlib
from pathlib import Path

import notebooks
import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mkdocstrings") is None, reason="mkdocs is part of the extras dev and docs"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_every_page_stands_in_the_navigation() -> None:
    told = (ROOT / "mkdocs.yml").read_text()
    pages = [file.relative_to(DOCS).as_posix() for file in DOCS.glob("*.md")]
    pages += [f"tutorials/{file.stem}.md" for file in (DOCS / "tutorials").glob("*.ipynb")]
    assert len(pages) > 18
    assert [page for page in pages if page not in told] == []


def test_every_public_name_has_its_entry(site: Path) -> None:
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None and spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    inventory = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    known = {line.split(" ")[0] for line in inventory.splitlines()}
    wanted = [f"{package}.{name}" for package in hooks.PACKAGES for name in hooks.public_names(package)]
    assert len(wanted) > 250
    assert [name for name in wanted if name not in known] == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    fetched = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?https?://|<link[^>]*href=\"?https?://[^>]*stylesheet"
    )
    assert [page.name for page in pages if fetched.search(page.read_text("utf-8"))] == []
    assert not any("fonts.googleapis" in page.read_text("utf-8") for page in pages)


FOUND = (
    "architectures",
    "circuits",
    "probing",
    "models",
    "addition",
    "strings",
    "text",
    "slots",
    "states",
    "thinking",
    "chains",
    "diffusion",
    "calibration",
    "length_generalisation",
)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_opens_with_sentences_and_a_picture(name: str) -> None:
    before_tables = (DOCS / f"{name}.md").read_text("utf-8").split("\n| ")[0]
    opening = before_tables.split("\n\n")[1]
    assert len(re.findall(r"[.!?)](?= [A-Z\d]|$)", opening)) >= 5, opening
    assert "](" in before_tables and ".svg)" in before_tables.split("Written by")[0]


TUTORIALS = sorted(path.stem for path in notebooks.TUTORIALS.glob("*.ipynb"))
EXPECTED = {
    "1_train": lambda names: names["again"].config.digest == names["run"].config.digest,
    "2_probe_and_edit": lambda names: (
        names["probe"].score(names["held_x"], names["task"].labels(names["held"], "op")) > names["by_heart"] + 0.3
        and names["answer"].right
    ),
    "3_swap_and_search": lambda names: names["best"].set_index("variable").estimate["result"] > 0.9,
    "4_circuit_and_doubt": lambda names: names["circuit"].size < 400 and len(names["mine"] & names["theirs"]) > 5,
    "5_calibrate": lambda names: "AUROC" in names["score"](names["Method"].EAP_IG),
    "6_bring_your_own_model": lambda names: (
        (names["ours"](names["held"].tokens) - names["bridge"](names["held"].tokens)).abs().max() < 1e-3
        and names["scores"].any()
    ),
    "8_read_a_prompt": lambda names: (
        names["answers"] == ("e", "t") and names["effects"][2:, -1].min() > 0.8 > 0.2 > names["effects"][2:, :-1].max()
    ),
    "7_add_a_world": lambda names: names["done"].do == {"first": 0} and names["scores"].any(),
}


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All eight within four minutes of one core; each ends with what it set out to show."""
    import torch

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for file in (ROOT / "examples" / "extending").glob("*.py"):  # each enters itself in a registry when it is imported
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
    torch.set_num_threads(1)
    began = time.process_time()
    told, names = notebooks.run(notebooks.TUTORIALS / f"{name}.ipynb")
    assert time.process_time() - began < 60
    assert EXPECTED[name](names)
    assert any(cell["outputs"] for cell in notebooks.code_cells(told))


def test_the_site_shows_what_the_cells_printed() -> None:
    for name in TUTORIALS:
        cells = notebooks.code_cells(json.loads((notebooks.TUTORIALS / f"{name}.ipynb").read_text("utf-8")))
        assert any(cell["outputs"] for cell in cells), f"run: python tests/notebooks.py {name}"


PYTHON = [
    (page.name, block)
    for page in (DOCS / "index.md",)
    for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_on_the_first_page_runs(
    page: str, block: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block, page, "exec"), {})
    assert re.fullmatch(r"True \d+\n", capsys.readouterr().out)
