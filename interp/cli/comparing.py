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
    seeds: Path | None = None,
    title: str | None = None,
) -> None:
    """Set RUNS side by side: exact match, what can be read, what is used, how sparse circuits are; from their rows.

    Args:
        runs: run folders.
        out: the page, an .md file.
        sweep: also every finished run of this sweep's folder.
        seeds: the folder of a sweep that trained some of RUNS from other seeds: its rows are kept beside the page, in
            PAGE_seeds.parquet, which this verb reads from then on.
        title: the page's heading.
    """
    if out.suffix != ".md":
        raise ValueError(f"--out must end in .md, got {out}")
    require_file(out)
    opened = [load(run) for run in [*runs, *(_finished(sweep) if sweep is not None else [])]]
    if not opened:
        raise ValueError("name at least one run, or a sweep with --sweep")
    from interp.pages.compare import HEADINGS, TITLE, seeds_file, summary_rows, write_compare_page
    from interp.results import write_frame
    from interp.studies.again import gather
    from interp.studies.comparing import compared

    frame = compared(opened)
    table = Table()
    for heading in HEADINGS:
        table.add_column(heading, justify="right" if heading in ("parameters", "records", "seconds a step") else "left")
    for line in summary_rows(opened, frame):
        table.add_row(*line)
    console.print(table)
    if seeds is not None:
        rows = gather(opened, [load(run) for run in _finished(seeds)])
        write_frame(rows, seeds_file(out))
    write_compare_page(opened, frame, out, title=title or TITLE)
    say(f"{len(frame):,} answers of {len(opened)} runs in {out}")


def _finished(sweep: Path) -> list[Path]:
    """The folders of a sweep's finished runs.

    Raises:
        ValueError: the folder is no sweep's.
    """
    if not (sweep / "runs").is_dir():
        raise ValueError(f"{sweep} is no folder of a sweep: it has no runs/")
    return [run for run in sorted((sweep / "runs").iterdir()) if (run / "model.safetensors").is_file()]
