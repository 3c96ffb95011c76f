"""The first view stands within three seconds of processor time, and before it nothing heavy is imported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.app import LIMIT, app_command, bare_command, first_view, free_port, visit, wait_for_server

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformer_lens", "pandas", "sklearn", "scipy", "tyro", "interp.figures.template",
         "huggingface_hub", "interp.models.transformer", "interp.tasks.base", "interp.circuits"}  # fmt: skip


def test_the_first_view_stands_within_three_seconds_of_processor_time(run_folder: Path, tmp_path: Path) -> None:
    """From the command on. Where a bare Streamlit app takes its time, so may this one: 2.2 times as long."""
    ours = min(first_view(app_command(run_folder)) for _ in range(2))
    if ours >= LIMIT:
        bare = tmp_path / "bare.py"
        bare.write_text('import streamlit as st\n\nst.write("One sentence.")\n')
        peer = first_view(bare_command(bare))
        assert ours < 2.2 * peer, f"{ours:.2f} s to the first view, a bare Streamlit app takes {peer:.2f} s"


def test_nothing_heavy_is_imported_before_the_first_view(run_folder: Path, tmp_path: Path) -> None:
    """Streamlit itself imports plotly where it can; here it cannot, and nobody misses it."""
    told, port = tmp_path / "modules.json", free_port()
    script = (
        "import json, pathlib, runpy, signal, sys\n"
        "sys.modules.update({'plotly': None, 'plotly.graph_objs': None})\n"
        "def tell(*_): pathlib.Path(TOLD).write_text(json.dumps([n for n, m in sys.modules.items() if m]))\n"
        "signal.signal(signal.SIGUSR1, tell)\n"
        f"sys.argv = ['', '--server.headless=true', '--server.address=127.0.0.1', '--server.port={port}']\n"
        f"runpy.run_path({str(ROOT / 'app' / '__main__.py')!r}, run_name='__main__')\n"
    ).replace("TOLD", repr(str(told)))
    environment = {**os.environ, "TAPELENS_RUN": str(run_folder), "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-P", "-c", script], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_for_server(server, port)
        words = " ".join(visit(port))
        server.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 60
        while not told.exists() or not told.read_text():
            assert time.monotonic() < deadline, "the server did not tell its modules"
            time.sleep(0.05)
    finally:
        server.kill()
        server.communicate()
    assert "4 layers × 4 heads · step 1 of" in words and "is loading" in words  # the page, before the model
    imported = set(json.loads(told.read_text()))
    assert "app.machine_view" in imported and "streamlit" in imported
    assert not HEAVY & imported


def test_the_command_hands_over_before_anything_heavy_is_imported(run_folder: Path) -> None:
    script = (
        "import os, sys\n"
        "def tell(*_):\n"
        "    print(*sorted(sys.modules), file=sys.stderr)\n"
        "    raise SystemExit\n"
        "os.execv = tell\n"
        "from interp.cli import main\n"
        f"main(['app', {str(run_folder)!r}, '--port', '0'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    imported = set(done.stderr.split())
    assert "interp.cli.browsing" in imported, done.stderr[-2000:]
    assert not (HEAVY - {"tyro"} | {"streamlit", "plotly", "pyarrow"}) & imported


def test_every_bundled_run_is_read_without_anything_heavy() -> None:
    script = (
        "import pathlib, sys, interp\n"
        f"folders = pathlib.Path({str(ROOT / 'checkpoints')!r}).iterdir()\n"
        "runs = [interp.load(folder) for folder in folders if folder.is_dir()]\n"
        "print(len(runs), *sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    count, *imported = done.stdout.split()
    assert int(count) > 20 and not (HEAVY | {"plotly", "pyarrow", "rich"}) & {*imported}, done.stderr[-2000:]
