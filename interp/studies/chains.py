"""Chains of thought: how often they end right, what they cost, and whether the answer goes by what they say.

1. Right by the number of steps run, in bins to 16, to 32 and beyond; entries that are the
   machine's; tokens written before the answer. pass@1 and pass@k: answers are sampled; of `_SAMPLES` a program's the
   share of subsets of k with a right one (Chen et al. 2021, without bias).
2. Is the chain used? One entry of the machine's chain is changed in one token, the value of the cell that it tells,
   to another value that the cell can have. The model goes on from there:
     regenerated: it writes the rest itself. "Follows the chain" is the output of the machine's run with the cell so set
       at that step, "follows the program" that of the run as it is;
     frozen: the rest of the chain is the machine's own, and the model says the output. The entry is one of a PUT,
       whose value is printed: "follows the chain" is the output with that value, "follows the program" the true one.
     frozen throughout: the same with the value changed in every entry that tells it, from where it was written to where
       it is written over: a chain tells a value more than once, and an answer may be read from another place.
   Counted are edits for which these two differ; the third outcome is neither. By place in the chain. Controls: the
   chain unedited; and edits (regenerated) after which the machine prints the same, where the answer must stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.reading import RunError
from interp.results import Aggregation, Control, IntervalKind, Method, Metric, read_frame, rows_frame, wilson_interval
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.training.scoring import BATCH_SIZE
from interp.worlds import Split

FILE = "chains.parquet"
REGENERATED, FROZEN, THROUGHOUT = DESIGNS = "regenerated", "frozen", "frozen throughout"
FOLLOWS_CHAIN, FOLLOWS_PROGRAM = "follows the chain", "follows the program"
THIRDS = ("first third", "second third", "last third")
EDITED = 32  # executed steps of the longest run whose chain is edited
_KS = (1, 2, 4, 8, 16, 32, 64)
_SAMPLES = 64
_LEAST = 20


def require_chain(run: Run) -> None:
    """Raises RunError for a run whose task writes no chain."""
    if not run.task.writes:
        raise RunError(f"the task {run.task.name} writes no chain of thought before it answers")


def kept_or_measured(
    run: Run, *, n: int, n_sampled: int, seed: int, fresh: bool = False, progress: Progress = quiet
) -> pd.DataFrame:
    """The rows of RUN/chains.parquet where they were measured on these weights as asked; else measured anew."""
    settings = {"n": n, "n_sampled": n_sampled, "seed": seed}
    path = run.path / FILE
    if path.exists() and not fresh:
        frame = read_frame(path)
        found = frame.attrs["provenance"]
        same = found.get("digest") == run.config.digest and found.get("step") == run.step
        if same and found.get("settings") == settings:
            return frame
    rows = measure_chains(run, n=n, n_sampled=n_sampled, seed=seed, progress=progress)
    run.write_frame("chains", rows, settings=settings)
    return read_frame(path)


def measure_chains(
    run: Run, *, n: int = 2048, n_sampled: int = 64, seed: int = 2, progress: Progress = quiet
) -> pd.DataFrame:
    """All rows of this module's docstring.

    Args:
        run: of a task that writes chains.
        n: programs of each bin, and of edits.
        n_sampled: programs of each bin for pass@k, 0: none.
        seed: of the programs.

    Raises:
        RunError: the task writes no chain.
    """
    require_chain(run)
    rows: list[dict[str, Any]] = []
    bins = bins_of(run)
    for at, (name, span) in enumerate(bins.items()):
        progress(at, len(bins) + 2, name)
        rows += _behaviour(run, name, span, n, seed=seed)
        if n_sampled:
            rows += _passes(run, name, span, n_sampled, seed=seed)
    progress(len(bins), len(bins) + 2, "edited chains, regenerated")
    rows += _regenerated(run, n, seed=seed)
    progress(len(bins) + 1, len(bins) + 2, "edited chains, frozen")
    rows += _frozen(run, n, seed=seed)
    return run.identified(rows_frame(rows))


def bins_of(run: Run) -> dict[str, tuple[int, int]]:
    """The bins of steps run, by name: to 16, to 32, and beyond as far as there is room; the same of all runs."""
    most = run.task.n_steps
    spans = [(least, min(last, most)) for least, last in ((1, 16), (17, EDITED), (EDITED + 1, most)) if least <= most]
    return {f"runs of {a} to {b} steps": (a, b) for a, b in spans}


def _draw(run: Run, span: tuple[int, int], n: int, *, seed: int, split: Split = "evaluation") -> Any:
    return run.task.draw_ending(n, span, seed=seed, split=split)


@torch.inference_mode()
def _behaviour(run: Run, name: str, span: tuple[int, int], n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    task, model = run.task, run.model
    examples = _draw(run, span, n, seed=seed)
    right, entries, clean, spent = [], [], [], []
    for start in range(0, n, BATCH_SIZE):
        batch = task.render(examples[start : start + BATCH_SIZE])
        said = task.answer(model, batch)
        right.append(task.right(said, batch))
        good, there = task.entries_right(said, batch)
        entries.append(good[there])
        clean.append((good | ~there).all(axis=1))
        spent.append(task.outputs(said.numpy())[1])
    whole, faultless = np.concatenate(right), np.concatenate(clean)
    ran = task.world.run(examples, task.n_steps, keep="last").n_steps
    by_length = [whole[ran == k].mean() for k in np.unique(ran)]
    common = {"method": Method.GREEDY, "aggregation": Aggregation.MEAN, "stratum": name}
    yield {**common, "metric": Metric.EXACT_MATCH, **_share(whole)}
    yield {**common, "metric": Metric.ENTRIES_RIGHT, **_share(np.concatenate(entries))}
    yield {**common, "metric": Metric.SEQUENCE_MATCH, **_share(whole & faultless)}
    yield {**common, "metric": Metric.WRITTEN_TOKENS, "estimate": float(np.concatenate(spent).mean()), "n": n}
    macro = {"aggregation": Aggregation.MACRO, "metric": Metric.EXACT_MATCH, "estimate": float(np.mean(by_length))}
    yield {**common, **macro, "n": n}
    wrong = {
        "right behind a chain with a wrong entry": whole[~faultless],
        "right behind a faultless one": whole[faultless],
    }
    for part, hits in wrong.items():
        if len(hits):
            yield {**common, "metric": Metric.EXACT_MATCH, "part": part, **_share(hits)}


@torch.inference_mode()
def _passes(run: Run, name: str, span: tuple[int, int], n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """pass@k of `_SAMPLES` sampled answers to each of n programs; intervals over programs."""
    task, model = run.task, run.model
    examples, generator = _draw(run, span, n, seed=seed + 1), torch.Generator().manual_seed(seed)
    counts = np.zeros(n, dtype=np.int64)
    for row in range(0, n, 2):
        batch = task.render(examples[np.repeat(np.arange(row, min(row + 2, n)), _SAMPLES)])
        said = task.finished(task.write(model, batch.tokens[:, task.prompt_positions], generator=generator))
        hits = task.right(said, batch).reshape(-1, _SAMPLES).sum(axis=1)
        counts[row : row + len(hits)] = hits
    rng = np.random.default_rng(seed)
    for k in _KS:
        found = np.array([pass_at_k(_SAMPLES, int(count), k) for count in counts])
        drawn = found[rng.integers(n, size=(1000, n))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        yield {
            "method": Method.SAMPLED_TEXT,
            "metric": Metric.PASS_AT_K,
            "aggregation": Aggregation.MEAN,
            "stratum": name,
            "part": f"pass@{k}",
            "estimate": float(found.mean()),
            "ci_low": float(low),
            "ci_high": float(high),
            "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
            "n": n,
        }


def pass_at_k(n: int, right: int, k: int) -> float:
    """The chance that one of k of n samples, `right` of which are right, is: without bias (Chen et al. 2021)."""
    return 1.0 - comb(n - right, k) / comb(n, k)


@torch.inference_mode()
def _regenerated(run: Run, n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    task, model, rng = run.task, run.model, np.random.default_rng(seed)
    world, spec = task.world, task.spec
    examples = _draw(run, (2, min(EDITED, task.n_steps)), n, seed=seed + 2)
    ran = world.run(examples, task.n_steps, keep="last").n_steps
    step = (rng.random(n) * ran).astype(np.int64)  # which entry is edited, of those that executed something
    after = world.answer(examples).after(step + 1)
    pointer = after.array_ptr.astype(np.int64)
    value = after.cells[np.arange(n), pointer].astype(np.int64)
    other = (value + 1 + (rng.random(n) * (spec.max_value)).astype(np.int64)) % (spec.max_value + 1)
    edited = _continued(world, task, after, pointer, other, step)
    plain = task.outputs(task.expected(world.answer(examples)))[0]
    fits = (edited >= 0).all(axis=1)
    changes = fits & (edited != plain).any(axis=1)
    batch = task.render(examples)
    said: np.ndarray = np.full((n, spec.n_output), -1)
    at = len(task.shown) + 4 * step + 3  # the token of the value
    for k in np.unique(step):  # rows whose prefix is equally long are written together
        rows = np.flatnonzero(step == k)
        prefix = batch.tokens[rows, : at[rows[0]] + 1].clone()
        prefix[:, -1] = torch.from_numpy(task.id["NUM_0"] + other[rows])
        left = task.n_ctx - prefix.shape[1]
        written = task.write(model, prefix, most=left)
        said[rows] = task.outputs(task.finished(written).numpy())[0]
    yield from _outcomes(said, edited, plain, changes, step / np.maximum(ran, 1), REGENERATED)
    same = fits & ~changes
    if same.sum() >= _LEAST:
        kept = (said[same] == plain[same]).all(axis=1)
        yield {**_edit_row(REGENERATED, FOLLOWS_PROGRAM), "control": Control.SAME_VALUE, **_share(kept)}


def _continued(
    world: Any, task: Any, after: Any, pointer: np.ndarray, other: np.ndarray, step: np.ndarray
) -> np.ndarray:
    """The output, tokens [n, n_output], of runs that go on from the state behind `step` with one cell set; -1 where
    they do not end within the room there is."""
    cells = after.cells.copy()
    cells[np.arange(len(after)), pointer] = other
    states = after.replace("cells", cells)
    left = task.n_steps - step - 1
    ends = world.run(states, task.n_steps + 1, keep="last").n_steps <= left
    final = world.encode(world.answer(states).after(task.n_steps))[:, task.spec.layout.slice("output")]
    return np.where(ends[:, None], final.astype(np.int64), -1)


@torch.inference_mode()
def _frozen(run: Run, n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    task, model, rng = run.task, run.model, np.random.default_rng(seed + 1)
    spec = task.spec
    examples = _draw(run, (2, min(EDITED, task.n_steps)), n, seed=seed + 3)
    batch = task.render(examples)
    answers = batch.targets[:, task.slots].numpy()
    plain, spent = task.outputs(answers)
    tokens, entry = answers[:, : 4 * (task.n_steps + 1)].reshape(n, -1, 4), np.full(n, -1)
    prints = (tokens[:, :, 1] >= task.id["PUT[0]"]) & (tokens[:, :, 1] < task.id["PUT[0]"] + spec.n_output)
    for row in range(n):
        if len(places := np.flatnonzero(prints[row])):
            entry[row] = rng.choice(places)
    rows = np.flatnonzero(entry >= 0)
    entry, number = entry[rows], tokens[rows, entry[rows], 1] - task.id["PUT[0]"]
    ran_on = np.minimum(entry + 1, tokens.shape[1] - 1)
    froze = (tokens[rows, ran_on, 0] < 0) | (
        4 * entry + 4 >= spent[rows]
    )  # a PUT that is the last entry printed nothing
    keep = ~froze
    rows, entry, number = rows[keep], entry[keep], number[keep]
    value = plain[rows, number] - task.id["NUM_0"]
    other = (value + 1 + (rng.random(len(rows)) * (spec.max_value)).astype(np.int64)) % (spec.max_value + 1)
    once = plain[rows].copy()
    once[np.arange(len(rows)), number] = task.id["NUM_0"] + other
    at = torch.from_numpy(len(task.shown) + 4 * entry + 3)
    everywhere = _told(task, tokens[rows], entry)
    all_of_it = once.copy()  # a value that is told in several entries of PUT is printed as often
    row, told = np.nonzero(everywhere & prints[rows])
    all_of_it[row, tokens[rows][row, told, 1] - task.id["PUT[0]"]] = task.id["NUM_0"] + other[row]
    found: dict[str, np.ndarray] = {}
    for design in (FROZEN, THROUGHOUT, ""):
        shown, new = batch.tokens[rows].clone(), torch.from_numpy(task.id["NUM_0"] + other)
        if design == FROZEN:
            shown[torch.arange(len(rows)), at] = new
        elif design == THROUGHOUT:
            row, told = (torch.from_numpy(each) for each in np.nonzero(everywhere))
            shown[row, len(task.shown) + 4 * told + 3] = new[row]
        said = np.full((len(rows), spec.n_output), -1)
        for k in np.unique(spent[rows]):
            here = np.flatnonzero(spent[rows] == k)
            prefix = shown[here, : len(task.shown) + int(k) + 1]  # with the `=`
            written = task.write(model, prefix, most=spec.n_output)
            said[here] = written.numpy()
        found[design] = said
    everyone, true = np.ones(len(rows), dtype=bool), plain[rows]
    place = entry / np.maximum(spent[rows] // 4 - 1, 1)
    for design, expected in ((FROZEN, once), (THROUGHOUT, all_of_it)):
        yield from _outcomes(found[design], expected, true, everyone, place, design)
    kept = (found[""] == true).all(axis=1)
    yield {**_edit_row(FROZEN, FOLLOWS_PROGRAM), "control": Control.UNPATCHED, **_share(kept)}


def _told(task: Any, tokens: np.ndarray, entry: np.ndarray) -> np.ndarray:
    """Which entries tell the value that each row's entry tells, from where it was written to where it is written over,
    bool [n, n_steps + 1]; tokens [n, n_steps + 1, 4]."""
    writes = [task.id["INC"], task.id["DEC"], *(task.id[f"GET[{i}]"] for i in range(task.spec.n_input + 1))]
    found = np.zeros(tokens.shape[:2], dtype=bool)
    for row, here in enumerate(entry):
        cell, value = tokens[row, here, 2:]
        same = tokens[row, :, 2] == cell
        wrote = same & np.isin(tokens[row, :, 1], writes)
        before, after = np.flatnonzero(wrote[:here]), here + 1 + np.flatnonzero(wrote[here + 1 :])
        span = np.arange(tokens.shape[1])
        span = (span >= (before[-1] if len(before) else 0)) & (span < (after[0] if len(after) else tokens.shape[1]))
        found[row] = span & same & (tokens[row, :, 3] == value)
    return found


def _outcomes(
    said: np.ndarray, chain: np.ndarray, program: np.ndarray, counted: np.ndarray, place: np.ndarray, design: str
) -> Iterator[dict[str, Any]]:
    """How often the chain and the program are followed, of all edits that tell them apart and by their place."""
    groups = [(None, counted)]
    thirds = np.minimum((place * 3).astype(np.int64), 2)
    groups += [(name, counted & (thirds == k)) for k, name in enumerate(THIRDS)]
    for name, members in groups:
        if members.sum() < _LEAST:
            continue
        for part, expected in ((FOLLOWS_CHAIN, chain), (FOLLOWS_PROGRAM, program)):
            hit = (said[members] == expected[members]).all(axis=1)
            yield {**_edit_row(design, part), "position": name, **_share(hit)}


def _edit_row(design: str, part: str) -> dict[str, Any]:
    return {
        "method": Method.GREEDY,
        "metric": Metric.EDIT_SUCCESS,
        "aggregation": Aggregation.MEAN,
        "variable": "cell under the pointer",
        "pair_design": design,
        "part": part,
    }


def _share(hits: np.ndarray) -> dict[str, Any]:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    found = {"estimate": float(hits.mean()), "ci_low": low, "ci_high": high, "n": len(hits)}
    return {**found, "interval_kind": IntervalKind.WILSON}
