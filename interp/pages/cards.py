"""Run cards: what a trained model is, how it was made, what it gets right, and what it is known to get wrong.

`card.json` holds what was measured, `card.md` says it in words; every figure of the page is one of the file. Measuring
again with another seed (`tapelens eval RUN --seed …`) gives figures inside the intervals of the card, 19 times in 20.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pandas as pd

from interp.commands import command
from interp.evaluation.measure import Evaluation, Progress, measure
from interp.evaluation.overlap import overlap
from interp.files import sha256_of, write_json, write_text
from interp.pages.card_page import card_page
from interp.reading import read_json
from interp.results import COLUMNS, Aggregation, Metric, read_frame, records, rows_frame, select
from interp.runs import Run, RunError, hardware, provenance
from interp.stage_options import CardOptions

CARD_SEED = 7  # of the card's states; training, its curve and the final evaluation use others
FORMAT = 1


def make_card(
    run: Run,
    *,
    n: int = 100_000,
    seed: int = CARD_SEED,
    programs: int = 500,
    progress: Progress = lambda done, total, at: None,
) -> dict[str, Any]:
    """Measure a run on `n` held-out examples and `programs` whole programs; write card.json and card.md into it.

    Returns:
        What card.json holds, JSON-ready.

    Raises:
        RunError: the run is incomplete.
        ValueError: n is below 1.
    """
    began = time.perf_counter()
    evaluation = measure(run, n=n, seed=seed, programs=programs, progress=progress)
    values = card_values(run, evaluation, n=n, seed=seed, programs=programs, seconds=time.perf_counter() - began)
    values |= _overlap(run, evaluation.rows, n=n, seed=seed, progress=progress)
    _write(run, values)
    return values


def card_stage(
    run: Run,
    options: CardOptions = CardOptions(),  # noqa: B008 (frozen)
    *,
    progress: Progress = lambda done, total, at: None,
) -> dict[str, Any]:
    """The run's card as it is on the disk, where it is of these weights and was asked the same; else made anew."""
    with contextlib.suppress(RunError):
        values = read_card(run.path)
        same = (values["digest"], values["step"]) == (run.config.digest, run.step)
        if same and all(values["evaluation"].get(name) == value for name, value in vars(options).items()):
            return values
    return make_card(run, **vars(options), progress=progress)


def add_overlap(run: Run, *, progress: Progress = lambda done, total, at: None) -> dict[str, Any]:
    """Measure what the run had seen of its card's held-out examples, and add it to the card; the rest stays.

    Raises:
        RunError: no card, or one of other weights; a run that it began from is gone.
        ValueError: its training examples cannot be drawn again.
    """
    values = read_card(run.path)
    if (values["digest"], values["step"]) != (run.config.digest, run.step):
        raise RunError(f"{run.path / 'card.json'} is of other weights; make it anew with: {command('card', run.path)}")
    asked = values["evaluation"]
    values |= _overlap(run, rows_frame(values["rows"]), n=asked["n"], seed=asked["seed"], progress=progress)
    _write(run, values)
    return values


def _write(run: Run, values: dict[str, Any]) -> None:
    write_json(run.path / "card.json", values)
    write_text(run.path / "card.md", card_page(values))


def _overlap(run: Run, rows: pd.DataFrame, *, n: int, seed: int, progress: Progress) -> dict[str, Any]:
    """The card's part about old examples among the held-out ones; {} where there cannot be any."""
    found = overlap(run, rows, n=n, seed=seed, progress=progress)
    if found is None:
        return {}
    kept = [{name: value for name, value in row.items() if value is not None} for row in found.rows()]
    return {"overlap": {"trained": found.n_trained, "different": found.n_units, "rows": kept}}


def read_card(path: Path) -> dict[str, Any]:
    """`card.json` of a run folder. Raises RunError where there is none, or one of another version or other weights."""
    try:
        values = read_json(path / "card.json", "a run's card")
    except FileNotFoundError:
        raise RunError(f"{path} has no card.json; make it with: {command('card', path)}") from None
    if values.get("format") != FORMAT:
        raise RunError(f"{path / 'card.json'} has format {values.get('format')}; this version reads {FORMAT}")
    require_own_weights(path, values)
    return values


def require_own_weights(path: Path, card: dict[str, Any]) -> None:
    """Refuse a card that came into the folder with other weights than lie there now. Raises RunError.

    Cards made before they kept the hash of their weights say nothing of it, and pass.
    """
    weights = path / "model.safetensors"
    if "weights" in card and weights.is_file() and sha256_of(weights) != card["weights"]:
        raise RunError(f"{path / 'card.json'} is of other weights; make it anew with: {command('card', path)}")


def card_values(
    run: Run, evaluation: Evaluation, *, n: int, seed: int, programs: int, seconds: float
) -> dict[str, Any]:
    """What the card says, JSON-ready: the run's making from its files, the rest from the evaluation."""
    config = run.config
    made = read_json(run.path / "config.json", "a run's config")
    kept = [name for name in COLUMNS if name not in ("run", "seed", "checkpoint_step", "architecture", "task")]
    rows = [{name: row[name] for name in kept if row[name] is not None} for row in records(evaluation.rows)]
    shown = config.to_dict()
    for name in ("position_roles", "position_indices"):  # one number a position: they follow from task and machine
        shown["model"].pop(name, None)
    return {
        "format": FORMAT,
        **provenance(config, step=run.step),
        "weights": sha256_of(run.weights),
        "name": run.name,
        "command": made.get("command"),
        "config": shown,
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "training": _training(run) | {"hardware": made.get("hardware")},
        "evaluation": {"n": n, "seed": seed, "programs": programs, "seconds": seconds, "hardware": hardware()},
        "n_wrong": evaluation.n_wrong,
        "rows": rows,
        "rollouts": [
            {
                "programs": each.programs,
                "n": len(each),
                "median_steps": int(sorted(each.n_steps.tolist())[len(each) // 2]),
                "longest": int(each.n_steps.max()),
                "departed": sorted(each.departed[each.departed > 0].tolist()),
            }
            for each in evaluation.rollouts
        ],
        "failures": [
            {"row": each.row, "op": each.stratum, "outcome": each.part, "words": each.words()}
            for each in evaluation.failures
        ],
    }


def _training(run: Run) -> dict[str, Any]:
    """Steps, records and seconds that the training logged, as far as the run's files tell."""
    found: dict[str, Any] = {"steps": run.step, "records": None, "seconds": None, "threads": None}
    try:
        metrics = read_frame(run.path / "metrics.parquet")
    except FileNotFoundError:
        return found
    for name, metric in (("records", Metric.RECORDS), ("seconds", Metric.SECONDS)):
        logged = select(metrics, metric=metric, aggregation=Aggregation.MEAN).sort_values("checkpoint_step")
        if len(logged):
            found[name] = float(logged["estimate"].iloc[-1])
    found["threads"] = metrics.attrs["provenance"].get("hardware", {}).get("threads")
    return found
