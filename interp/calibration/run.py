"""The calibration run: every entry on every model, a file a pair of them, then one frame.

OUT/rows/MODEL.ENTRY.parquet   kept as soon as measured; what is there with the same settings is not measured again
OUT/calibration.parquet        all rows; the column `run` names the model
OUT/calibration.md, .svg       the table in words and as a figure (interp.pages.calibration)
OUT/summary.json               a line a method, shown beside results on trained models
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from interp.calibration.registry import CALIBRATIONS, runs
from interp.calibration.settings import CalibrationSettings
from interp.calibration.strings import STRING_NETWORKS, StringSubject, string_subject
from interp.calibration.subjects import SETTINGS, TAPES, Subject, TapeSubject, compile_subject, compile_tape
from interp.calibration.summary import write_summary
from interp.reading import BrokenFileError
from interp.results import read_frame, rows_frame, write_frame
from interp.runs import versions
from interp.worlds.machine import MachineSpec

Progress = Callable[[float, float, str], None]


def calibrate(
    out: Path,
    *,
    settings: CalibrationSettings = CalibrationSettings(),  # noqa: B008 (frozen)
    only: tuple[str, ...] = (),
    fresh: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Measure what is not on disk yet; returns all rows and writes them to OUT/calibration.parquet.

    Args:
        out: the folder.
        settings: sizes, seed and models.
        only: names of entries; all where empty. The frame then holds these alone.
        fresh: measure everything again.
        workers: processes, each with one thread.
        progress: called with (pairs of model and entry done, of how many, what is going on); the first is fractional.

    Raises:
        ValueError: an unknown model or entry, or a model that errs.
    """
    report = progress or (lambda done, total, at: None)
    names = settings.subjects or (*SETTINGS, *TAPES, *STRING_NETWORKS)
    for kind, asked, known in (
        ("calibration model", names, SETTINGS | TAPES | STRING_NETWORKS),
        ("calibration entry", only, CALIBRATIONS),
    ):
        if unknown := [name for name in asked if name not in known]:
            raise ValueError(f"no {kind} {unknown[0]!r}; there are {', '.join(known)}")
    units = runs(names, only)
    left = [unit for unit in units if fresh or _kept(_file(out, *unit), _header(settings, unit[1])) is None]
    report(len(units) - len(left), len(units), "")
    if workers == 1:
        for done, (entry, name) in enumerate(left, len(units) - len(left)):
            label = f"{entry.replace('_', ' ')}, {name}"
            report(done, len(units), label)
            _measure(
                out,
                settings,
                entry,
                name,
                lambda share, done=done, label=label: report(done + share, len(units), label),
            )
    else:
        _measure_in_processes(out, settings, left, workers, lambda done, at: report(done, len(units), at), len(units))
    frames = [read_frame(_file(out, *unit)) for unit in units]
    found = rows_frame([]) if not frames else pd.concat(frames, ignore_index=True)
    write_frame(found, out / "calibration.parquet", provenance={**_header(settings, ""), "versions": versions()})
    return found


def _measure_in_processes(
    out: Path,
    settings: CalibrationSettings,
    units: list[tuple[str, str]],
    workers: int,
    report: Callable[[float, str], None],
    n_units: int,
) -> None:
    """Each unit in a process of one thread; the first that raises ends the run, what is measured stays."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        waiting = {pool.submit(_measure, out, settings, *unit): unit for unit in units}
        try:
            for done, future in enumerate(as_completed(waiting), n_units - len(units) + 1):
                future.result()
                entry, name = waiting[future]
                report(done, f"{entry.replace('_', ' ')}, {name}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _measure(
    out: Path,
    settings: CalibrationSettings,
    entry: str,
    name: str,
    report: Callable[[float], None] = lambda share: None,
) -> None:
    """One entry on one model, into its file."""
    subject = _subject(name, settings.spec)
    began = time.perf_counter()
    rows = CALIBRATIONS[entry].calibrate(subject.model, subject.key, subject.task, settings, report)
    common = {"run": name, "task": subject.task.name, "seed": settings.seed, "architecture": "compiled"}
    provenance = {
        **_header(settings, name),
        "versions": versions(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_frame(rows_frame([{**common, **row} for row in rows]), _file(out, entry, name), provenance=provenance)


@lru_cache(maxsize=16)
def _subject(name: str, spec: MachineSpec) -> Subject | TapeSubject | StringSubject:
    if name in STRING_NETWORKS:
        return string_subject(name)
    return compile_tape(name) if name in TAPES else compile_subject(name, spec)


def _file(out: Path, entry: str, name: str) -> Path:
    return out / "rows" / f"{name}.{entry}.parquet"


def publish_summary(folder: Path, frame: pd.DataFrame, settings: CalibrationSettings) -> None:
    """Write summary.json into a folder."""
    write_summary(folder, frame, provenance={**_header(settings, ""), "versions": versions()})


def _header(settings: CalibrationSettings, name: str) -> dict[str, Any]:
    """What rows depend on, as JSON: settings, and how the model is compiled."""
    values = asdict(settings) | {"spec": settings.spec.to_dict(), "subjects": None}
    if not settings.ops:
        del values["ops"]
    if name in STRING_NETWORKS:
        setting: Any = {"words": STRING_NETWORKS[name]}
    else:
        setting = {"addressing": TAPES[name]} if name in TAPES else asdict(SETTINGS[name]) if name else None
    return json.loads(json.dumps({"settings": values, "model": setting}))


def _kept(file: Path, header: dict[str, Any]) -> pd.DataFrame | None:
    """The rows on disk if they were measured with these settings."""
    try:
        frame = read_frame(file)
    except (FileNotFoundError, BrokenFileError):
        return None
    found = frame.attrs["provenance"]
    return frame if all(found.get(name) == value for name, value in header.items()) else None
