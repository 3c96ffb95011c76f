"""What the verbs share of reading arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

RunPath = Annotated[Path, tyro.conf.Positional]


def at_least(option: str, value: int, least: int) -> None:
    """Refuse a count below the least that makes sense."""
    if value < least:
        raise ValueError(f"{option} must be at least {least}, got {value}")


def use_threads(count: int) -> None:
    """Let PyTorch compute with so many threads."""
    import torch

    at_least("--threads", count, 1)
    torch.set_num_threads(count)
