"""Every page about bundled runs is what its command writes from their rows today, pictures included.

Of the others each has its own test: architectures.md (test_compare.py), calibration.md (calibration/),
length_generalisation.md (evaluation/).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import interp
from interp.cli import main
from interp.pages.diffusion import write_diffusion_page
from interp.pages.thinking import write_thinking_page
from interp.results import read_frame

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CARRYING = (
    "rnn",
    "gru",
    "lstm",
    "linear_attention",
    "linear_attention_plain",
    "delta",
    "mamba",
    "mamba_no_conv",
    "mamba2",
)
SEEDS = ("step_inplace", "step_inplace_1", "step_inplace_2")
STICKY = ("sticky_n1", "sticky_n3", "sticky_n4")
FILLED = ("step_masked_diffusion", "step_diffusion_lm", "step_encoder_decoder", "output_masked_diffusion")

# The page's command, and its runs in the order of the page.
PAGES = {
    "circuit-page": [*SEEDS, "trace", "output", "chain", "step_encoder_decoder"],
    "probing-page": ["step", "step_inplace", "trace", "trace_1", "trace_2"],
    "states-page": ["trace_lstm", *(f"trace_small_{name}" for name in CARRYING)],
    "strings-page": ["sticky", "markov", *STICKY, "counting", "sticky_ngram", "sticky_bigram", "sticky_mlp"],
    "slots-page": ["slots_add", "slots_sort", "slots_search", "slots_strings", "slots_alu"],
    "sums-page": ["addition", "addition_16", "addition_long"],
    "text-page": ["docs/text.json"],
    "model-page": sorted(card.parent.name for card in (ROOT / "checkpoints").glob("*/card.json")),
}
BESIDE = {  # rows that are looked for beside the page
    "slots-page": ["slots_restarts.parquet"],
    "sums-page": ["addition_tables.parquet", "addition_lengths.parquet"],
}


@pytest.mark.parametrize("command", PAGES)
def test_a_page_is_what_its_rows_say(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "docs"
    out.mkdir()
    for rows in BESIDE.get(command, ()):
        shutil.copy(DOCS / rows, out)
    main(
        [
            command,
            *(run if run.endswith(".json") else f"checkpoints/{run}" for run in PAGES[command]),
            "--out",
            str(out),
        ]
    )
    written = sorted(file.relative_to(out) for file in out.rglob("*") if file.is_file() and file.suffix != ".parquet")
    assert any(file.suffix == ".md" for file in written)
    check(out, command)


@pytest.mark.parametrize(
    ("kind", "write", "runs"),
    [
        ("thinking", lambda runs, rows, out: write_thinking_page(runs[0], rows[0], out), ["output_looped"]),
        ("diffusion", write_diffusion_page, [*FILLED, "output_masked_diffusion_bare", "output_looped"]),
    ],
)
def test_pages_whose_commands_measure_too(
    kind: str, write: Callable[..., object], runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "docs"
    out.mkdir()
    opened = [interp.load(Path("checkpoints") / run) for run in runs]
    write(opened, [read_frame(run.path / f"{kind}.parquet") for run in opened], out)
    check(out, kind)


def test_the_page_on_chains_is_what_its_rows_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "docs"
    out.mkdir()
    shutil.copy(DOCS / "chains.parquet", out)
    main(["chains", "--out", str(out)])
    check(out, "chains")


def check(out: Path, command: str) -> None:
    """The files in `out` are those of the documents; links from a page to runs are relative to where it stands."""
    written = sorted(file.relative_to(out) for file in out.rglob("*") if file.is_file() and file.suffix != ".parquet")
    assert any(file.suffix == ".md" for file in written)
    there = f"]({os.path.relpath(ROOT, out)}/"
    for file in written:
        made = (out / file).read_text(encoding="utf-8").replace(there, "](../").replace(f"--out {out}`", "--out docs`")
        assert made == (DOCS / file).read_text(encoding="utf-8"), f"{file}: write it again with tapelens {command}"
