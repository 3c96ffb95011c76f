"""Results frames that only some runs have, each beside those of every run: state interchange, and longer runs.

states.parquet    parts of what is carried, exchanged       (`tapelens patch RUN --part …`)
beyond.parquet    exact match on runs longer than trained   (`tapelens eval RUN --n-steps … --save`)
sources.parquet   where values that are asked for come from (`tapelens sources RUN`)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.commands import command
from interp.reading import BrokenFileError, RunError
from interp.results import read_frame, write_frame
from interp.runs.folder import Run
from interp.runs.origin import provenance


@dataclass(frozen=True)
class FurtherFrame:
    """One such file of a run folder."""

    file: str
    """Its name in the folder."""
    verb: str
    """The verb that makes it."""
    options: tuple[str, ...]
    """What the verb is asked."""
    fresh: tuple[str, ...] = ()
    """What it is asked besides, to replace a file that is there."""

    def command(self, run: Run, *, fresh: bool = False) -> str:
        """The command that makes the file."""
        return command(self.verb, run.path, *self.options, *(self.fresh if fresh else ()))

    def write(self, run: Run, rows: pd.DataFrame, **extra: Any) -> None:
        """Write the run's file, whole or not at all, with identifying columns and provenance filled in."""
        made = provenance(run.config, step=run.step, **extra)
        write_frame(run.identified(rows), run.path / self.file, provenance=made)

    def read(self, run: Run) -> pd.DataFrame:
        """The run's file; `attrs["provenance"]` says what it was measured on and with which settings.

        Raises:
            RunError: not measured yet, broken, or measured under another config.
        """
        path = run.path / self.file
        try:
            frame = read_frame(path)
        except FileNotFoundError:
            raise RunError(f"{path} does not exist yet; make it with: {self.command(run)}") from None
        except BrokenFileError as error:
            raise BrokenFileError(f"{error}; delete it and make it anew: {self.command(run)}") from None
        if (found := frame.attrs["provenance"].get("digest")) != run.config.digest:
            raise RunError(
                f"{path} was measured under config {found}, but this run is {run.config.digest}; "
                f"make it anew with: {self.command(run, fresh=True)}"
            )
        return frame


STATES = FurtherFrame("states.parquet", "patch", ("--part", "all", "layers", "groups", "subspaces"), ("--fresh",))
BEYOND = FurtherFrame("beyond.parquet", "eval", ("--n-steps", "96", "128", "--save"))
SOURCES = FurtherFrame("sources.parquet", "sources", ())
FURTHER = {"states": STATES, "beyond": BEYOND, "sources": SOURCES}
