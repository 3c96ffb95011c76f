"""Scalars to TensorBoard or Weights & Biases, beside the Parquet file that every run has."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from interp.runs import RunConfig

TENSORBOARD = "tensorboard"  # the folder inside a run's
LogTo = Literal["tensorboard", "wandb"]


class ScalarLog(Protocol):
    """Where scalars go."""

    def write(self, step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoardLog:
    """Events in RUN/tensorboard; what was logged after the checkpoint that training goes on from is purged."""

    def __init__(self, folder: Path, config: RunConfig, *, first: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError(
                "--log tensorboard needs a package that is missing: pip install 'tapelens[tensorboard]'"
            ) from None
        self._writer: Any = SummaryWriter(str(folder / TENSORBOARD), purge_step=first + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write scalars as of `step`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class WandbLog:
    """A Weights & Biases run of the folder's name in the project tapelens, continued when training is."""

    def __init__(self, folder: Path, config: RunConfig, *, first: int):
        try:
            import wandb
        except ImportError:
            raise ValueError("--log wandb needs a package that is missing: pip install 'tapelens[wandb]'") from None
        self._run: Any = wandb.init(
            project="tapelens",
            name=folder.name,
            id=f"{folder.name}-{config.digest}",
            resume="allow",
            dir=str(folder),
            config=config.to_dict(),
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write scalars as of `step`."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


LOGS: dict[str, type[TensorBoardLog] | type[WandbLog]] = {"tensorboard": TensorBoardLog, "wandb": WandbLog}
