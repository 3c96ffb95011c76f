"""The whole path, and looking at what it left: demo, report, app."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from interp.cli.arguments import RunPath, writes
from interp.cli.causal import CIRCUITS, PATCHED
from interp.cli.probing import PROBED
from interp.cli.training import TRAINED
from interp.console import say
from interp.runs import load

_HOST = "127.0.0.1"


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
        port: where to serve it, on 127.0.0.1 (0: where there is room).
    """
    writes(out, *TRAINED, *PROBED, *PATCHED, *CIRCUITS, "report.html")
    if app:
        free_port(port)
    from interp.demo import run_demo

    run_demo(out, preset=preset, fresh=fresh)
    if app:
        serve(out, port=port)


def report(run: RunPath) -> None:
    """Write RUN/report.html from the run's files."""
    opened = load(run)
    writes(opened.path, "report.html")
    from interp.report import write_report

    say(f"report in {write_report(opened)}")


def app(run: RunPath = Path("checkpoints/quickstart"), *, port: int = 8501) -> None:
    """Serve the app for a run on 127.0.0.1.

    Args:
        run: the run folder.
        port: where to serve it (0: where there is room).
    """
    opened = load(run)  # what cannot be opened is said before a server starts
    serve(opened.path, port=port)


def free_port(port: int) -> int:
    """The port if it can be served on; any that can, for 0.

    Raises:
        ValueError: no such port, or it is taken.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {port}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server: one that has just ended is no bar
        try:
            probe.bind((_HOST, port))
            probe.listen()
        except OSError as error:
            raise ValueError(
                f"cannot serve on port {port} ({(error.strerror or str(error)).lower()}); choose another with --port"
            ) from None
        return probe.getsockname()[1]


def serve(run: Path, *, port: int) -> None:
    """Replace this process by the Streamlit server.

    The app is the one beside this package, by its path: with `-m app`, Python would run an app.py of the folder that
    the command is called in; with -P, that folder is not searched for modules at all.
    """
    os.environ["TAPELENS_RUN"] = str(Path(run).resolve())
    port = free_port(port)
    start = Path(__file__).resolve().parents[2] / "app" / "__main__.py"
    arguments = [f"--server.address={_HOST}", f"--server.port={port}", "--server.headless=true"]
    say(f"serving {run} on http://{_HOST}:{port}")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", str(start), *arguments])
