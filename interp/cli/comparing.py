"""Runs side by side: compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from interp.console import console, say
from interp.files import require_file
from interp.runs import load


def compare(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    *,
    out: Path = Path("compare.md"),
    sweep: Path | None = None,
    title: str | None = None,
) -> None:
    """Set RUNS side by side: exact match, what can be read, what is used, how sparse circuits are; from their rows.

    Args:
        runs: run folders.
        out: the page, an .md file.
        sweep: also every finished run of this sweep's folder.
        title: the page's heading.
    """
    if out.suffix != ".md":
        raise ValueError(f"--out must end in .md, got {out}")
    require_file(out)
    folders = [*runs, *(sorted((sweep / "runs").iterdir()) if sweep is not None else [])]
    opened = [load(run) for run in folders if run in runs or (run / "model.safetensors").is_file()]
    if not opened:
        raise ValueError("name at least one run, or a sweep with --sweep")
    from interp.pages.compare import HEADINGS, TITLE, summary_rows, write_compare_page
    from interp.studies.comparing import compared

    frame = compared(opened)
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("parameters", "records", "seconds a step") else "left")
    for line in summary_rows(opened, frame):
        table.add_row(*line)
    console.print(table)
    write_compare_page(opened, frame, out, title=title or TITLE)
    say(f"{len(frame):,} answers of {len(opened)} runs in {out}")
