"""What the verbs share of reading arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from interp.files import require_file, require_folder

RunPath = Annotated[Path, tyro.conf.Positional]


def at_least(option: str, value: int, least: int) -> None:
    """Refuse a count below the least that makes sense."""
    if value < least:
        raise ValueError(f"{option} must be at least {least}, got {value}")


def writes(folder: Path, *names: str) -> None:
    """Refuse, before the work, a folder that a verb could not leave its files in.

    Args:
        folder: there, or to be made.
        names: what will be written into it; those that end in / are folders.

    Raises:
        OSError: the sentence says what is in the way.
    """
    require_folder(folder)
    for name in names:
        (require_folder if name.endswith("/") else require_file)(folder / name)


def use_threads(count: int) -> None:
    """Let PyTorch compute with so many threads."""
    import torch

    at_least("--threads", count, 1)
    torch.set_num_threads(count)
