"""Of each PUT of a stream: which tokens made its value, told it, or were overwritten, as `value_sources` says."""

from __future__ import annotations

import numpy as np

from interp.tasks.trace_batch import TraceBatch
from interp.tasks.value_sources import COUNTED, HISTORIES, KINDS, NEVER, OVERWRITTEN, READ_IN, ValueSources
from interp.worlds.machine import Op

_CHANGE, _TELL, _MOVE = (Op.INC, Op.DEC, Op.GET), (Op.PUT, Op.WHILE, Op.ENDW), (Op.NEXT, Op.PREV)


def stream_sources(streams: TraceBatch) -> ValueSources:
    """Of each PUT of some streams."""
    states, tokens = streams.run.states, streams.tokens.numpy()
    assert states is not None
    at, step = np.maximum(streams.state_of, 0), streams.step_of
    op = np.where(step >= 0, streams.world.step(states).latents["op"].astype(np.int64)[at], -1)
    cell = states.array_ptr.astype(np.int64)[at]
    row, position = np.nonzero(streams.loss_mask.numpy() & (tokens == streams.world.spec.op_id(Op.PUT)))
    of, now, places = op[row], step[row], np.arange(tokens.shape[1])
    earlier = (now < step[row, position][:, None]) & (now >= 0) & (places > 0)
    on_it = earlier & (cell[row] == cell[row, position][:, None])
    last_get = _last(now, on_it & (of == Op.GET))
    changed = on_it & np.isin(of, _CHANGE) & (now >= last_get)
    shown = on_it & np.isin(of, _TELL) & (now > _last(now, changed))
    kinds = np.full(now.shape, KINDS.index("other cells"))
    for name, members in (
        ("made", on_it & np.isin(of, _TELL)),  # shown between two changes: part of how it came about
        ("moves", earlier & np.isin(of, _MOVE)),
        ("overwritten", on_it & ~np.isin(of, _MOVE) & (now < last_get)),
        ("told", shown),
        ("made", changed),
        ("itself", ~earlier),
    ):
        kinds[members] = KINDS.index(name)
    before_get = (on_it & np.isin(of, _CHANGE) & (now < last_get)).any(axis=1)
    history = np.select(
        [~changed.any(axis=1), last_get[:, 0] < 0, ~before_get],
        [HISTORIES.index(NEVER), HISTORIES.index(COUNTED), HISTORIES.index(READ_IN)],
        HISTORIES.index(OVERWRITTEN),
    )
    return ValueSources(row, position, np.where(places <= position[:, None], kinds, -1), ~shown.any(axis=1), history)


def _last(step: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The latest step among members, int64 [asked, 1]; -1: none."""
    return np.where(members, step, -1).max(axis=1, keepdims=True)
