"""Labelled records on the disk: how a folder of them is opened. `docs/data.md` is the schema, for other readers.

A folder holds shards `00000.npy`, `00001.npy`, … (plain NumPy files of a structured
dtype, a record beside a record) and `index.json`, which says what they hold and carries their checksums.
"""

from __future__ import annotations

import json
import mmap
import operator
import os
import shlex
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm.arguments import check_unmasked
from cython_vm.codec import decode_named
from cython_vm.labelling import record_dtype
from cython_vm.spec import MachineSpec
from cython_vm.states import States

FORMAT = "tapelens-records"
VERSION = 1
INDEX = "index.json"
_PIECE = 1 << 24  # bytes read at a time for a checksum
_REMEDY = "delete it and run the tapelens sample that wrote the folder again"

Progress = Callable[[int, int], None]  # (done, total)


class Records:
    """The records of a folder, memory-mapped: `records[i]`, `records[10:20]`, `records[[5, 3]]` give structured arrays.

    Cheap to pickle (the path travels, not the data), so that worker processes can share it. Fields: see `dtype`.

    verify: read every shard once and compare its checksum. Without it names, sizes and headers are checked all the
    same. `progress` is told (bytes read, bytes in all).

    Raises FileNotFoundError for a missing folder, index or shard, ValueError naming the file that is truncated,
    damaged or foreign, and ValueError where the writing was interrupted.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True, progress: Progress | None = None):
        try:
            self.path = Path(path)
        except TypeError:
            raise TypeError(f"path must be that of a folder of records, got {path!r}") from None
        self.index = read_index(self.path)
        try:
            self.spec = MachineSpec(**self.index["spec"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.path / INDEX} describes no machine of this version ({error})") from None
        self.dtype = record_dtype(self.spec)
        missing = n_shards(self.index) - len(self.index["shards"])
        if missing:
            raise ValueError(
                f"{self.path} lacks {missing} of {n_shards(self.index)} shards: its writing was interrupted; "
                "run the same tapelens sample again to write the rest"
            )
        for shard in self.index["shards"]:
            check_size(self.path, shard)
        if verify:
            self.verify(progress=progress)
        self._maps: dict[tuple[int, bool], NDArray[np.void]] = {}

    def verify(self, *, progress: Progress | None = None) -> None:
        """Compare the checksum of every shard. Raises ValueError naming the first that is damaged or foreign."""
        total, done = sum(shard["bytes"] for shard in self.index["shards"]), 0
        for shard in self.index["shards"]:
            found = file_crc32(self.path / shard["file"])
            if found != shard["crc32"]:
                raise ValueError(
                    f"{self.path / shard['file']} has checksum {found}, {INDEX} says {shard['crc32']}: it is damaged "
                    f"or belongs to other data; {_REMEDY}"
                )
            done += shard["bytes"]
            if progress is not None:
                progress(done, total)

    def __len__(self) -> int:
        return self.index["n"]

    def __getitem__(self, rows: int | slice | ArrayLike) -> Any:
        """An integer gives one record, a slice or an array of integers a new structured array, in that order."""
        numbers, scattered = self._numbers(rows), not isinstance(rows, slice)
        shards, offsets = np.divmod(numbers, self.index["shard_rows"])
        if numbers.ndim == 0:
            return self._map(int(shards), scattered)[int(offsets)].copy()
        found = np.empty(len(numbers), self.dtype)
        for shard in np.unique(shards):
            where = shards == shard
            found[where] = self._map(int(shard), scattered)[offsets[where]]
        return found

    def _numbers(self, rows: int | slice | ArrayLike) -> NDArray[np.int64]:
        """The numbers of the records asked for, from 0, int64 [] or [n]."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        numbers = np.asarray(rows)
        if numbers.size == 0:
            numbers = numbers.astype(np.int64)
        check_unmasked("rows", rows)
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise TypeError(
                "records are indexed by an integer, a slice or a one-dimensional array of integers, "
                f"got {numbers.dtype} {list(numbers.shape)}"
            )
        outside = (numbers < -len(self)) | (numbers >= len(self))
        if np.any(outside):
            raise IndexError(f"record {np.atleast_1d(numbers[outside])[0]} of {len(self)}")
        numbers = numbers.astype(np.int64)  # before anything is added: small integers would overflow
        return np.where(numbers < 0, numbers + len(self), numbers)

    def shard(self, number: int) -> NDArray[np.void]:
        """The records of one shard, [rows], a read-only memory map; for reading all of them in order."""
        return self._map(number, False)

    def _map(self, number: int, scattered: bool) -> NDArray[np.void]:
        """A map of one shard; for scattered rows the system is told not to read what lies beside them."""
        if (number, scattered) not in self._maps:
            entry = self.index["shards"][number]
            file = self.path / entry["file"]
            try:
                records = np.load(file, mmap_mode="r", allow_pickle=False)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{file} is no shard of records ({error}); {_REMEDY}") from None
            if records.dtype != self.dtype or records.shape != (entry["rows"],):
                raise ValueError(
                    f"{file} should hold [{entry['rows']}] records of {self.dtype.itemsize} bytes, got "
                    f"{list(records.shape)} of {records.dtype.itemsize}: it belongs to other data; {_REMEDY}"
                )
            if scattered and isinstance(records.base, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
                records.base.madvise(mmap.MADV_RANDOM)
            self._maps[number, scattered] = records
        return self._maps[number, scattered]

    def shards(self) -> Iterator[tuple[int, NDArray[np.void]]]:
        """(its first row, its records, a memory map) of every shard in order: for reading everything once."""
        for number, entry in enumerate(self.index["shards"]):
            yield entry["start"], self.shard(number)

    def states(self, rows: int | slice | ArrayLike) -> tuple[States, States]:
        """(S_t, S_{t+1}) of these records, as the files say."""
        records, numbers = np.atleast_1d(self[rows]), np.atleast_1d(self._numbers(rows))
        before, after = (
            decode_named(self.spec, records[field], lambda row, name=name: f"{name} of record {numbers[row]}")
            for field, name in (("state", "S_t"), ("next_state", "S_{t+1}"))
        )
        return before, after

    def column(self, name: str) -> NDArray[Any]:
        """One field of every record, [n, …], in memory; reads all shards."""
        if name not in (self.dtype.names or ()):
            raise ValueError(f"records have no field {name!r}; they have {', '.join(self.dtype.names or ())}")
        return np.concatenate([records[name] for _, records in self.shards()])

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path,)

    def __repr__(self) -> str:
        return f"Records({str(self.path)!r}, n={len(self)}, shards={n_shards(self.index)})"


def _reopen(path: Path) -> Records:
    return Records(path, verify=False)


def n_shards(index: dict[str, Any]) -> int:
    """How many shards the folder holds once it is whole."""
    return -(-index["n"] // index["shard_rows"])


def read_index(folder: Path) -> dict[str, Any]:
    """The contents of `index.json`, checked. Raises FileNotFoundError or ValueError naming the file."""
    file = folder / INDEX
    if not file.exists():
        make = shlex.join(["tapelens", "sample", str(folder)])
        raise FileNotFoundError(f"no records at {folder}: it has no {INDEX}; write some with: {make}")
    try:
        index = json.loads(file.read_text(encoding="utf-8"))
        found = (index.get("format"), index.get("version"))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not an index of records ({error})") from None
    if found != (FORMAT, VERSION):
        raise ValueError(
            f"{file} has format {found[0]!r} version {found[1]!r}; this reads {FORMAT!r} version {VERSION}"
        )
    if index.get("crc32") != index_crc32(index):
        raise ValueError(f"{file} is damaged or was edited: its contents do not have the checksum that it states")
    return index


def index_crc32(index: dict[str, Any]) -> str:
    """The checksum of an index: of its JSON with sorted keys and no spaces, the field `crc32` left out."""
    rest = {key: value for key, value in index.items() if key != "crc32"}
    return f"{zlib.crc32(json.dumps(rest, sort_keys=True, separators=(',', ':')).encode()):08x}"


def file_crc32(file: Path) -> str:
    """CRC-32 (as in zlib and PNG) of a whole file: 8 hexadecimal digits."""
    checksum = 0
    with open(file, "rb") as handle:
        while piece := handle.read(_PIECE):
            checksum = zlib.crc32(piece, checksum)
    return f"{checksum:08x}"


def check_size(folder: Path, shard: dict[str, Any]) -> None:
    """Raise FileNotFoundError or ValueError, naming the shard, unless it has the size that the index states."""
    file = folder / shard["file"]
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; run the tapelens sample that wrote the folder again")
    size = file.stat().st_size
    if size != shard["bytes"]:
        verb = "truncated" if size < shard["bytes"] else "foreign"
        raise ValueError(f"{file} is {verb}: it has {size:,} bytes, {INDEX} says {shard['bytes']:,}; {_REMEDY}")


def whole_number(name: str, value: int, *, low: int) -> int:
    """An integer of at least `low`; TypeError or ValueError naming it otherwise."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < low:
        raise ValueError(f"{name} must be at least {low}, got {number}")
    return number
