"""Edits of parts of a loop's carry: does the rest of the run follow from there?

1. Blocks: base goes on with the positions of one block (program, input, output) of source's carry after loop step t,
   put in once, or held there at every later step too. The answer then is source's, base's again, or neither. Control:
   pairs that the model answers alike, of which the answer must stay.
2. Variables: what a probe reads of a variable X after s executed instructions, exchanged. The probe is that of the best
   loop step for s, chosen on validation (thinking.py); base takes source's part within the probe's row space, once, or
   at every later step too, or in what enters each step (`input`, with the probe fitted there). Judged by the machine:
   the output of base's run with X set to source's value after s instructions, where that differs from base's output.
   Controls: the model left alone, a random subspace of the same rank, and sources in which X is the same, of which the
   answer must stay. Pairs are held-out programs that both run longer than s.

That nothing follows is an outcome: a loop whose input enters at every step may find its state again from the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.results import Aggregation, Control, IntervalKind, Method, Metric, wilson_interval
from interp.runs import Run
from interp.tasks import Batch

AT_STEPS = (1, 2, 4, 6, 8, 10, 11, 12)  # loop steps after which blocks are exchanged, as far as there are so many
EDITED = (1, 2, 4, 8)  # executed instructions after which a variable is set
ONCE, HELD, INPUT = "once", "held", "input"
_LEAST = 20  # pairs, else nothing is said
_DRAWS = 2048  # pairs that are looked through for those that an edit changes
Hooks = list[tuple[str, Callable[..., Tensor]]]


@dataclass(frozen=True)
class Reader:
    """Where a variable is read best after some executed step: the loop step, 0 for what enters, and the directions."""

    time: int
    basis: Tensor  # [pos * d_model, k], orthonormal


@torch.inference_mode()
def block_rows(run: Run, n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """IIA and RETURN by block and loop step, rows with `position` the block, `time`, and `part` once or held.

    Args:
        run: of a looped model whose answers stand at positions that are asked.
        n: pairs that are drawn.
        seed: of the pairs.
    """
    model, task = run.model, run.task
    hooks = list(model.step_hooks())
    both = task.sample(2 * n, seed=seed, split="evaluation")
    base, asked = both.tokens[:n], both.targets >= 0
    with model.looping(len(hooks)):
        logits, cache = model.run_with_cache(both.tokens, names_filter=hooks, return_cache_object=False)
        own = _answers(logits, asked)
        alike = (own[:n] == own[n:]).all(axis=1)
        for block in task.blocks():
            at = task.resolve(block, both[:1])[0]
            for t in (t for t in AT_STEPS if t <= len(hooks)):
                for part, edited in ((ONCE, hooks[t - 1 : t]), (HELD, hooks[t - 1 :])):
                    put: Hooks = [(hook, _put_positions(cache[hook][n:], at)) for hook in edited]
                    said = _answers(model.run_with_hooks(base, fwd_hooks=put), asked[:n])
                    source, again = ((said == each).all(axis=1) for each in (own[n:], own[:n]))
                    common = {"method": Method.FULL_VECTOR, "position": block, "time": t, "part": part}
                    yield {**common, "metric": Metric.IIA, **_share(source[~alike])}
                    yield {**common, "metric": Metric.RETURN, **_share(again[~alike])}
                    if alike.sum() >= _LEAST:
                        same = {"metric": Metric.RETURN, "control": Control.SAME_VALUE}
                        yield {**common, **same, **_share(again[alike])}


@torch.inference_mode()
def variable_rows(
    run: Run, readers: Mapping[tuple[str, int, bool], Reader], n: int, *, seed: int
) -> Iterator[dict[str, Any]]:
    """IIA of what probes read, rows with `variable`, `lag` (executed instructions), `time`, and `part` once, held or
    input.

    Args:
        run: of a looped model about runs.
        readers: by variable, executed step, and whether of what enters the loop.
        n: pairs that an edit changes, at most.
        seed: of the pairs.
    """
    world, task, model = run.task.world, run.task, run.model
    half = max(n, _DRAWS)
    drawn = task.draw(2 * half, seed=seed, split="evaluation")
    base, source = drawn[np.arange(half)], drawn[half + np.arange(half)]
    runs = [world.run(each, task.n_steps, keep="last").n_steps for each in (base, source)]
    plain = task.expected(world.answer(base))
    for (name, s, entering), reader in readers.items():
        if s not in EDITED:
            continue
        longer = (runs[0] > s) & (runs[1] > s)
        values, kept = (np.asarray(world.read(each, name, np.where(longer, s, 0))) for each in (source, base))
        edited = world.answer(base, do={name: np.where(longer, values, kept)}, at=np.where(longer, s, 0))
        expected = task.expected(edited)
        fits = longer & edited.valid & (values >= 0) & (kept >= 0)
        changes = np.flatnonzero(fits & (expected != plain).any(axis=1))[:n]
        same = np.flatnonzero(fits & (values == kept))[:n]
        if len(changes) < _LEAST:
            continue
        k = reader.basis.shape[1]
        generator = torch.Generator().manual_seed(seed)
        chance = torch.linalg.qr(torch.randn(reader.basis.shape, generator=generator))[0]
        common = {"variable": name, "lag": s, "time": reader.time, "rank": k, "metric": Metric.IIA}
        judged: list[tuple[Control | None, Tensor | None, np.ndarray]] = [
            (None, reader.basis, changes),
            (Control.RANDOM_SUBSPACE, chance, changes),
            (Control.UNPATCHED, None, changes),
            (Control.SAME_VALUE, reader.basis, same),
        ]
        for control, basis, rows in judged:
            if len(rows) < _LEAST:
                continue
            pair = [task.render(each[rows]) for each in (base, source)]
            for part in (INPUT,) if entering else (ONCE, HELD):
                said = _swapped(model, pair[0], pair[1], reader.time, basis, held=part == HELD)
                hit = (said[:, task.slots] == expected[rows]).all(axis=1)
                yield {"method": Method.PROBE_SUBSPACE, **common, "part": part, "control": control, **_share(hit)}


def _swapped(model: Any, base: Batch, source: Batch, time: int, basis: Tensor | None, *, held: bool) -> np.ndarray:
    """Base's likeliest tokens, int64 [n, pos], with source's part within `basis` after loop step `time` (0: in what
    enters every step)."""
    steps = list(model.step_hooks())
    with model.looping(len(steps)):
        if basis is None:
            return model(base.tokens).argmax(-1).numpy()
        hooks = ["hook_input"] if not time else steps[time - 1 :] if held else steps[time - 1 : time]
        _, cache = model.run_with_cache(source.tokens, names_filter=hooks, return_cache_object=False)
        put: Hooks = [(hook, _put_within(cache[hook], basis)) for hook in hooks]
        return model.run_with_hooks(base.tokens, fwd_hooks=put).argmax(-1).numpy()


def _put_positions(values: Tensor, at: Tensor) -> Callable[..., Tensor]:
    def put(activation: Tensor, hook: Any) -> Tensor:
        edited = activation.clone()
        edited[:, at] = values[:, at]
        return edited

    return put


def _put_within(values: Tensor, basis: Tensor) -> Callable[..., Tensor]:
    def put(activation: Tensor, hook: Any) -> Tensor:
        difference = (values - activation).flatten(1)
        return activation + ((difference @ basis) @ basis.T).view_as(activation)

    return put


def _answers(logits: Tensor, asked: Tensor) -> np.ndarray:
    """The likeliest tokens where something is asked, -1 elsewhere, int64 [n, pos]."""
    return torch.where(asked, logits.argmax(-1), -1).numpy()


def _share(hits: np.ndarray) -> dict[str, Any]:
    low, high = wilson_interval(int(hits.sum()), max(1, len(hits)))
    found = {"estimate": float(hits.mean()) if len(hits) else float("nan"), "ci_low": low, "ci_high": high}
    return {**found, "n": len(hits), "aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON}
