"""Writing labelled records to a folder of shards, in constant memory; what an interruption leaves is whole shards.

A shard is written under a temporary name, flushed to the disk and renamed; only then does `index.json`, replaced the
same way, list it with its size and checksum. The same call again keeps the shards that are whole and writes the rest.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from cython_vm._isa import Op, Outcome
from cython_vm._machine import STEP_NAMES
from cython_vm.arguments import check_kind, numbers
from cython_vm.labelling import record_dtype, sample_records
from cython_vm.records import (
    FORMAT,
    INDEX,
    VERSION,
    Progress,
    Records,
    check_size,
    file_crc32,
    index_crc32,
    n_shards,
    read_index,
    whole_number,
)
from cython_vm.spec import MachineSpec
from cython_vm.variables import variable

_MAX_SHARDS = 10_000
_CHUNK = 8192  # records made at a time: about 1.5 MB at the default sizes
_SAMPLED = 256  # records that tell whether this version of the machine draws the same rows

_MEANINGS = {
    "program_hash": "fixed hash of the program; the program belongs to evaluation exactly when it is 0 modulo 20",
    "state": "tokens of S_t, one a position; ids index vocab, positions have names",
    "next_state": "tokens of S_{t+1}",
}


def write_shards(
    folder: str | os.PathLike[str],
    spec: MachineSpec,
    n: int,
    *,
    seed: int,
    start: int = 0,
    split: str = "all",
    weights: ArrayLike | None = None,
    shard_rows: int = 1_000_000,
    threads: int = 1,
    progress: Progress | None = None,
) -> Records:
    """Write rows start … start + n − 1 of the stream of `seed` (see `sample`) as labelled records; open the result.

    The bytes depend on the arguments alone, not on `threads`. `progress` is told (records done, n). A folder that
    already holds some of these shards keeps them if their checksums are right.

    Raises ValueError on bad arguments, and where the folder holds other data or files that are none of ours.
    """
    check_kind("spec", spec, MachineSpec)
    try:
        folder = Path(folder)
    except TypeError:
        raise TypeError(f"folder must be a path, got {folder!r}") from None
    n, shard_rows = whole_number("n", n, low=1), whole_number("shard_rows", shard_rows, low=1)
    seed, start = whole_number("seed", seed, low=0), whole_number("start", start, low=0)
    threads = whole_number("threads", threads, low=1)
    if -(-n // shard_rows) > _MAX_SHARDS:
        raise ValueError(
            f"n = {n} records in shards of {shard_rows} make more than {_MAX_SHARDS} files; use larger shards"
        )
    if weights is not None:
        weights = numbers("weights", weights)
    draw = {"seed": seed, "split": split, "weights": None if weights is None else np.asarray(weights).tolist()}
    index = _header(spec, n, start=start, shard_rows=shard_rows, draw=draw)
    whole = _whole_shards(folder, index)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(threads) as pool:
        for number in range(n_shards(index)):
            first, name = number * shard_rows, f"{number:05d}.npy"
            rows = min(shard_rows, n - first)
            if name in whole:
                index["shards"].append(whole[name])
                continue
            _write_index(folder, index)
            header = _npy_header(spec, rows)
            size, checksum = len(header), zlib.crc32(header)
            with whole_file(folder / name) as file:
                file.write(header)
                for piece in _pieces(spec, rows, start + first, draw, pool, threads):
                    file.write(piece)
                    size, checksum = size + len(piece), zlib.crc32(piece, checksum)
                    if progress is not None:
                        progress(first + (size - len(header)) // index["record_bytes"], n)
            entry = {"file": name, "start": first, "rows": rows, "bytes": size, "crc32": f"{checksum:08x}"}
            index["shards"].append(entry)
    _write_index(folder, index)
    return Records(folder, verify=False)


def _header(spec: MachineSpec, n: int, *, start: int, shard_rows: int, draw: dict[str, Any]) -> dict[str, Any]:
    """An index without shards. Drawing its first records also checks the arguments before any file is made."""
    first = sample_records(spec, min(n, _SAMPLED), start=start, **draw)
    dtype = record_dtype(spec)
    meanings = _MEANINGS | {name: variable(spec, name).equation.replace("undefined", "−1") for name in STEP_NAMES}
    fields = {
        name: {"dtype": field[0].base.str, "shape": list(field[0].shape), "offset": field[1], "meaning": meanings[name]}
        for name, field in (dtype.fields or {}).items()
    }
    return {
        "format": FORMAT,
        "version": VERSION,
        "n": n,
        "shard_rows": shard_rows,
        "record_bytes": dtype.itemsize,
        "spec": asdict(spec),
        **draw,
        "start": start,
        "first_records_crc32": f"{zlib.crc32(first.tobytes()):08x}",
        "fields": fields,
        "vocab": list(spec.vocab),
        "positions": list(spec.layout.names),
        "ops": [op.name for op in Op],
        "outcomes": [outcome.name for outcome in Outcome],
        "shards": [],
    }


def _whole_shards(folder: Path, index: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The entries of shards that an earlier call left whole, by file name."""
    if not (folder / INDEX).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ValueError(f"{folder} exists and is no folder of records; choose another, or empty it")
        return {}
    found = read_index(folder)
    same = json.loads(json.dumps(index))
    differ = [key for key in same if key != "shards" and found.get(key) != same[key]]
    if differ:
        raise ValueError(
            f"{folder} holds other records: {', '.join(differ)} differ{'s' * (len(differ) == 1)}; choose another folder"
        )
    whole = {}
    for shard in found["shards"]:
        try:
            check_size(folder, shard)
        except (OSError, ValueError):
            continue
        if file_crc32(folder / shard["file"]) == shard["crc32"]:
            whole[shard["file"]] = shard
    return whole


def _npy_header(spec: MachineSpec, rows: int) -> bytes:
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(record_dtype(spec)), "fortran_order": False, "shape": (rows,)}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()


def _pieces(
    spec: MachineSpec, rows: int, start: int, draw: dict[str, Any], pool: ThreadPoolExecutor, threads: int
) -> Iterator[memoryview]:
    """The bytes of one shard's records, in order, a few pieces made ahead."""

    def make(offset: int) -> memoryview:
        size = min(_CHUNK, rows - offset)
        return sample_records(spec, size, start=start + offset, **draw).view(np.uint8).data

    ahead: deque[Future[memoryview]] = deque()
    for offset in range(0, rows, _CHUNK):
        ahead.append(pool.submit(make, offset))
        if len(ahead) > 2 * threads:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    stated = index | {"crc32": index_crc32(index)}
    with whole_file(folder / INDEX) as file:
        file.write((json.dumps(stated, indent=1) + "\n").encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name complete and on the disk, or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _flush_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _flush_folder(folder: Path) -> None:
    """Put a rename on the disk, where folders can be flushed."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
