"""Run folders: a trained model with everything that was measured of it.

config.json          task, machine, model, training, seed, versions, digest
model.safetensors    weights; the header names the config's digest and the step
metrics.parquet      training curve and evaluation        (`tapelens train`)
probes.parquet       variables x layers x positions       (`tapelens probe`)
interventions.parquet  interchange and ablation           (`tapelens patch`)
circuits.parquet, circuits/OP.json, attention.safetensors (`tapelens circuit`)
hub.json             where it was fetched from            (`interp.load("hf://OWNER/NAME")`)
report.html          all of it on one page                (`tapelens report`)
steps/STEP.safetensors  weights along the way, bfloat16   (`tapelens train --training.steps-along N`)
resume/              optimizer state of an unfinished training
"""

from __future__ import annotations

import dataclasses
import os
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.commands import command as command_line
from interp.files import sha256_of, write_json
from interp.reading import BrokenFileError, RunError, count, read_json, reading
from interp.results import read_frame, write_frame
from interp.runs.hub_names import MAX_GB, is_address
from interp.runs.origin import hardware, provenance
from interp.runs.run_config import RunConfig
from interp.runs.weights import STEPS, load_model, weights_header

if TYPE_CHECKING:  # torch and transformer_lens take seconds to import; a run's files do not need them
    import pandas as pd
    import torch

FORMAT = 1
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # as training names its checkpoints
FRAMES = {"metrics": "train", "probes": "probe", "interventions": "patch", "circuits": "circuit"}


class Run:
    """A run folder, read. Cheap to make: weights are loaded at the first use of `model`."""

    def __init__(self, path: Path, config: RunConfig, *, weights: Path | None = None):
        self.path = path
        self.config = config
        self.weights = path / "model.safetensors" if weights is None else weights

    @property
    def name(self) -> str:
        """The folder's name; NAME@STEP for a checkpoint along the run."""
        along = self.path.parent.name == STEPS and self.weights.parent != self.path
        return f"{self.path.parent.parent.name}@{self.path.name}" if along else self.path.name

    @property
    def source(self) -> str | None:
        """Where the run was fetched from, `hf://OWNER/NAME@COMMIT`; None for one that was made here."""
        from interp.runs.hub_download import source_of

        return source_of(self.path)

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps whose weights were kept along the run, rising; () where none were."""
        return tuple(
            sorted(int(file.stem) for file in (self.path / STEPS).glob("*.safetensors") if _STEP.fullmatch(file.stem))
        )

    def at_step(self, step: int) -> Run:
        """The run as it was after `step` optimizer steps: one of `steps`.

        Its weights were kept as bfloat16. What is measured on it goes into `steps/STEP/`, apart from the run's own.

        Raises:
            RunError: no weights of that step were kept.
        """
        if step not in self.steps:
            kept = ", ".join(map(str, self.steps)) or "none"
            raise RunError(f"{self.path} keeps no weights of step {step}; it keeps {kept}")
        place = self.path / STEPS / str(step)
        return Run(place, self.config, weights=place.with_suffix(".safetensors"))

    @cached_property
    def task(self) -> Any:
        """The task, bound to the machine that the run was trained on."""
        from interp.tasks import TASKS

        if self.config.task not in TASKS:
            known = ", ".join(TASKS)
            raise RunError(f"{self.path / 'config.json'} names the task {self.config.task!r}; this version has {known}")
        self.config.world.keep_beside(self.weights.parent.parent)
        return TASKS[self.config.task](self.config.world, self.config.options)

    @cached_property
    def step(self) -> int:
        """Optimizer steps behind the saved weights."""
        header = weights_header(self.weights)
        with reading(self.weights, "the weights of a run"):
            return count(header.get("step", "0"))

    @cached_property
    def model(self) -> Any:
        """The hooked model with its trained weights, in eval mode.

        Raises:
            RunError: the weights are missing, broken, or belong to another config.
        """
        return load_model(self.config, self.weights, vocab=self.task.vocab)

    def untrained_model(self, *, seed: int | None = None) -> Any:
        """The same architecture with fresh weights (by default those that training began from)."""
        from interp.models import build_model

        config = self.config.model if seed is None else dataclasses.replace(self.config.model, seed=seed)
        return build_model(config).eval()

    def predict(self, x: np.ndarray | torch.Tensor) -> np.ndarray:
        """Greedy next states from the model's own forward pass; hooks on `model` change it.

        Args:
            x: encoded states S_t, integer [n, state_length].

        Returns:
            int64 [n, state_length].

        Raises:
            ValueError: wrong shape, dtype or token range, or a task whose answer is not the next state of one step.
        """
        import torch

        from interp.arrays import integers

        if not self.task.answers_state:
            raise ValueError(f"the answer of the task {self.task.name} is not the next state of one step")

        tokens = integers(x)
        length, size = self.config.spec.state_length, len(self.task.vocab)
        if tokens.ndim != 2 or tokens.shape[1] != length:
            raise ValueError(f"expected encoded states of shape [n, {length}], got {list(tokens.shape)}")
        if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < size):
            raise ValueError(f"tokens must lie in 0..{size - 1}, got {int(tokens.min())}..{int(tokens.max())}")
        with torch.no_grad():
            parts = [self.task.predict(self.model, part) for part in tokens.split(512)]
        return torch.cat(parts).numpy() if parts else np.empty((0, length), np.int64)

    def predict_states(self, states: Any) -> np.ndarray:
        """`predict` on machine states."""
        return self.predict(self.config.world.encode(states))  # type: ignore[attr-defined]

    def frame(self, kind: str) -> pd.DataFrame:
        """A results frame of the run: metrics, probes, interventions or circuits.

        Raises:
            ValueError: no such kind.
            RunError: not measured yet, broken, or measured on other weights.
        """
        if kind not in FRAMES:
            raise ValueError(f"unknown frame {kind!r}; expected one of {', '.join(FRAMES)}")
        path = self.path / f"{kind}.parquet"
        try:
            frame = read_frame(path)
        except FileNotFoundError:
            raise RunError(f"{path} does not exist yet; make it with: {frame_command(kind, self.path)}") from None
        except BrokenFileError as error:
            raise BrokenFileError(f"{error}; delete it and make it anew: {frame_command(kind, self.path)}") from None
        found = frame.attrs["provenance"].get("digest")
        if found != self.config.digest:
            raise RunError(
                f"{path} was measured under config {found}, but this run is {self.config.digest}; "
                f"make it anew with: {frame_command(kind, self.path, fresh=True)}"
            )
        return frame

    def identified(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of the tidy frame with the columns filled in that say which run they are about."""
        rows = rows.assign(
            run=self.name,
            seed=self.config.seed,
            architecture=self.config.model.architecture,
            world=self.config.world.name,
            task=self.config.task,
        )
        return rows.assign(checkpoint_step=rows["checkpoint_step"].fillna(self.step))

    def write_frame(self, kind: str, rows: pd.DataFrame, **extra: Any) -> None:
        """Write one of the run's frames, with the identifying columns and provenance filled in."""
        write_frame(
            self.identified(rows),
            self.path / f"{kind}.parquet",
            provenance=provenance(self.config, step=self.step, weights=sha256_of(self.weights), **extra),
        )


def frame_command(kind: str, folder: str | Path, *, fresh: bool = False) -> str:
    """The command that makes a frame of the run in `folder`; `fresh`: in place of one that is there."""
    if kind == "metrics":  # written by training, which goes on with the settings that the folder holds
        return command_line("train", "--out", folder, "--resume")
    return command_line(FRAMES[kind], folder, *(["--fresh"] if fresh else []))


def load(path: str | os.PathLike[str], *, step: int | None = None, max_gb: float = MAX_GB) -> Run:
    """Open a run folder or a bundled checkpoint, or one of the checkpoints along the run (see `Run.at_step`).

    Args:
        path: a folder; or `hf://OWNER/NAME@REVISION`, fetched from a hub if it is not here yet (`docs/sharing.md`).
        step: of a checkpoint along the run (default: the final weights).
        max_gb: how many gigabytes may be fetched.

    Raises:
        RunError: nothing is there, or it is not a run that this version can read, or it did not keep that step.
    """
    if is_address(path):
        from interp.runs.hub_download import fetch

        path = fetch(path, max_gb=max_gb)
    run = Run(Path(path), read_config(Path(path)))
    return run if step is None else run.at_step(step)


def read_config(path: Path) -> RunConfig:
    """Read and check `config.json` of the run folder `path`. Raises RunError."""
    if not path.is_dir():
        train = command_line("train", "--out", path)
        raise RunError(f"no run at {path}; train one with: {train}; or open one of those in checkpoints/")
    file = path / "config.json"
    try:
        values = read_json(file, "a run's config")
    except FileNotFoundError:
        raise RunError(f"{path} is no run folder: it has no config.json") from None
    with reading(file, "a run's config"):
        found = values["format"]
    if found != FORMAT:
        made_by = values.get("versions")
        version = made_by.get("tapelens") if isinstance(made_by, dict) else None
        raise RunError(
            f"{file} has format {found!r:.60} (tapelens {version or 'of an unknown version'!s:.60}); "
            f"this version reads format {FORMAT}"
        )
    with reading(file, "the config of a run of this version"):
        config = RunConfig.from_dict(values)
        digest = config.digest
    if values.get("digest") != digest:
        raise RunError(f"{file} was edited: it says digest {values.get('digest')!s:.60}, its contents give {digest}")
    return config


def write_config(path: Path, config: RunConfig, *, command: str | None = None) -> None:
    """Write `config.json`, with versions, hardware, digest, and the command that makes the run."""
    header = {"format": FORMAT, **provenance(config), "command": command}
    write_json(path / "config.json", {**header, "hardware": hardware(), **config.to_dict()})
