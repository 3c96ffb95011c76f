"""From reading to writing: change what a probe reads, and hold the model's answer against the world's.

A probe's direction is a hypothesis about the model: if the model uses what the probe reads, writing another value there
must change its answer as the world's changes when the variable is set. The share of edits with exactly that answer is
the edit's success. Only pairs whose answer changes count. Beside it, on the same pairs:

    unpatched         the model left alone (a right model scores 0)
    random_subspace   a change of the same length in a random direction
    wrong_site        the same change half the model away

Where edits are made, and what is written, is in `edits`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.probing.activations import position_axis
from interp.probing.edits import (
    SCOPES,
    EditPairs,
    TokenEdits,
    changing_pairs,
    place_edits,
    right_answers,
    scope_edits,
)
from interp.probing.examples import HookResult
from interp.probing.label_sets import family_title
from interp.probing.places import places_to_edit
from interp.probing.readout import Edit, Readout
from interp.results import Aggregation, Control, IntervalKind, Method, Metric, wilson_interval
from interp.tasks import Task

METHODS: dict[Edit, Method] = {
    "mean": Method.PROBE_MEAN,
    "shift": Method.PROBE_SHIFT,
    "logits": Method.PROBE_LOGITS,
}
_BATCH = 64
Counts = dict[Control | None, tuple[int, int]]  # answers that are the counterfactual, and pairs


def edit_rows(
    model: Any,
    task: Task,
    result: HookResult,
    *,
    other_hook: str,
    n_pairs: int,
    seed: int,
    kinds: Sequence[Edit] = ("mean",),
    pairs: dict[str, EditPairs] | None = None,
) -> list[dict[str, Any]]:
    """Edits along the linear probes of a hook, as rows: `edit_streams` where the task pools tokens (along the probes of
    the first place, which then is not where the edit is made), else `edit_places`; none where the world has no `do`.

    Args:
        other_hook: where the control `wrong_site` makes them.
        pairs: filled with the pairs of each variable, so that several hooks judge the same ones.
    """
    if "do" not in task.world.capabilities:
        return []
    wanted: dict[str, Any] = {
        "hook": result.hook,
        "other_hook": other_hook,
        "method": result.method,
        "n_pairs": n_pairs,
        "seed": seed,
        "kinds": kinds,
        "pairs": pairs,
    }
    if task.token_places():
        first = {name: readout for (name, place), readout in result.readouts.items() if place == result.places[0]}
        return edit_streams(model, task, first, **wanted)
    kept = set(places_to_edit(task, result.places))
    readouts = {key: each for key, each in result.readouts.items() if key[1] in kept and len(each.basis)}
    return edit_places(model, task, readouts, **wanted)


def edit_places(
    model: Any,
    task: Task,
    readouts: Mapping[tuple[str, str], Readout],
    *,
    hook: str,
    other_hook: str,
    method: str,
    n_pairs: int = 128,
    seed: int = 4,
    kinds: Sequence[Edit] = ("mean",),
    pairs: dict[str, EditPairs] | None = None,
) -> list[dict[str, Any]]:
    """Edit success at single positions of a hook, judged on the whole answer: variables by places, as rows.

    Args:
        model: the hooked model.
        task: draws the pairs and knows the world.
        readouts: (variable, place) -> what the probe there reads; variables that cannot be set are left out.
        hook: where the probes were fitted and the edits are made.
        other_hook: where the control `wrong_site` makes them.
        method: the probe, for the rows' `granularity`.
        n_pairs: pairs a variable, at most, whose answer changes.
        seed: of the pairs and the random directions.
        kinds: ways of editing, see `readout`.
        pairs: as in `edit_rows`.
    """
    pairs, rows = {} if pairs is None else pairs, []
    for name in dict.fromkeys(name for name, _ in readouts):
        if not task.can_swap(name):
            continue
        if name not in pairs:
            pairs[name] = changing_pairs(model, task, name, n_pairs, spare=4, seed=seed)
        for place in (place for variable, place in readouts if variable == name):
            edits = place_edits(task, pairs[name].pairs, name, place)
            for kind in kinds:
                counts = _judged(model, pairs[name], edits, readouts[name, place], hook, other_hook, kind, seed)
                rows += _rows(counts, hook, place, kind, method, name)
    return [row for row in rows if row["n"]]


def edit_streams(
    model: Any,
    task: Task,
    readouts: Mapping[str, Readout],
    *,
    hook: str,
    other_hook: str,
    method: str,
    n_pairs: int = 64,
    seed: int = 4,
    kinds: Sequence[Edit] = ("mean",),
    scopes: Sequence[str] = SCOPES,
    pairs: dict[str, EditPairs] | None = None,
) -> list[dict[str, Any]]:
    """Edit success at tokens of streams, at one hook, as rows.

    Args:
        readouts: what the probes at `hook` read, by variable; those that cannot be set in a stream are left out.
        n_pairs: pairs a variable whose answer changes; the members of a family share them, and are also pooled.
        scopes: at the judged token alone, or from the edited step on.

    The others are those of `edit_places`.
    """
    pairs = {} if pairs is None else pairs
    variables = task.world.variables()
    settable = [name for name in readouts if task.can_swap(name)]
    members = Counter(variables[name].family for name in settable if name != variables[name].family)
    rows: list[dict[str, Any]] = []
    pooled: dict[tuple[str, str, Edit], list[Counts]] = {}
    for name in settable:
        family = variables[name].family
        if name not in pairs:
            wanted = -(-n_pairs // members[family]) if name != family else n_pairs
            pairs[name] = changing_pairs(model, task, name, wanted, spare=2, seed=seed)
        for scope in scopes:
            edits = scope_edits(task, pairs[name].pairs, name, scope)
            for kind in kinds:
                counts = _judged(model, pairs[name], edits, readouts[name], hook, other_hook, kind, seed)
                rows += _rows(counts, hook, scope, kind, method, name)
                if name != family:
                    pooled.setdefault((family_title(variables[name]), scope, kind), []).append(counts)
    for (title, scope, kind), parts in pooled.items():
        together = {
            control: (sum(part[control][0] for part in parts), sum(part[control][1] for part in parts))
            for control in parts[0]
        }
        rows += _rows(together, hook, scope, kind, method, title)
    return [row for row in rows if row["n"]]


def _judged(
    model: Any,
    drawn: EditPairs,
    edits: TokenEdits,
    readout: Readout,
    hook: str,
    other_hook: str,
    kind: Edit,
    seed: int,
) -> Counts:
    """For the edit and its controls: answers that are the world's counterfactual, and pairs. A pair in which there is
    nothing to write, or the probe never saw one of the values, is left out."""
    pairs = drawn.pairs
    known = (readout.place(edits.present) >= 0) & (readout.place(edits.target) >= 0)
    usable = np.setdiff1d(edits.row, edits.row[~known])
    # One direction for each edit, whichever of them can be made.
    directions = torch.randn((len(edits), readout.weights.shape[1]), generator=torch.Generator().manual_seed(seed))
    right: dict[Control | None, int] = {
        None: 0,
        Control.UNPATCHED: int(drawn.unpatched[usable].sum()),
        Control.RANDOM_SUBSPACE: 0,
        Control.WRONG_SITE: 0,
    }
    for start in range(0, len(usable), _BATCH):
        rows = usable[start : start + _BATCH]
        write = partial(_write, edits=edits, rows=rows, readout=readout, kind=kind)
        changes = {
            None: (hook, partial(write, axis=position_axis(model, hook))),
            Control.RANDOM_SUBSPACE: (hook, partial(write, axis=position_axis(model, hook), directions=directions)),
            Control.WRONG_SITE: (other_hook, partial(write, axis=position_axis(model, other_hook))),
        }
        for control, change in changes.items():
            right[control] += int(right_answers(model, pairs, rows, [change]).sum())
    return {control: (count, len(usable)) for control, count in right.items()}


def _write(
    activation: Tensor,
    hook: Any,
    *,
    edits: TokenEdits,
    rows: np.ndarray,
    readout: Readout,
    kind: Edit,
    axis: int,
    directions: Tensor | None = None,
) -> Tensor:
    """The hook function: a copy of the activation of pairs `rows`, which rise, with their edits made; each turned into
    its random direction where directions [edits, d] are given."""
    changed = activation.clone()
    by_position = changed.movedim(axis, 1)  # a view: [batch, pos, …]
    part = edits.of_rows(rows)
    at = (torch.from_numpy(np.searchsorted(rows, edits.row[part])), torch.from_numpy(edits.position[part]))
    there = by_position[at]
    h = there.flatten(1).float()  # heads side by side, as the probe reads them
    written = readout.edited(h, edits.present[part], edits.target[part], how=kind)
    if directions is not None:
        written = turned(h, written, directions[torch.from_numpy(part)])
    by_position[at] = written.reshape(there.shape).to(there.dtype)
    return changed


def turned(h: Tensor, written: Tensor, directions: Tensor) -> Tensor:
    """h [k, d] changed by as much as in `written`, in these directions [k, d]."""
    return h + directions * (written - h).norm(dim=-1, keepdim=True) / directions.norm(dim=-1, keepdim=True)


def _rows(counts: Counts, hook: str, position: str, kind: Edit, method: str, name: str) -> list[dict[str, Any]]:
    rows = []
    for control, (right, n) in counts.items():
        low, high = wilson_interval(right, n)
        rows.append(
            {
                "site": hook,
                "position": position,
                "method": METHODS[kind],
                "granularity": method,
                "control": control,
                "pair_design": "independent",
                "stratum": "changes",
                "metric": Metric.EDIT_SUCCESS,
                "aggregation": Aggregation.MEAN,
                "interval_kind": IntervalKind.WILSON,
                "variable": name,
                "estimate": right / n if n else float("nan"),
                "ci_low": low,
                "ci_high": high,
                "n": n,
            }
        )
    return rows


def wrong_hooks(hooks: Sequence[str]) -> dict[str, str]:
    """For each hook the one half the model away, where an edit made for it should not work."""
    return {hook: hooks[(i + len(hooks) // 2) % len(hooks)] for i, hook in enumerate(hooks)}
