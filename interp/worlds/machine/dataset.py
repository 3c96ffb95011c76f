"""Labelled records from disk for PyTorch: a dataset, and a loader whose random order survives any interruption.

The order of an epoch is a pseudo-random permutation that is computed, not stored: a Feistel network on the bits of the
row number (Luby & Rackoff 1988), walked until it falls below n (Black & Rogaway 2002). So a hundred million rows cost
no memory, and what is left after k batches is known from (seed, epoch, k) alone, whatever the number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cython_vm import Records, in_split

_ROUNDS = 8
_ORDERED_AT_ONCE = 8192  # rows whose places are computed together
_STATE = ("n", "batch_size", "drop_last", "seed", "epoch", "batch")


class RecordDataset(Dataset[dict[str, Tensor]]):
    """A folder of labelled records as a map-style dataset of named tensors, read through a memory map.

    `dataset[i]` is one record: `state` and `next_state`, long [state_length], and a scalar for every variable of the
    step (−1 = undefined). `dataset[[5, 3]]` is a batch of them. It pickles as its path, so workers share the files.

    split: by `program_hash % 20`: "evaluation" (0), "validation" (1), "fit" (the others), "train" (all but evaluation).
    fields: which fields to read (default: all but `program_hash`).
    verify: compare every shard's checksum when opening.

    Raises what `Records` raises, and ValueError on an unknown field or split, or a split without records.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: Literal["all", "train", "evaluation", "validation", "fit"] = "all",
        fields: Sequence[str] | None = None,
        verify: bool = True,
    ):
        self.records = Records(path, verify=verify)
        names = self.records.dtype.names or ()
        self.fields = tuple(name for name in names if name != "program_hash") if fields is None else tuple(fields)
        if unknown := [name for name in self.fields if name not in names]:
            raise ValueError(f"records have no field {unknown[0]!r}; they have {', '.join(names)}")
        self.rows = split_rows(self.records, split)

    @property
    def spec(self):
        """The machine."""
        return self.records.spec

    def __len__(self) -> int:
        return len(self.records) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int | ArrayLike) -> dict[str, Tensor]:
        return self.tensors(self.read(index))

    def read(self, index: int | ArrayLike) -> NDArray[np.void]:
        """The records themselves, a structured array."""
        return self.records[index if self.rows is None else self.rows[np.asarray(index)]]

    def tensors(self, records: NDArray[np.void]) -> dict[str, Tensor]:
        """The dataset's fields of some records as tensors."""
        return {name: torch.from_numpy(np.asarray(records[name]).astype(np.int64)) for name in self.fields}


class _Unconverted(Dataset[NDArray[np.void]]):
    """What workers send: one structured array a batch travels much faster than a tensor for every field."""

    def __init__(self, dataset: RecordDataset):
        self.dataset = dataset

    def __getitem__(self, index: Any) -> NDArray[np.void]:
        return self.dataset.read(index)


def _as_it_is(records: Any) -> Any:
    return records


def split_rows(records: Records, split: str) -> NDArray[np.integer] | None:
    """The rows of one split, or None for every row. Raises ValueError on an unknown split or one without records."""
    in_split(np.zeros(0, dtype=np.uint64), split)  # complains about a split that there is not
    if split == "all":
        return None
    number = np.uint32 if len(records) < 2**32 else np.int64
    parts = []
    for start, shard in records.shards():
        own = np.flatnonzero(in_split(shard["program_hash"], split))
        parts.append((own + start).astype(number))
    rows = np.concatenate(parts)
    if not len(rows):
        raise ValueError(f"{records.path} has no records of the split {split!r}")
    return None if len(rows) == len(records) else rows


class ShuffledBatches(Sampler[NDArray[np.int64]]):
    """The row numbers of the batches of one epoch, from `first_batch` on, in the order of (seed, epoch).

    For `DataLoader(dataset, sampler=ShuffledBatches(…), batch_size=None)`: the dataset is asked for whole batches.
    """

    def __init__(
        self, n: int, batch_size: int, *, seed: int = 0, epoch: int = 0, first_batch: int = 0, drop_last: bool = False
    ):
        for name, value in {"n": n, "batch_size": batch_size}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.n, self.batch_size, self.seed, self.epoch, self.first_batch = n, batch_size, seed, epoch, first_batch
        self.n_batches = n // batch_size if drop_last else -(-n // batch_size)
        if not self.n_batches:
            raise ValueError(f"drop_last leaves no batch: {n} records are less than a batch of {batch_size}")

    def __len__(self) -> int:
        return max(0, self.n_batches - self.first_batch)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        at_once = max(1, _ORDERED_AT_ONCE // self.batch_size)
        for batch in range(self.first_batch, self.n_batches, at_once):
            last = min(self.n_batches, batch + at_once)
            places = np.arange(batch * self.batch_size, min(self.n, last * self.batch_size))
            rows = shuffled(places, self.n, seed=self.seed, epoch=self.epoch)
            yield from (rows[k * self.batch_size : (k + 1) * self.batch_size] for k in range(last - batch))


class ShuffledLoader:
    """Batches of records in a random order, read by workers, resumable after any batch.

    Iterating gives the rest of the current epoch; the epoch after it begins once this one is through. `state_dict()`
    (JSON-ready; the batches given so far count as done) and `load_state_dict()` carry the place to another process,
    with any number of workers. When a worker dies, PyTorch raises RuntimeError; iterating again goes on with exactly
    the batches that were not given. The global random generator is left alone.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        batch_size: int,
        *,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        multiprocessing_context: str | None = None,
    ):
        self.dataset, self.batch_size, self.seed, self.drop_last = dataset, batch_size, seed, drop_last
        self.num_workers, self.multiprocessing_context = num_workers, multiprocessing_context
        self.epoch = 0
        self.batch = 0  # batches of this epoch that were given
        self.n = len(dataset)
        self.n_batches = self._batches().n_batches

    def _batches(self) -> ShuffledBatches:
        return ShuffledBatches(
            self.n,
            self.batch_size,
            seed=self.seed,
            epoch=self.epoch,
            first_batch=self.batch,
            drop_last=self.drop_last,
        )

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.n_batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        if self.batch == self.n_batches:  # the state was taken after the last batch
            self.epoch, self.batch = self.epoch + 1, 0
        loader = DataLoader(
            _Unconverted(self.dataset),
            sampler=self._batches(),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            multiprocessing_context=self.multiprocessing_context if self.num_workers else None,
            generator=torch.Generator(),
        )
        for records in loader:
            self.batch += 1
            yield self.dataset.tensors(records)
        self.epoch, self.batch = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """Where the loader stands."""
        return {name: int(getattr(self, name)) for name in _STATE}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Stand where `state_dict` was taken. Raises ValueError where that was another order or another dataset."""
        if set(state) != set(_STATE):
            raise ValueError(f"a loader's state has {', '.join(_STATE)}, got {', '.join(map(str, state))}")
        for name in ("n", "batch_size", "drop_last", "seed"):
            if state[name] != getattr(self, name):
                raise ValueError(
                    f"the state was taken with {name} {state[name]}, this loader has {getattr(self, name)}"
                )
        if not (0 <= state["batch"] <= self.n_batches and state["epoch"] >= 0):
            raise ValueError(f"batch {state['batch']} of epoch {state['epoch']} is not among {self.n_batches} batches")
        self.epoch, self.batch = state["epoch"], state["batch"]


def shuffled(places: NDArray[np.integer], n: int, *, seed: int, epoch: int = 0) -> NDArray[np.int64]:
    """The rows at these places of the random order of 0 … n − 1 that belongs to (seed, epoch)."""
    keys = np.random.SeedSequence([seed, epoch]).generate_state(_ROUNDS, np.uint64)
    bits = max(2, (n - 1).bit_length())
    low_bits = np.uint64(bits // 2)
    low_mask = np.uint64((1 << bits // 2) - 1)
    high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    rows = places.astype(np.uint64)
    beyond = np.arange(len(rows))
    while len(beyond):
        high, low = rows[beyond] >> low_bits, rows[beyond] & low_mask
        for even, odd in zip(keys[::2], keys[1::2], strict=True):
            high = high ^ (_mixed(low ^ even) & high_mask)
            low = low ^ (_mixed(high ^ odd) & low_mask)
        rows[beyond] = high << low_bits | low
        beyond = beyond[rows[beyond] >= n]
    return rows.astype(np.int64)


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
