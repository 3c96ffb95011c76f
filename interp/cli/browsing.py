"""The whole path, and looking at what it left: demo, report, app."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from interp.cli.arguments import RunPath
from interp.console import console
from interp.runs import load, require_next_state


def demo(
    *,
    out: Path = Path("runs/quickstart"),
    preset: str = "quickstart",
    fresh: bool = False,
    app: bool = True,
    port: int = 8501,
) -> None:
    """Machine to app in one command: train, evaluate, probe, intervene, find circuits, report, serve.

    Args:
        out: the run folder; what it already holds is reused.
        preset: which named run to train.
        fresh: start over.
        app: serve the app at the end (--no-app: stop before).
        port: where to serve it, on 127.0.0.1.
    """
    from interp.demo import run_demo

    run_demo(out, preset=preset, fresh=fresh)
    if app:
        serve(out, port=port)


def report(run: RunPath) -> None:
    """Write RUN/report.html from the run's files."""
    from interp.report import write_report

    console.print(f"report in {write_report(load(run))}")


def app(run: RunPath = Path("checkpoints/quickstart"), *, port: int = 8501) -> None:
    """Serve the app for a run on 127.0.0.1.

    Args:
        run: the run folder.
        port: where to serve it.
    """
    require_next_state(load(run), "the app")
    serve(run, port=port)


def serve(run: Path, *, port: int) -> None:
    """Replace this process by the Streamlit server."""
    os.environ["TAPELENS_RUN"] = str(Path(run).resolve())
    arguments = ["--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"]
    console.print(f"serving {run} on http://127.0.0.1:{port}")
    os.execv(sys.executable, [sys.executable, "-m", "app", *arguments])
