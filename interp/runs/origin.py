"""Where a result comes from: versions, the machine that a time was taken on, and what every file of a run carries."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from interp.runs.run_config import RunConfig


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("tapelens", "torch", "transformer-lens", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def hardware() -> dict[str, Any]:
    """What a time was taken on: processor, cores that this process may use, and an accelerator that torch sees."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch = sys.modules.get("torch")  # whoever trains has imported it; the files of a run do not need it
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"processor": processor, "cores": cores, "gpu": gpu}


def provenance(config: RunConfig, **extra: Any) -> dict[str, Any]:
    """What every file of a run carries: versions, seed, the config's digest, and `extra`."""
    return {"versions": versions(), "seed": config.seed, "digest": config.digest, **extra}
