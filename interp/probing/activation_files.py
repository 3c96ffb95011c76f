"""Activations of many sites in files, so that memory holds those of one site at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.interventions import Site


class ActivationFiles:
    """One file of float32 rows a (name, site) in `folder`, appended to batch by batch and read back whole."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._known: dict[tuple[str, Site], tuple[Path, int]] = {}

    def append(self, name: str, site: Site, x: Tensor) -> None:
        """Add rows x [m, …]; what stands behind the first dimension is laid side by side."""
        rows = x.flatten(1).float().cpu().numpy()
        path, _ = self._known.setdefault((name, site), (self._folder / f"{len(self._known)}.float32", rows.shape[1]))
        with open(path, "ab") as file:
            rows.tofile(file)

    def read(self, name: str, site: Site) -> Tensor:
        """All rows so far, float32 [n, d]."""
        path, width = self._known[name, site]
        return torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, width))
