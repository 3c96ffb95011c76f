"""RUN/states.parquet: state interchange, as rows of the tidy frame (`tapelens patch RUN --part …`)."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp.commands import command
from interp.reading import BrokenFileError, RunError
from interp.results import read_frame, write_frame
from interp.runs.folder import Run
from interp.runs.origin import provenance

FILE = "states.parquet"


def states_command(run: Run, *, fresh: bool = False) -> str:
    """The command that makes the file."""
    return command("patch", run.path, "--part", "all", "layers", "groups", "subspaces", *(["--fresh"] if fresh else []))


def write_states(run: Run, rows: pd.DataFrame, **extra: Any) -> None:
    """Write the run's file, whole or not at all, with identifying columns and provenance filled in."""
    write_frame(run.identified(rows), run.path / FILE, provenance=provenance(run.config, step=run.step, **extra))


def read_states(run: Run) -> pd.DataFrame:
    """The run's file; `attrs["provenance"]` says what it was measured on and with which settings.

    Raises:
        RunError: not measured yet, broken, or measured under another config.
    """
    path = run.path / FILE
    try:
        frame = read_frame(path)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist yet; make it with: {states_command(run)}") from None
    except BrokenFileError as error:
        raise BrokenFileError(f"{error}; delete it and make it anew: {states_command(run)}") from None
    if (found := frame.attrs["provenance"].get("digest")) != run.config.digest:
        raise RunError(
            f"{path} was measured under config {found}, but this run is {run.config.digest}; "
            f"make it anew with: {states_command(run, fresh=True)}"
        )
    return frame
