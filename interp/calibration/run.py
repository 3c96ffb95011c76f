"""The calibration run: every entry on every model, a file a pair of them, then one frame.

OUT/rows/MODEL.ENTRY.parquet   kept as soon as measured; what is there with the same settings is not measured again
OUT/calibration.parquet        all rows; the column `run` names the model
OUT/calibration.md, .svg       the table in words and as a figure (interp.calibration.page)
OUT/summary.json               a line a method, shown beside results on trained models
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from interp.calibration.registry import CALIBRATIONS, runs
from interp.calibration.settings import CalibrationSettings
from interp.calibration.subjects import SETTINGS, Subject, compile_subject
from interp.calibration.summary import write_summary
from interp.results import ResultsError, read_frame, rows_frame, write_frame
from interp.runs import versions

Progress = Callable[[float, float, str], None]


def calibrate(
    out: Path,
    *,
    settings: CalibrationSettings = CalibrationSettings(),  # noqa: B008 (frozen)
    only: tuple[str, ...] = (),
    fresh: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure what is not on disk yet; returns all rows and writes them to OUT/calibration.parquet.

    Args:
        out: the folder.
        settings: sizes, seed and models.
        only: names of entries; all where empty. The frame then holds these alone.
        fresh: measure everything again.
        progress: called with (pairs of model and entry done, of how many, what is going on); the first is fractional.

    Raises:
        ValueError: an unknown model or entry, or a model that errs.
    """
    report = progress or (lambda done, total, at: None)
    names = settings.subjects or tuple(SETTINGS)
    for kind, asked, known in (("calibration model", names, SETTINGS), ("calibration entry", only, CALIBRATIONS)):
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(f"no {kind} {unknown[0]!r}; there are {', '.join(known)}")
    units = runs(names, only)
    frames: list[pd.DataFrame] = []
    subjects: dict[str, Subject] = {}
    for done, (entry, name) in enumerate(units):
        header = _header(settings, name)
        file = out / "rows" / f"{name}.{entry}.parquet"
        frame = None if fresh else _kept(file, header)
        if frame is None:
            label = f"{entry.replace('_', ' ')}, {name}"
            report(done, len(units), label)
            if name not in subjects:
                subjects[name] = compile_subject(name, settings.spec)
            compiled = subjects[name].compiled
            began = time.perf_counter()
            rows = CALIBRATIONS[entry].calibrate(
                compiled.model,
                compiled.key,
                compiled.form.task,
                settings,
                lambda share, done=done, label=label: report(done + share, len(units), label),
            )
            common = {"run": name, "task": compiled.key.task, "seed": settings.seed, "architecture": "compiled"}
            frame = rows_frame([{**common, **row} for row in rows])
            seconds = round(time.perf_counter() - began, 1)
            write_frame(frame, file, provenance={**header, "versions": versions(), "seconds": seconds})
        frames.append(frame)
    report(len(units), len(units), "")
    found = rows_frame([]) if not frames else pd.concat(frames, ignore_index=True)
    write_frame(found, out / "calibration.parquet", provenance={**_header(settings, ""), "versions": versions()})
    return found


def publish_summary(folder: Path, frame: pd.DataFrame, settings: CalibrationSettings) -> None:
    """Write summary.json into a folder."""
    write_summary(folder, frame, provenance={**_header(settings, ""), "versions": versions()})


def _header(settings: CalibrationSettings, name: str) -> dict[str, Any]:
    """What rows depend on, as JSON: settings, and how the model is compiled."""
    values = asdict(settings) | {"spec": settings.spec.to_dict(), "subjects": None}
    if not settings.ops:
        del values["ops"]
    setting = asdict(SETTINGS[name]) if name else None
    return json.loads(json.dumps({"settings": values, "model": setting}))


def _kept(file: Path, header: dict[str, Any]) -> pd.DataFrame | None:
    """The rows on disk if they were measured with these settings."""
    try:
        frame = read_frame(file)
    except (FileNotFoundError, ResultsError):
        return None
    found = frame.attrs["provenance"]
    return frame if all(found.get(name) == value for name, value in header.items()) else None
