"""Training on records from disk: our shards, or a file of the original project.

The rule of the held-out programs holds here too: records of evaluation programs are counted and left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cython_vm import MachineSpec, Op, Outcome, Records, States, decode, program_hash, read_original
from cython_vm import step as machine_step
from interp.worlds.base import Split, in_split
from interp.worlds.machine.dataset import shuffled, split_rows

_PIECE = 1 << 24  # bytes hashed at a time
_SHAPE = (len(Op), len(Outcome), 2)


class TrainingRecords:
    """The records of a folder of shards or of `NAME.npy` that may be trained on.

    A file of the original's has no checksums, so each of its records is held against the machine. Its states are kept
    in memory, packed. Shards are memory-mapped, each checksum compared once; `progress` is told bytes read, and in all.

    Raises ValueError or FileNotFoundError as `Records` and `read_original` do, and where a record is not what the
    machine does, or where no record is left.
    """

    spec: MachineSpec
    digest: str  # 16 hex digits that identify the contents
    n: int  # records on the disk
    n_held_out: int  # of them left out: their programs belong to evaluation

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int, int], None] | None = None,
        split: Split = "train",
    ):
        self.path, self.split = Path(path), split
        self._records: Records | None = None
        if self.path.suffix == ".npy":
            self._open_original()
        else:
            self._open_shards(progress)
        self._by_stratum: tuple[NDArray[np.integer], NDArray[np.int64]] | None = None

    def _open_original(self) -> None:
        states, after = read_original(self.path)
        wrong = np.flatnonzero(~machine_step(states).next.equal(after))
        if len(wrong):
            raise ValueError(
                f"{self.path}: S_{{t+1}} of record {wrong[0]} is not what the machine makes of its S_t "
                f"({len(wrong):,} of {len(states):,} records)"
            )
        kept = in_split(program_hash(states), self.split)
        self.spec, self.n, self.digest = states.spec, len(states), _file_digest(self.path)
        self._states = states[kept]
        self._rows, self.n_kept = None, len(self._states)
        self.n_held_out = self.n - self.n_kept
        if not self.n_kept:
            raise ValueError(f"{self.path} has no records of training programs")

    def _open_shards(self, progress: Callable[[int, int], None] | None) -> None:
        self._records = records = Records(self.path, progress=progress)
        self._rows = split_rows(records, self.split)
        self.spec, self.n = records.spec, len(records)
        self.n_kept = self.n if self._rows is None else len(self._rows)
        self.n_held_out = self.n - self.n_kept
        self.digest = hashlib.sha256(json.dumps(records.index, sort_keys=True).encode()).hexdigest()[:16]

    def draw(
        self, step: int, batch_size: int, *, seed: int, weights: NDArray[np.float64] | None
    ) -> tuple[States, NDArray[np.integer]]:
        """S_t and the tokens of S_{t+1} of the batch of one optimizer step, a function of the arguments alone.

        Without weights every epoch goes through all records once, in an order of its own. With weights ([9, 8] or
        [9, 8, 2], see `sample`) a stratum is drawn for each row, then one of its records; strata that the data lacks
        leave their share to the others.
        """
        if weights is None:
            places = np.arange(step * batch_size, (step + 1) * batch_size)
            kept = np.empty(batch_size, dtype=np.int64)
            for epoch in np.unique(places // self.n_kept):
                own = places // self.n_kept == epoch
                kept[own] = shuffled(places[own] % self.n_kept, self.n_kept, seed=seed, epoch=int(epoch))
        else:
            kept = self._draw_weighted(np.random.default_rng([seed, step]), batch_size, weights)
        if self._records is None:
            states = self._states[kept]
            return states, machine_step(states).tokens()
        records = self._records[kept if self._rows is None else self._rows[kept]]
        return decode(self.spec, records["state"]), records["next_state"]

    def _draw_weighted(self, rng: np.random.Generator, size: int, weights: NDArray[np.float64]) -> NDArray[np.integer]:
        order, bounds = self._strata()
        counts = np.diff(bounds)
        table = weights if weights.ndim == 3 else weights[:, :, None] * _branch_shares(counts)
        shares = np.where(counts > 0, table.ravel(), 0)
        if not shares.sum() > 0:
            raise ValueError(f"{self.path} has no record of the strata that training asks for")
        cumulative = np.cumsum(shares) / shares.sum()
        stratum = np.minimum(np.searchsorted(cumulative, rng.random(size), side="right"), np.flatnonzero(shares)[-1])
        within = (rng.random(size) * counts[stratum]).astype(np.int64)
        return order[bounds[stratum] + within]

    def _strata(self) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
        """Kept records sorted by (op, outcome, branch), and where each of the 9 × 8 × 2 strata begins."""
        if self._by_stratum is None:
            if self._records is None:
                stratum = _stratum_of(machine_step(self._states).latents)
            else:
                stratum = np.concatenate([_stratum_of(shard) for _, shard in self._records.shards()])
                stratum = stratum if self._rows is None else stratum[self._rows]
            order = np.argsort(stratum, kind="stable").astype(np.uint32 if self.n < 2**32 else np.int64)
            bounds = np.concatenate([[0], np.cumsum(np.bincount(stratum, minlength=int(np.prod(_SHAPE))))])
            self._by_stratum = order, bounds
        return self._by_stratum


def _stratum_of(latents: Mapping[str, NDArray[np.int16]] | NDArray[np.void]) -> NDArray[np.uint8]:
    """The number of each record's (op, outcome, branch), [n]; records without a branch count as not taken."""
    parts = latents["op"], latents["outcome"], np.maximum(latents["branch_taken"], 0)
    return np.ravel_multi_index(parts, _SHAPE).astype(np.uint8)


def _branch_shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Inside op × outcome, branches keep the shares that the data gives them: [9, 8, 2]."""
    table = counts.reshape(_SHAPE)
    return table / np.maximum(1, table.sum(axis=2, keepdims=True))


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()[:16]
