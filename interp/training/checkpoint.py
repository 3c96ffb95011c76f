"""Resumable checkpoints: model, optimizer state and progress in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safetensors.torch import save_file
from torch import Tensor, nn

from interp.files import atomic_path
from interp.reading import read_tensors, reading
from interp.runs import RunConfig, RunError, require_dtypes, weights_header

RESUME_FILE = Path("resume") / "state.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """How far a training has come."""

    step: int  # optimizer steps done
    seconds: float  # training time so far, over all sittings
    done: bool = False


class Resumable(Protocol):
    """A part of a training with a state of its own: tensors whose names begin with one of `prefixes`."""

    @property
    def prefixes(self) -> tuple[str, ...]: ...

    def state_tensors(self) -> dict[str, Tensor]: ...

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None: ...


def save_checkpoint(
    folder: Path, model: nn.Module, parts: Sequence[Resumable], state: TrainingState, config: RunConfig
) -> None:
    """Write `resume/state.safetensors`. The stream of records needs no state: it is a function of seed and step."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    for part in parts:
        tensors |= part.state_tensors()
    header = {"digest": config.digest, "state": json.dumps(vars(state))}
    with atomic_path(folder / RESUME_FILE) as temporary:
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        save_file(copies, temporary, metadata=header)


def peek_checkpoint(folder: Path, config: RunConfig) -> TrainingState | None:
    """The progress recorded in a run folder, or None where there is none.

    Raises:
        RunError: the checkpoint is broken or belongs to another config.
    """
    file = folder / RESUME_FILE
    if not file.exists():
        return None
    header = weights_header(file)
    if header.get("digest") != config.digest:
        raise RunError(
            f"{folder} holds a training with config {header.get('digest')}, not {config.digest}; "
            "choose another --out, or start over with --fresh"
        )
    with reading(file, "a checkpoint of a training"):
        state = TrainingState(**json.loads(header["state"]))
        if type(state.step) is not int or state.step < 0 or not isinstance(state.seconds, int | float):
            raise TypeError(f"its state must be a step and seconds, got {header['state']:.60}")
        return state


def load_checkpoint(
    folder: Path, model: nn.Module, parts: Sequence[Resumable], config: RunConfig
) -> TrainingState | None:
    """Restore the model and the parts in place; None where there is no checkpoint. Raises as `peek_checkpoint`."""
    state = peek_checkpoint(folder, config)
    if state is None:
        return None
    file = folder / RESUME_FILE
    tensors, _ = read_tensors(file, "pt")
    weights = {name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")}
    require_dtypes(file, weights, model)
    with reading(file, "a whole checkpoint of this training", RuntimeError):
        model.load_state_dict(weights)
        for part in parts:
            part.load_state_tensors({name: t for name, t in tensors.items() if name.startswith(part.prefixes)})
    return state
