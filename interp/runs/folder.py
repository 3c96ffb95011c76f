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

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.commands import command as command_line
from interp.configuration import config_dict
from interp.files import atomic_path, sha256_of, write_json
from interp.reading import BrokenFileError, RunError, count, read_header, read_json, read_tensors, reading
from interp.results import read_frame, write_frame
from interp.runs.hub_names import MAX_GB, is_address
from interp.worlds import World, as_world, world_from_dict

if TYPE_CHECKING:  # torch and transformer_lens take seconds to import; a run's files do not need them
    import pandas as pd
    import torch

    from interp.runs.training_config import DataSource, StartingPoint, TrainingConfig

FORMAT = 1
STEPS = "steps"
NEXT_STATE_TASKS = ("step_inplace", "step")  # those that declare `answers_state`
STREAM_TASKS = ("trace",)  # those that declare `tells_stream`
_STEP = re.compile(r"0|[1-9][0-9]{0,17}")  # as training names its checkpoints
FRAMES = {"metrics": "train", "probes": "probe", "interventions": "patch", "circuits": "circuit"}
_ROUNDED = ("bfloat16", "float16", "float64")  # what the header of a weights file may declare beside the model's own


@dataclass(frozen=True)
class RunConfig:
    """What a run is made of; two runs with the same digest were meant to be the same."""

    task: str
    world: World  # or a MachineSpec, which stands for its machine
    model: Any  # the config of one of MODELS
    training: TrainingConfig
    data: DataSource | None = None  # None: records are drawn from the world as training goes
    options: Any = None  # of the task, an instance of its `Options`; None: its defaults
    start: StartingPoint | None = None  # None: from random weights

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", as_world(self.world))

    @property
    def spec(self) -> Any:
        """The machine of a run about the machine. Raises AttributeError where the world is another."""
        return self.world.spec  # type: ignore[attr-defined]

    @property
    def seed(self) -> int:
        return self.training.seed

    @property
    def answers_state(self) -> bool:
        """`Task.answers_state`, without the task's module, which imports torch."""
        return self.task in NEXT_STATE_TASKS

    @property
    def tells_stream(self) -> bool:
        """`Task.tells_stream`, as above."""
        return self.task in STREAM_TASKS

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready nested dict of every field."""
        values = {
            "task": self.task,
            **_world_dict(self.world),
            "model": config_dict(self.model),
            "training": config_dict(self.training),
        }
        if self.data is not None:
            values["data"] = dataclasses.asdict(self.data)
        if self.options is not None and (options := config_dict(self.options)):
            values["options"] = options
        if self.start is not None:
            values["start"] = dataclasses.asdict(self.start)
        return values

    @property
    def digest(self) -> str:
        """16 hex digits that identify the config (SHA-256 of its canonical JSON, the places of its data, of its
        text and of the run it starts from left out)."""
        values = self.to_dict()
        if "world" in values:
            values["world"] = {"name": self.world.name, **self.world.identity()}
        if self.data is not None:
            values["data"] = self.data.digest
        if self.start is not None:
            values["start"] = [self.start.digest, self.start.step]
        canonical = json.dumps(values, sort_keys=True, default=list)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Rebuild from `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or out of range.
        """
        from interp.models import config_class
        from interp.runs.training_config import DataSource, StartingPoint, TrainingConfig

        return cls(
            task=values["task"],
            world=world_of(values),
            model=config_class(values["model"].get("architecture", "transformer"))(**values["model"]),
            training=TrainingConfig.from_dict(values["training"]),
            data=DataSource(**values["data"]) if "data" in values else None,
            options=_options(values["task"], values["options"]) if "options" in values else None,
            start=StartingPoint(**values["start"]) if "start" in values else None,
        )


def _world_dict(world: World) -> dict[str, Any]:
    """The machine stands under the key `spec`, as in runs made before there were other worlds."""
    settings = world.to_dict()
    return {"spec": settings} if world.name == "machine" else {"world": {"name": world.name, **settings}}


def world_of(values: Mapping[str, Any]) -> World:
    """The world of what `RunConfig.to_dict` gave. Raises as `world_from_dict`."""
    return world_from_dict(values["world"] if "world" in values else {"name": "machine", **values["spec"]})


def _options(task: str, values: dict[str, Any]) -> Any:
    from interp.tasks.options import OPTIONS

    if task not in OPTIONS:
        from interp.tasks.registry import TASKS

        return TASKS[task].Options(**values)
    return OPTIONS[task](**values)


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    names = ("tapelens", "torch", "transformer-lens", "numpy")
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in names}


def hardware() -> dict[str, Any]:
    """What a time was taken on: processor, cores that this process may use, and an accelerator that torch sees."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), processor)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch = sys.modules.get("torch")  # whoever trains has imported it; the files of a run do not need it
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return {"processor": processor, "cores": cores, "gpu": gpu}


def provenance(config: RunConfig, **extra: Any) -> dict[str, Any]:
    """What every file of a run carries: versions, seed, the config's digest, and `extra`."""
    return {"versions": versions(), "seed": config.seed, "digest": config.digest, **extra}


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


def weights_header(file: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header, after checking that the file is whole.

    Raises:
        RunError: missing, truncated, a pickle, or not safetensors.
    """
    try:
        return read_header(file)
    except FileNotFoundError:
        resume = command_line("train", "--resume", "--out", file.parent)
        raise RunError(f"{file} does not exist: the run has no trained weights yet; make them with: {resume}") from None
    except BrokenFileError as error:
        raise BrokenFileError(f"{error}; restore it or train again") from None


def save_weights(
    file: Path, model: torch.nn.Module, config: RunConfig, *, step: int, dtype: torch.dtype | None = None
) -> None:
    """Write a model's weights as safetensors, whole or not at all; the header carries digest, step and versions.

    dtype: what to round them to, and to say so in the header (default: as they are).
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {name: (t.to(dtype) if t.is_floating_point() else t).contiguous() for name, t in tensors.items()}
    header = {"digest": config.digest, "step": str(step), "versions": json.dumps(versions())}
    if dtype is not None:
        header["dtype"] = str(dtype).removeprefix("torch.")
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_model(config: RunConfig, file: Path, *, vocab: tuple[str, ...]) -> Any:
    """Build the configured model and fill it from `file`. Raises RunError when they do not belong together."""
    header = weights_header(file)
    if header.get("digest") != config.digest:
        raise RunError(f"{file} belongs to config {header.get('digest')}, but config.json says {config.digest}")
    from interp.models import build_model

    model = build_model(config.model)
    tensors, _ = read_tensors(file, "pt")
    unsaid = "bfloat16" if file.parent.name == STEPS else None
    require_dtypes(file, tensors, model, declared=header.get("dtype", unsaid))
    with reading(file, "a file of weights that fits the configured model", RuntimeError):
        model.load_state_dict(tensors)
    model.vocab = vocab
    return model.eval()


def require_dtypes(
    file: Path, tensors: Mapping[str, torch.Tensor], model: torch.nn.Module, *, declared: str | None = None
) -> None:
    """Refuse weights of another kind than the model's: PyTorch would turn integers and complex numbers into floats.

    declared: to what the file says that its floating-point numbers were rounded (`save_weights`); checkpoints along a
    run, in `steps/`, are bfloat16, and those made before headers named a dtype do not say so.

    Raises:
        RunError: a tensor has neither the model's dtype nor the declared one.
    """
    for name, own in model.state_dict().items():
        found = tensors[name].dtype if name in tensors else own.dtype
        rounded = own.is_floating_point() and declared in _ROUNDED and str(found) == f"torch.{declared}"
        if found != own.dtype and not rounded:
            raise RunError(f"{file} holds {name} as {found}; the configured model has {own.dtype}")
