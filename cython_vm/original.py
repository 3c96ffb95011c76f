"""Files of the original C++ project: `NAME.npy`, int32 [n, 2 × state_length], beside `NAME.meta.json`.

Each record is S_t followed by S_{t+1}. The ids are ours; numbers are spelled `N_3` there and `NUM_3` here.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np

from cython_vm.codec import decode, encode
from cython_vm.machine import step
from cython_vm.spec import MachineSpec
from cython_vm.states import States

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
    tokens = np.load(array_path, allow_pickle=False)
    length = spec.state_length
    if tokens.ndim != 2 or tokens.shape[1] != 2 * length:
        raise ValueError(f"{array_path} should hold [n, {2 * length}] tokens, got {list(tokens.shape)}")
    return decode(spec, tokens[:, :length]), decode(spec, tokens[:, length:])


def write_original(path: str | os.PathLike[str], states: States) -> None:
    """Write S_t and S_{t+1} of every state as `NAME.npy` and `NAME.meta.json`."""
    array_path, meta_path = _paths(path)
    spec = states.spec
    tokens = np.concatenate([encode(states), encode(step(states).next)], axis=1)
    meta = {
        "id_to_token": [re.sub(r"^NUM_(\d+)$", r"N_\1", token) for token in spec.vocab],
        "output_npy_file": f"./{array_path.name}",
        "program_params": {key: getattr(spec, name) for key, name in _PARAMS.items()},
        "record_token_length": 2 * spec.state_length,
        "single_state_token_length": spec.state_length,
    }
    np.save(array_path, tokens.astype(np.int32))
    meta_path.write_text(json.dumps(meta, indent=4) + "\n")


def _paths(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    array_path = Path(path)
    if array_path.suffix != ".npy":
        raise ValueError(f"the file's name must end in .npy, got {array_path}")
    return array_path, array_path.with_suffix(".meta.json")
