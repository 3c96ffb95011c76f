"""The results of a sweep in one frame: the rows of every run, in the order of its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp.reading import RunError
from interp.results import Metric, rows_frame, write_frame
from interp.runs import FRAMES, load, versions
from interp.runs.further_frames import FURTHER
from interp.studies.sweep_state import RESULTS, read_attempts, read_state, run_folder


def gather(out: Path, orders: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Every row of every run of the sweep, written to `OUT/results.parquet`; the column `run` holds the runs' names.

    Provenance says of each run its digest, what became of its stages, and why attempts ended.
    """
    parts, told = [], {}
    for name, order in orders.items():
        state = read_state(out, name)
        reasons = [each["reason"] for each in read_attempts(out, name)]
        told[name] = {"digest": order["digest"], "stages": state.get("stages", {}), "attempts": reasons}
        if state.get("digest") == order["digest"]:
            parts += _frames(run_folder(out, name))
    frame = pd.concat(parts, ignore_index=True) if parts else rows_frame([])
    provenance = {"versions": versions(), "runs": told}
    write_frame(frame, out / RESULTS, provenance=provenance)
    frame.attrs["provenance"] = provenance
    return frame


def _frames(folder: Path) -> list[pd.DataFrame]:
    """What a run has been measured on, kind by kind; a kind that is not there, or not yet whole, is left out."""
    found = []
    for kind in (*FRAMES, *FURTHER):
        try:
            run = load(folder)
            frame = run.frame(kind) if kind in FRAMES else FURTHER[kind].read(run)
        except RunError:
            continue
        frame.attrs = {}  # else they are compared, row frame by row frame, as frames are put together
        found.append(frame)
    return found


def lasting(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that a run made again has again: all but the seconds it took."""
    return frame.loc[frame["metric"] != Metric.SECONDS].reset_index(drop=True)
