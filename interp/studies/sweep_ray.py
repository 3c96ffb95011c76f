"""Runs as tasks of Ray: on a cluster of this machine that lives as long as the sweep, or on one that is there.

A cluster of our own listens on 127.0.0.1 alone and asks for a token, which lies in the sweep's folder, readable by its
owner, for as long as the cluster lives. It has no dashboard, reports no usage, and keeps a small object store: orders
and answers are a few words; results lie in files. Written for Ray 2.60.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.studies.sweep_pool import Ended
from interp.studies.sweep_spec import Resources
from interp.studies.sweep_state import TOKEN

OBJECT_STORE = 80 * 2**20  # bytes; Ray takes no less than 75 MiB
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no gpus asked for: leave what torch sees as it is
}
_TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
_LOCAL = {
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for clusters that stay on the loopback address
}


def has_ray() -> bool:
    """Whether Ray is installed; it is not imported."""
    return importlib.util.find_spec("ray") is not None


class RayPool:
    """Orders as Ray tasks.

    Args:
        out: the sweep's folder, on a file system that every node mounts at the same place.
        resources: of each run.
        address: of a cluster that is there, HOST:PORT; None starts one on this machine.
        cpus: of a cluster that is started (None: as many as this machine has).

    Raises:
        ValueError: Ray is not installed, there is no cluster at the address, or no node has what a run needs.
    """

    def __init__(self, out: Path, resources: Resources, *, address: str | None = None, cpus: int | None = None):
        if not has_ray():
            raise ValueError("a sweep on Ray needs the extra: pip install 'tapelens[sweep]'; or give --pool processes")
        self._resources, self._token, self._folder = resources, None, None
        self._before = {name: os.environ.get(name) for name in (*_QUIET, *_LOCAL, _TOKEN_PATH)}
        os.environ.update(_QUIET)
        if address is None:
            self._token = _write_token(out)
            os.environ.update(_LOCAL | {_TOKEN_PATH: str(self._token)})
            self._folder = Path(tempfile.mkdtemp(prefix="tapelens-ray-"))  # short: sockets have short names
        self._ray: Any = importlib.import_module("ray")
        try:
            self._connect(address, cpus)
            if not self.slots:
                needs = f"{resources.cpus} cpus and {resources.gpus:g} gpus"
                raise ValueError(f"no node of the cluster has the {needs} that a run is to have")
        except BaseException:
            self._clean()
            raise
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
        self._task = self._ray.remote(**options)(_do)
        self._running: dict[Any, str] = {}

    def _connect(self, address: str | None, cpus: int | None) -> None:
        common: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address is not None:
            _require_listening(address)
            try:
                self._ray.init(address=address, **common)
            except (ConnectionError, RuntimeError) as error:
                first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ValueError(f"no Ray cluster to work on at {address}: {first}") from None
            return
        self._ray.init(
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            _temp_dir=str(self._folder),
            **common,
        )

    @property
    def slots(self) -> int:
        """From what the nodes have at this moment: they come and go. A run does not stretch over two of them."""
        asked, fit = self._resources, 0
        for there in (node["Resources"] for node in self._ray.nodes() if node["Alive"]):
            kinds = [("CPU", asked.cpus), *([("GPU", asked.gpus)] if asked.gpus else [])]
            fit += int(min(there.get(kind, 0) // each for kind, each in kinds))
        return fit

    def submit(self, order: Mapping[str, Any]) -> None:
        self._running[self._task.remote(dict(order))] = order["name"]

    def wait(self, seconds: float) -> list[Ended]:
        if not self._running:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._ended(task, self._running.pop(task)) for task in ready]

    def _ended(self, task: Any, name: str) -> Ended:
        try:
            return Ended(name, self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            words = str(error).strip().splitlines()
            return Ended(name, None, lost=f"{type(error).__name__}: {words[0] if words else ''}".strip())

    def close(self) -> None:
        for task in self._running:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing to cancel
                self._ray.cancel(task, force=True)
        self._running.clear()
        self._clean()

    def _clean(self) -> None:
        """Leave nothing: no process, no token, no folder, no variable in the environment."""
        self._ray.shutdown()
        if self._token is not None:
            self._token.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for name, value in self._before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _do(order: dict[str, Any]) -> dict[str, Any]:
    """A task: on the node that Ray chose."""
    from interp.studies.sweep_work import work

    return work(order)


def _require_listening(address: str) -> None:
    """Raise ValueError where nobody listens: Ray would end the process in its place. Names such as auto are Ray's."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"no Ray cluster to work on at {address}: {reason}") from None


def _write_token(out: Path) -> Path:
    """A new token in the sweep's folder, for its owner's eyes."""
    out.mkdir(parents=True, exist_ok=True)
    file = out.resolve() / TOKEN
    file.unlink(missing_ok=True)  # of a driver that was killed
    with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as handle:
        handle.write(secrets.token_hex(32))
    return file
