"""What a report is made from: a run's files, read, each either there or with the reason why not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from interp.commands import command
from interp.reading import read_json
from interp.report.page import missing
from interp.runs import FRAMES, Run, RunError, frame_command, weights_header

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit


@dataclass(frozen=True)
class Missing:
    """A part that is not there or not of this run, and the command that makes it."""

    message: str
    command: str


@dataclass(frozen=True)
class Material:
    """Everything a report says comes from here."""

    run: Run
    header: dict[str, Any]  # config.json as it stands on disk
    folder: str  # the run folder as a person would type it
    weights: dict[str, Any] | Missing  # parameters, step
    frames: dict[str, pd.DataFrame | Missing]  # by kind
    circuits: dict[str, tuple[Circuit, dict[str, Any]] | Missing]  # by opcode, with provenance

    @property
    def versions(self) -> dict[str, str]:
        return self.header.get("versions", {})

    def command(self, kind: str) -> str:
        """The command that measures a frame of this run."""
        return frame_command(kind, self.folder)

    def warning(self, kind: str) -> str:
        """A box (HTML) where a frame was measured on weights of another training step; else nothing."""
        frame = self.frames[kind]
        sentence = None if isinstance(frame, Missing) else self.other_step(frame.attrs.get("provenance", {}))
        return missing(sentence, f"{self.command(kind)} --fresh") if sentence else ""

    def other_step(self, provenance: dict[str, Any]) -> str | None:
        """A sentence where something was measured at another training step than that of the weights."""
        step, current = provenance.get("step"), None if isinstance(self.weights, Missing) else self.weights["step"]
        if step is None or current is None or step == current:
            return None
        return f"This was measured at training step {step:,}, but the weights are those of step {current:,}."


def read_material(run: Run) -> Material:
    """Read every file of the run; what is missing or broken becomes `Missing`."""
    folder = _as_typed(run.path)
    header = read_json(run.path / "config.json", "a run's config")
    frames: dict[str, pd.DataFrame | Missing] = {}
    for kind in FRAMES:
        command = frame_command(kind, folder)
        try:
            frames[kind] = run.frame(kind)
        except RunError as error:
            there = (run.path / f"{kind}.parquet").exists()
            message = _plain(error, run.path, folder) if there else f"The run has no {kind} yet."
            frames[kind] = Missing(message, command)
    return Material(run, header, folder, _weights(run, folder), frames, _circuits(run, folder))


def _weights(run: Run, folder: str) -> dict[str, Any] | Missing:
    from safetensors import safe_open

    file = run.weights
    try:
        weights_header(file)
        step = run.step
    except RunError as error:
        message = _plain(error, run.path, folder) if file.exists() else "The run has no trained weights yet."
        return Missing(message, _train(folder))
    with safe_open(file, framework="numpy") as tensors:
        parameters = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return {"parameters": parameters, "step": step}


def _circuits(run: Run, folder: str) -> dict[str, tuple[Circuit, dict[str, Any]] | Missing]:
    from interp.circuits import read_circuit

    found: dict[str, tuple[Circuit, dict[str, Any]] | Missing] = {}
    for op in circuit_names(run):
        anew = command("circuit", folder, "--ops", op)
        file = run.path / "circuits" / f"{op}.json"
        try:
            circuit, provenance = read_circuit(file)
        except FileNotFoundError:
            found[op] = Missing(f"The run has no circuit of {op} yet.", anew)
            continue
        except ValueError as error:
            found[op] = Missing(_plain(error, run.path, folder), f"{anew} --fresh")
            continue
        if provenance.get("digest") != run.config.digest:
            message = (
                f"The circuit of {op} was found under config {provenance.get('digest')}, "
                f"but this run is {run.config.digest}."
            )
            found[op] = Missing(message, f"{anew} --fresh")
        else:
            found[op] = (circuit, provenance)
    return found


def circuit_names(run: Run) -> list[str]:
    """The contrasts that a circuit is looked for by default: those of the task's first kind; [] where it has none."""
    found = list(run.task.contrasts().values())
    return [contrast.slug for contrast in found if contrast.kind == found[0].kind]


def _train(folder: str) -> str:
    return command("train", "--out", folder, "--resume")


def _as_typed(path: Path) -> str:
    """Relative to the working directory where it lies below it; else its name alone, so that no report tells a home."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.name


def _plain(error: Exception, path: Path, folder: str) -> str:
    """The message without the command at its end, and without where on the disk the run lies."""
    text = str(error).replace(str(path), folder)
    return text.split(": tapelens ")[0].split("; make it anew with")[0].rstrip(".:;") + "."
