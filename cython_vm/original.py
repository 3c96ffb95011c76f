"""Files of the original C++ project: `NAME.npy`, int32 [n, 2 × state_length], beside `NAME.meta.json`.

Each record is S_t followed by S_{t+1}. The ids are ours; numbers are spelled `N_3` there and `NUM_3` here.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm.arguments import check_kind, check_room
from cython_vm.codec import decode_named, encode
from cython_vm.machine import step
from cython_vm.records import Progress, whole_number
from cython_vm.sampling import sample
from cython_vm.shards import whole_file
from cython_vm.spec import MachineSpec
from cython_vm.states import States

_CHUNK = 8192  # records read or written at a time
_PARAMS = {
    "N_I": "n_instructions",
    "N_A": "n_cells",
    "N_INPUT": "n_input",
    "N_OUTPUT": "n_output",
    "B": "bits",
    "IO_ALLOWED": "io",
    "LOOPS_ALLOWED": "loops",
    "STOPS_ALLOWED": "stops",
}


def read_original(path: str | os.PathLike[str]) -> tuple[States, States]:
    """(S_t, S_{t+1}) of every record of `NAME.npy`. The second is what the file says, not what the machine computes.

    Raises ValueError where the two files do not agree or a record is malformed, FileNotFoundError where one is missing.
    """
    array_path, meta_path = _paths(path)
    try:
        meta = json.loads(meta_path.read_text())
        spec = MachineSpec(**{name: meta["program_params"][key] for key, name in _PARAMS.items()})
        names = tuple(re.sub(r"^N_(\d+)$", r"NUM_\1", token) for token in meta["id_to_token"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{meta_path} does not describe a machine: {error!r}") from error
    if names != spec.vocab:
        raise ValueError(f"{meta_path} lists other tokens than this machine's vocabulary: {' '.join(spec.vocab)}")
    length = spec.state_length
    try:
        tokens = np.load(array_path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{array_path} is no whole array of tokens: {error}") from error
    if tokens.ndim != 2 or tokens.shape[1] != 2 * length:
        raise ValueError(f"{array_path} should hold [n, {2 * length}] tokens, got {list(tokens.shape)}")
    states = [_decode(array_path, spec, tokens, start) for start in range(0, max(1, len(tokens)), _CHUNK)]
    return States.concatenate([before for before, _ in states]), States.concatenate([after for _, after in states])


def _decode(path: Path, spec: MachineSpec, tokens: NDArray[Any], start: int) -> tuple[States, States]:
    """Both halves of one chunk of records; faults name the record of the file, and which half of it."""
    chunk, length = tokens[start : start + _CHUNK], spec.state_length
    halves = []
    for name, half in (("S_t", chunk[:, :length]), ("S_{t+1}", chunk[:, length:])):
        try:
            halves.append(decode_named(spec, half, lambda row, name=name: f"{name} of record {start + row}"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from None
    return halves[0], halves[1]


def write_original(path: str | os.PathLike[str], states: States) -> None:
    """Write S_t and S_{t+1} of every state as `NAME.npy` and `NAME.meta.json`, whole or not at all."""
    check_kind("states", states, States)
    batches = (states[start : start + _CHUNK] for start in range(0, len(states), _CHUNK))
    _write(path, states.spec, len(states), batches)


def sample_original(
    path: str | os.PathLike[str],
    spec: MachineSpec,
    n: int,
    *,
    seed: int,
    start: int = 0,
    split: str = "all",
    weights: ArrayLike | None = None,
    progress: Progress | None = None,
) -> None:
    """Draw rows as `sample` does and write them in the original's format, in constant memory.

    `progress` is told (records done, n). Raises ValueError on bad arguments.
    """

    def batches() -> Iterator[States]:
        for first in range(0, n, _CHUNK):
            size = min(_CHUNK, n - first)
            yield sample(spec, size, seed=seed, start=start + first, split=split, weights=weights)
            if progress is not None:
                progress(first + size, n)

    check_kind("spec", spec, MachineSpec)
    n = whole_number("n", n, low=1)
    check_room("n", _paths(path)[0].absolute().parent, n, 8 * spec.state_length)
    _write(path, spec, n, batches())


def _write(path: str | os.PathLike[str], spec: MachineSpec, n: int, batches: Iterator[States]) -> None:
    array_path, meta_path = _paths(path)
    if spec != MachineSpec(**{name: getattr(spec, name) for name in _PARAMS.values()}):
        raise ValueError(f"the original's format holds the default layout of machines of one size alone, got {spec}")
    meta = {
        "id_to_token": [re.sub(r"^NUM_(\d+)$", r"N_\1", token) for token in spec.vocab],
        "output_npy_file": f"./{array_path.name}",
        "program_params": {key: getattr(spec, name) for key, name in _PARAMS.items()},
        "record_token_length": 2 * spec.state_length,
        "single_state_token_length": spec.state_length,
    }
    described = {"descr": "<i4", "fortran_order": False, "shape": (n, 2 * spec.state_length)}
    with whole_file(array_path) as array, whole_file(meta_path) as text:
        np.lib.format.write_array_header_1_0(array, described)
        for states in batches:
            tokens = np.concatenate([encode(states), encode(step(states).next)], axis=1)
            array.write(tokens.astype("<i4").data)
        text.write((json.dumps(meta, indent=4) + "\n").encode())


def _paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    try:
        array_path = Path(path)
    except TypeError:
        raise TypeError(f"path must be that of a .npy file, got {path!r}") from None
    if array_path.suffix != ".npy":
        raise ValueError(f"the file's name must end in .npy, got {array_path}")
    return array_path, array_path.with_suffix(".meta.json")
