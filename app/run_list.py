"""The runs that the app may open: those that lie in `runs/` and `checkpoints/`, and the one it was started with.

Read from the head of their files alone: no torch, and nothing is opened that a link could not name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from app import run_access
from app.run_access import fingerprint
from interp import RunError
from interp.reading import read_json
from interp.results import Aggregation, Metric, read_frame, records, select
from interp.runs.folder import FORMAT
from interp.tasks.registry import TASKS
from interp.worlds import WORLDS


@dataclass(frozen=True)
class Listed:
    """A run as the picker shows it."""

    address: str  # what `?run=` holds
    name: str
    world: str
    task: str
    bundled: bool
    accuracy: float | None  # mean exact match over strata, 0 to 1; None where nothing was evaluated


def folders() -> list[Path]:
    """The folders that may hold a run, each once: bundled ones, those where the person is, the one started with."""
    found: dict[Path, Path] = {}
    places = [base / name for base in dict.fromkeys((run_access.ROOT, Path.cwd())) for name in ("checkpoints", "runs")]
    for place in places:
        for folder in sorted(place.iterdir()) if place.is_dir() else []:
            if folder.is_dir():
                found.setdefault(folder.resolve(), folder)
    started = run_access.started_path()
    found.setdefault(started.resolve(), started)
    return list(found.values())


def listed() -> tuple[list[Listed], int]:
    """The runs that can be read, by world, task and name; and how many folders could not."""
    runs, unreadable = [], 0
    for folder in folders():
        try:
            run_access.linked_path(str(folder))
            prints = tuple(fingerprint(folder / name) for name in ("config.json", "card.json", "metrics.parquet"))
            runs.append(_read(str(folder), prints))
        except RunError:
            unreadable += 1
    return sorted(runs, key=lambda run: (run.world, run.task, not run.bundled, run.name)), unreadable


@st.cache_data(show_spinner=False, max_entries=512)
def _read(folder: str, fingerprints: tuple[str, ...]) -> Listed:
    path = Path(folder)
    try:
        values = read_json(path / "config.json", "a run's config")
        world = values["world"]["name"] if "world" in values else "machine"
        task, digest = values["task"], values["digest"]
        known = values["format"] == FORMAT and world in WORLDS and task in TASKS
    except (FileNotFoundError, KeyError, TypeError) as error:
        raise RunError(f"{folder} is no run folder: {error}") from None
    if not known or not (path / "model.safetensors").is_file():
        raise RunError(f"{folder} holds no run that this version reads")
    bundled = path.resolve().parent == (run_access.ROOT / "checkpoints").resolve()
    accuracies = [found for read in (_of_card, _of_metrics) if (found := _attempt(read, path, digest)) is not None]
    return Listed(address_of(path), path.name, world, task, bundled, accuracies[0] if accuracies else None)


def _attempt(read: Any, path: Path, digest: str) -> float | None:
    """What a file says of the run's accuracy; None where it is not there, broken, or of another config."""
    try:
        return read(path, digest)
    except (FileNotFoundError, KeyError, TypeError, ValueError, RunError):
        return None


def _of_card(path: Path, digest: str) -> float | None:
    """From the evaluation that the run's card tells of."""
    card = read_json(path / "card.json", "a card")
    whole = [row for row in card["rows"] if (row["metric"], row["aggregation"]) == ("exact_match", "macro")]
    return float(whole[0]["estimate"]) if whole and card["digest"] == digest else None


def _of_metrics(path: Path, digest: str) -> float | None:
    """From the last evaluation during or after training."""
    frame = read_frame(path / "metrics.parquet")
    if frame.attrs["provenance"].get("digest") != digest:
        return None
    macro = records(select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    if not macro:
        return None
    return float(max(macro, key=lambda row: (row["checkpoint_step"], row["n"]))["estimate"])


def address_of(path: Path) -> str:
    """The path as a link spells it: from where the person is, where it lies there."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
