"""Tokens of streams that probes are fitted and scored on, with labels, control types and programs; no activations.

Where a probe reads is a *place*: `stream` (every token), `ops` (the tokens of instructions), `answers` (what stands
behind them), `asked` (the tokens at which the model must answer), or one position by its name, such as `stream[7]`.
Tokens of a place are pooled: one probe for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cython_vm import MachineSpec, States, program_hash
from interp.probing.examples import Examples
from interp.probing.semantics import AlteredRuns
from interp.tasks.base import Split
from interp.tasks.trace import Trace, TraceBatch

PLACES = ("stream", "ops", "answers", "asked")
_CHUNK = 256  # streams that are run and labelled at once


@dataclass(frozen=True, eq=False)
class StreamTokens(Examples):
    """Some tokens of some streams. Labels are -1 where the stream does not determine the variable; types are pairs
    (token, position), all that the embedding sees; rows rise."""

    tokens: Tensor  # long [streams, pos]: what the model sees
    position: np.ndarray  # int64 [m]


def stream_variables(spec: MachineSpec) -> list[str]:
    """What a stream never shows: the pointer, every cell, the cell under the pointer, loop state, and what follows."""
    wanted = ("array_ptr", "operand", "loop_depth", "instruction_ptr", "jump_target", "branch_taken", "result")
    names = spec.variables()
    return [name for name in wanted if name in names] + [f"cell[{i}]" for i in range(spec.n_cells)]


def eligible(task: Trace, batch: TraceBatch, place: str) -> np.ndarray:
    """The tokens of a place, bool [batch, pos].

    Raises:
        ValueError: no such place.
    """
    shown = batch.step_of >= 0
    if place == "stream":
        return shown
    if place == "answers":
        return batch.is_answer
    if place == "ops":
        return shown & ~batch.is_answer & (np.arange(shown.shape[1]) > 0)
    if place == "asked":
        return batch.loss_mask.numpy()
    if place not in task.position_names:
        raise ValueError(
            f"no place of a stream is named {place!r}: there are {', '.join(PLACES)}, or a position such as stream[7]"
        )
    return shown & (np.arange(shown.shape[1]) == task.position_names.index(place))


def draw_tokens(
    task: Trace,
    n: int,
    *,
    variables: Sequence[str],
    place: str = "stream",
    per_stream: int = 16,
    seed: int,
    split: Split,
) -> StreamTokens:
    """About `n` tokens of a place: at most `per_stream` of each stream, drawn without replacement.

    Streams are run in parts, and only the chosen tokens' labels are kept.

    Raises:
        ValueError: an unknown variable or place, or a place that no stream has.
    """
    per_stream = 1 if place in task.position_names else per_stream
    n_streams = -(-n // per_stream)
    rng = np.random.default_rng([seed, {"all": 0, "train": 1, "evaluation": 2}[split]])
    parts: list[StreamTokens] = []
    for start in range(0, n_streams, _CHUNK):
        batch = task.sample(min(_CHUNK, n_streams - start), seed=seed, start=start, split=split)
        parts.append(_chosen(task, batch, variables, eligible(task, batch, place), per_stream, rng, first=start))
    if not sum(map(len, parts)):
        raise ValueError(f"none of {n_streams} streams has a token at {place!r}")
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1)
        for name in ("row", "position", "step", "labels", "altered", "types", "ages", "programs")
    }
    starts = States.concatenate([part.starts for part in parts])
    return StreamTokens(tokens=torch.cat([part.tokens for part in parts]), starts=starts, **arrays)


def _chosen(
    task: Trace,
    batch: TraceBatch,
    variables: Sequence[str],
    allowed: np.ndarray,
    per_stream: int,
    rng: np.random.Generator,
    *,
    first: int,
) -> StreamTokens:
    order = np.where(allowed, rng.random(allowed.shape), 2.0).argsort(axis=1)[:, :per_stream]
    rank = np.zeros(allowed.shape, dtype=bool)
    np.put_along_axis(rank, order, True, axis=1)
    row, position = np.nonzero(rank & allowed)
    other = AlteredRuns(batch.examples, task.n_steps)
    steps = batch.step_of[row, position]
    tokens = batch.tokens.numpy()
    return StreamTokens(
        tokens=batch.tokens,
        starts=batch.examples,
        row=row + first,
        position=position,
        step=steps,
        labels=np.stack([task.labels(batch, name)[row, position] for name in variables]),
        altered=np.stack([other.labels(name, row, steps) for name in variables]),
        types=tokens[row, position] * task.n_ctx + position,
        ages=task.steps_since_revealed(batch)[row, position].T,
        programs=program_hash(batch.examples).astype(np.int64)[row],
    )
