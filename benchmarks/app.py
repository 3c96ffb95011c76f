"""What the app costs until its first view stands: processor time of the server, from its start.

Row `app_first_view`: the bundled run's first page, from the command `tapelens app` on. The peer is a Streamlit app of
one sentence, served the same way. The visit is one over Streamlit's own protocol, without a browser: it ends when the
server says that the page is drawn; the model loads behind it, which is not counted.
Row `app_first_view_limit`: the same against the 3 seconds that a person may be kept waiting.
"""

from __future__ import annotations

import logging
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 3.0  # seconds of processor time
_PATIENCE = 120.0  # seconds; on a busy machine
logger = logging.getLogger(__name__)


def rows(*, repeats: int = 3) -> list[dict[str, Any]]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio (above 1 = ours is better), unit."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.py"
        bare.write_text('import streamlit as st\n\nst.write("One sentence.")\n')
        command = {"ours": app_command(), "peer": bare_command(bare)}
        times: dict[str, list[float]] = {name: [] for name in command}
        for again in range(repeats):
            for name, words in command.items():
                times[name].append(first_view(words))
                logger.info("%s, %d of %d: %.2f s", name, again + 1, repeats, times[name][-1])
    ours, peer = (statistics.median(times[name]) for name in ("ours", "peer"))
    row = {"name": "app_first_view", "ours": ours, "unit": "s of processor time"}
    return [
        {**row, "peer": peer, "peer_name": "a bare Streamlit app", "ratio": peer / ours},
        {**row, "name": "app_first_view_limit", "peer": LIMIT, "peer_name": "the limit", "ratio": LIMIT / ours},
    ]


def app_command(run: Path = ROOT / "checkpoints" / "quickstart") -> list[str]:
    """Serve the app for a run, at the port that takes the place of PORT."""
    return [sys.executable, "-c", "from interp.cli import main; main()", "app", str(run), "--port=PORT"]


def bare_command(script: Path) -> list[str]:
    """Serve a script with Streamlit, at the port that takes the place of PORT."""
    options = ["--server.headless=true", "--server.address=127.0.0.1", "--browser.gatherUsageStats=false"]
    return [sys.executable, "-m", "streamlit", "run", str(script), *options, "--server.port=PORT"]


def first_view(command: Sequence[str]) -> float:
    """Processor seconds that a server has used when its first page is drawn for its first visitor.

    command: how it is started, with PORT where the port goes.

    Raises:
        RuntimeError: it ended, or drew nothing in time.
    """
    port = free_port()
    words = [word.replace("PORT", str(port)) for word in command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = _processor_time()
    server = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_for_server(server, port)
        visit(port)
    finally:
        server.kill()
        server.communicate()
    return _processor_time() - before


def wait_for_server(server: subprocess.Popen[bytes], port: int) -> None:
    """Until it answers. Raises RuntimeError where it has ended, or does not in time."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended: {server.communicate()[1].decode()[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not answer within {_PATIENCE:.0f} s") from None
            time.sleep(0.05)


def visit(port: int, *, query: str = "") -> list[str]:
    """Open the first page as a browser does, and wait until the server says that it is drawn.

    Returns:
        The text of every Markdown element and caption of the page, as it was sent.
    """
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect
    from websockets.typing import Subprotocol

    told: list[str] = []
    deadline = time.monotonic() + _PATIENCE
    with connect(
        f"ws://127.0.0.1:{port}/_stcore/stream",
        subprotocols=[Subprotocol("streamlit")],
        max_size=None,
        proxy=None,  # type: ignore
    ) as line:
        ask = BackMsg()
        ask.rerun_script.query_string = query
        line.send(ask.SerializeToString())
        while time.monotonic() < deadline:
            message = ForwardMsg.FromString(line.recv(timeout=_PATIENCE))  # type: ignore[arg-type]
            element = message.delta.new_element
            if element.HasField("markdown"):
                told.append(element.markdown.body)
            if element.HasField("exception"):
                raise RuntimeError(f"the page could not be drawn: {element.exception.message}")
            if message.WhichOneof("type") == "script_finished":
                return told
    raise RuntimeError(f"the page was not drawn within {_PATIENCE:.0f} s")


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _processor_time() -> float:
    """Seconds that all children of this process that have ended took from the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
