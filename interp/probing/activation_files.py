"""Activations of many sites in files, so that memory holds those of one site at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Key = tuple[str, ...]  # whose activations, where


class ActivationFiles:
    """One file of float32 rows a key in `folder`, appended to batch by batch and read back whole."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[Key, tuple[Path, int]] = {}

    def append(self, key: Key, x: Tensor) -> None:
        """Add rows x [m, d]."""
        rows = x.float().cpu().numpy()
        path, _ = self._known.setdefault(key, (self._folder / f"{len(self._known)}.float32", rows.shape[1]))
        with open(path, "ab") as file:
            rows.tofile(file)

    def read(self, key: Key) -> Tensor:
        """All rows so far, float32 [n, d]."""
        path, width = self._known[key]
        return torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, width))
