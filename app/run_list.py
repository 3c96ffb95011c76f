"""The runs that the app may open: those that lie in `runs/` and `checkpoints/`, and the one it was started with.

Read from the head of their files alone: no torch, and nothing is opened that a link could not name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from app import run_access
from app.run_access import fingerprint
from interp import RunError
from interp.files import sha256_of
from interp.reading import read_json
from interp.results import Aggregation, Metric, read_table
from interp.runs.folder import FORMAT
from interp.tasks.registry import TASKS
from interp.worlds import WORLDS

_READ = ("config.json", "card.json", "metrics.parquet", "model.safetensors")


@dataclass(frozen=True)
class Headline:
    """How much of what a run is asked is right: mean exact match over strata, 0 to 1, on `n` held-out examples."""

    estimate: float
    n: int
    bits: float | None = None  # of a model of text: what a character of held-out text costs it


@dataclass(frozen=True)
class Listed:
    """A run as the picker shows it."""

    address: str  # what `?run=` holds
    name: str
    world: str
    task: str
    bundled: bool
    headline: Headline | None  # None where nothing was evaluated, or on other weights

    @property
    def accuracy(self) -> float | None:
        """Mean exact match over strata, 0 to 1; None where nothing was evaluated."""
        return None if self.headline is None else self.headline.estimate

    @property
    def words(self) -> str:
        """How good it is, as it is listed: "99.98 % right"; of text, where nobody can be right of all that comes next,
        "1.66 bits a character"."""
        if self.headline is None:
            return "not evaluated"
        bits = self.headline.bits
        return f"{percent(self.headline.estimate)} right" if bits is None else f"{bits:.2f} bits a character"


def percent(share: float) -> str:
    """A share as it is listed; never rounded up to 100 %."""
    return "100 %" if share == 1 else f"{min(share, 0.9999):.2%}".replace("%", " %")


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
            runs.append(read(folder))
        except RunError:
            unreadable += 1
    return sorted(runs, key=lambda run: (run.world, run.task, not run.bundled, run.name)), unreadable


def read(folder: Path) -> Listed:
    """What the files of a run folder say of it, read again where they have changed. Raises RunError for no run."""
    return _read(str(folder), str(Path.cwd()), tuple(fingerprint(folder / name) for name in _READ))


@st.cache_data(show_spinner=False, max_entries=512)
def _read(folder: str, here: str, fingerprints: tuple[str, ...]) -> Listed:
    """`here`: where the person is, which is where addresses begin."""
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
    return Listed(address_of(path), path.name, world, task, bundled, _headline(path, digest))


def _headline(path: Path, digest: str) -> Headline | None:
    """What the card says, else the last evaluation during or after training; nothing that is about other weights."""
    for file, read_file in (("card.json", _of_card), ("metrics.parquet", _of_metrics)):
        try:
            found, about, weights = read_file(path / file)
            if about == digest and weights not in (None, sha256_of(path / "model.safetensors")):
                return None  # the folder holds what was measured on the weights that it had before
            if about == digest and found is not None:
                return found
        except (OSError, KeyError, TypeError, ValueError, RunError):  # not there, or broken
            continue
    return None


def _of_card(file: Path) -> tuple[Headline | None, str, str | None]:
    """What a card tells, of which config, and of weights with which hash (None: it does not say)."""
    card = read_json(file, "a card")
    whole = [row for row in card["rows"] if (row["metric"], row.get("aggregation")) == ("exact_match", "macro")]
    bits = [float(row["estimate"]) for row in card["rows"] if row["metric"] == Metric.BITS]
    found = Headline(float(whole[0]["estimate"]), int(whole[0]["n"]), next(iter(bits), None)) if whole else None
    return found, card["digest"], card.get("weights")


def _of_metrics(file: Path) -> tuple[Headline | None, str, str | None]:
    """The same of the last evaluation in a frame, which is read without pandas."""
    table, made = read_table(file)
    columns = table.select(["metric", "aggregation", "checkpoint_step", "n", "estimate"]).to_pylist()
    macro = [row for row in columns if (row["metric"], row["aggregation"]) == (Metric.EXACT_MATCH, Aggregation.MACRO)]
    last = max(macro, key=lambda row: (row["checkpoint_step"], row["n"]), default=None)
    cost = max(
        (row for row in columns if row["metric"] == Metric.BITS), key=lambda row: row["checkpoint_step"], default=None
    )
    bits = None if cost is None else cost["estimate"]
    return None if last is None else Headline(last["estimate"], last["n"], bits), made["digest"], made.get("weights")


def address_of(path: Path) -> str:
    """The path as a link spells it: from where the person is, where it lies there."""
    whole, here = path.absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)
