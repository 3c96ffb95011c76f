"""Sweeps on Ray, on a cluster of two nodes of this machine: workers, a node and the driver lost, and the same frame."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from sweep_cases import TINY, results, spec_values, toml, until

from interp.studies.sweep import orders_of, run_sweep
from interp.studies.sweep_gather import gather
from interp.studies.sweep_pool import Ended
from interp.studies.sweep_ray import RayPool, has_ray
from interp.studies.sweep_spec import Resources, spec_from
from interp.studies.sweep_state import TOKEN, read_attempts, read_state
from interp.studies.sweep_work import work

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(not has_ray(), reason="Ray is not installed: it comes with the extra sweep"),
]
STEPS = 600
# Started by a process of its own, so that what Ray reads of the environment when it is imported is set.
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
second = cluster.add_node(**node)
print(cluster.address, second.all_processes["raylet"][0].process.pid, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print("removed", flush=True)
sys.stdin.readline()
cluster.shutdown()
"""


class Nodes:
    """A cluster of two nodes with a processor each, behind a token, on 127.0.0.1."""

    def __init__(self, folder: Path, short: str):
        token = folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.environment = os.environ | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": short,
            "HOME": str(folder),
            "PYTHONPATH": os.pathsep.join([str(TINY.parents[1]), os.environ.get("PYTHONPATH", "")]),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "cluster.log").open("w"),
            text=True,
            env=self.environment,
        )
        assert self.process.stdout is not None
        told = self.process.stdout.readline().split()
        assert len(told) == 2, (folder / "cluster.log").read_text()[-2000:]
        self.address, self.second = told[0], int(told[1])

    def is_on_second(self, pid: int) -> bool:
        """Whether a process is one of the second node's."""
        try:
            return self.second in [parent.pid for parent in psutil.Process(pid).parents()]
        except psutil.NoSuchProcess:
            return False

    def go_on(self) -> None:
        """Remove the second node; then, the whole cluster."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # names of sockets are short
        made = Nodes(tmp_path, short)
        yield made
        made.close()


class Here:
    """A pool of this very process, for the frame that the others are held against."""

    slots = 1

    def __init__(self) -> None:
        self.ended: list[Ended] = []

    def submit(self, order: Any) -> None:
        self.ended.append(Ended(order["name"], work(order)))

    def wait(self, seconds: float) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        pass


@pytest.mark.long  # two minutes; three shorter ones stay
def test_a_lost_worker_a_lost_driver_and_a_lost_node_change_nothing(nodes: Nodes, tmp_path: Path) -> None:
    file, out, names = tmp_path / "s.toml", tmp_path / "out", ("trace_gru_s0", "trace_gru_s1")
    file.write_text(toml(spec_values(steps=STEPS)))
    asked = [sys.executable, "-m", "interp", "sweep", str(file), "--out", str(out), "--address", nodes.address]

    def drive() -> subprocess.Popen[str]:
        return subprocess.Popen(asked, env=nodes.environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    earlier: set[int] = set()

    def at_work(name: str, *, past: int = -1) -> int:
        """A process that trains the run, and is none of `earlier`."""
        state = read_state(out, name)
        moved = state.get("stage") == "train" and state.get("done", 0) > past and state["pid"] not in earlier
        return state["pid"] if moved else 0

    def reason(name: str) -> str:
        """Why the last attempt at a run ended."""
        return (read_attempts(out, name) or [{"reason": ""}])[-1]["reason"]

    driver = drive()
    try:
        until(lambda: all(map(at_work, names)), seconds=200, what="training both runs")
        pids = [at_work(name) for name in names]
        on_second = [name for name, pid in zip(names, pids, strict=True) if nodes.is_on_second(pid)]
        assert len(on_second) == 1
        (there,), (here,) = on_second, [name for name in names if name not in on_second]
        os.kill(pids[names.index(here)], signal.SIGKILL)
        nodes.go_on()
        assert until(lambda: reason(here), seconds=60, what="noted").startswith("WorkerCrashedError")
        lost = until(lambda: reason(there), seconds=120, what="noted")
        assert re.match(r"\w+Error\b", lost), lost  # as Ray finds out first: that the node, or that the worker, is gone
        earlier |= set(pids)
        again = until(lambda: next((name for name in names if at_work(name, past=10)), ""),
                      seconds=200, what="taken up again")  # fmt: skip
    finally:
        driver.kill()
        driver.wait()
    driver = drive()
    try:
        _, told = driver.communicate(timeout=300)
        assert driver.returncode == 0, told
    finally:
        driver.kill()
    assert reason(again) == "the sweep was stopped"

    spec = replace(spec_from(spec_values(steps=STEPS), name="s"), out=tmp_path / "undisturbed")
    orders = orders_of(spec)
    assert run_sweep(spec, orders, Here).finished == set(orders)
    gather(spec.out, orders)
    pd.testing.assert_frame_equal(results(out), results(spec.out), check_exact=True)
    assert not list((tmp_path / ".ray").rglob("*")) and not (out / TOKEN).exists()


OWN = """
import json, os, stat, sys
from pathlib import Path
import psutil
from interp.studies.sweep_ray import RayPool
from interp.studies.sweep_spec import Resources
out = Path(sys.argv[1])
pool = RayPool(out, Resources(), cpus=1)
token = out / ".ray_token"
mine = [os.getpid(), *(each.pid for each in psutil.Process().children(recursive=True))]
open_ones = [each for pid in mine for each in psutil.Process(pid).net_connections("tcp")]
listening = sorted({each.laddr.ip for each in open_ones if each.status == "LISTEN"})
told = {"mode": stat.S_IMODE(token.stat().st_mode), "listening": listening, "slots": pool.slots}
folder = pool._folder
pool.submit({"out": str(out), "name": "a", "threads": 0})
ended = []
while not ended:
    ended = pool.wait(1.0)
told["answer"] = ended[0].result["state"]
pool.close()
told |= {"token": token.exists(), "folder": folder.exists(), "set": [name for name in os.environ if "AUTH" in name]}
print(json.dumps(told))
"""


def test_a_cluster_of_our_own_is_closed_to_others_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(home), "PYTHONPATH": str(TINY.parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", OWN, str(tmp_path / "out")], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["mode"] == stat.S_IRUSR | stat.S_IWUSR
    assert {each.removeprefix("::ffff:") for each in told["listening"]} == {"127.0.0.1"}
    assert told["slots"] == 1 and told["answer"] == "failed"  # no threads: refused by the worker, and told
    assert not told["set"] and not told["token"] and not told["folder"] and not list(home.rglob("*"))


def test_no_cluster_at_an_address_is_one_sentence(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom interp.cli import main\n"
        f"main(['sweep', {str(TINY)!r}, '--out', {str(tmp_path / 'out')!r}, '--address', '127.0.0.1:1'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(TINY.parents[1])},
    )
    assert done.returncode == 1 and "no Ray cluster to work on at 127.0.0.1:1" in done.stderr.splitlines()[-1]


def test_without_ray_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.studies.sweep_ray.has_ray", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'tapelens\[sweep\]'"):
        RayPool(tmp_path, Resources())


@pytest.mark.long
def test_the_small_example_has_one_frame_with_and_without_ray(tmp_path: Path) -> None:
    frames = []
    for pool in ("processes", "ray"):
        out = tmp_path / pool
        asked = [sys.executable, "-m", "interp", "sweep", str(TINY.with_name("sweep_small.toml")), "--out", str(out)]
        done = subprocess.run([*asked, "--pool", pool], capture_output=True, text=True, timeout=3600)
        assert done.returncode == 0, done.stderr[-2000:]
        frames.append(results(out))
    pd.testing.assert_frame_equal(*frames, check_exact=True)
    assert {"exact_match", "accuracy", "iia", "faithfulness"} <= set(frames[0]["metric"])
