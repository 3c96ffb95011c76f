"""From reading to writing: change what a probe reads, and hold the model's answer against the machine's.

A probe's direction is a hypothesis about the model: if the model uses what the probe reads, writing another value there
must change its answer as the machine's changes when the variable is set. The share of edits with exactly that answer is
the edit's success. Only pairs whose answer changes count. Beside it, on the same pairs:

    unpatched         the model left alone (a right model scores 0)
    random_subspace   a change of the same length in a random direction
    wrong_site        the same change half the model away

In streams the edit is made at the token that is judged alone ("judged"), or at every token from the edited step to it
("window"); the value written at each token is the machine's in the edited run, so it follows INC and DEC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cython_vm import run, step, variable
from cython_vm.reachable import advance
from interp.interventions import Patch, Site, collect, patched, resolve
from interp.probing.readout import Edit, Readout
from interp.results import Aggregation, Control, IntervalKind, Method, Metric, wilson_interval
from interp.tasks import Batch, Task
from interp.tasks.trace import Trace
from interp.tasks.trace_pairs import TraceCounterfactual

METHODS: dict[Edit, Method] = {
    "mean": Method.PROBE_MEAN,
    "shift": Method.PROBE_SHIFT,
    "logits": Method.PROBE_LOGITS,
}
SCOPES = ("judged", "window")
_BATCH = 64


@dataclass(frozen=True, eq=False)
class TokenEdits:
    """What to write where: token `position[i]` of pair `row[i]` holds `present[i]` and shall hold `target[i]`."""

    row: np.ndarray  # int64 [m], rising
    position: np.ndarray
    present: np.ndarray
    target: np.ndarray

    def of_rows(self, rows: np.ndarray) -> TokenEdits:
        """Those of the pairs `rows`, which rise, numbered by their place there."""
        part = np.isin(self.row, rows)
        numbers = np.searchsorted(rows, self.row[part])
        return TokenEdits(numbers, self.position[part], self.present[part], self.target[part])


@dataclass(frozen=True, eq=False)
class EditPairs:
    """Pairs whose answer the edit changes, and what the unedited model says to them."""

    pairs: TraceCounterfactual
    said: np.ndarray  # int64 [n]


def stream_edits(task: Trace, pairs: TraceCounterfactual, name: str, *, scope: str) -> TokenEdits:
    """The tokens of base to edit and the variable's value there in the base run and in the edited run.

    Raises:
        ValueError: no such scope.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    batch, read = pairs.base, variable(task.spec, name).read
    at_edit = advance(batch.examples, pairs.edit_step)
    edited = step(at_edit, do={name: pairs.values}).next
    distance = pairs.judged_step - pairs.edit_step
    told = run(edited, max(1, int(distance.max())))
    assert told.states is not None and told.offsets is not None
    later = read(told.states).astype(np.int64)
    positions = np.arange(batch.tokens.shape[1])
    after = batch.step_of >= pairs.edit_step[:, None]
    if scope == "judged":
        inside = positions == pairs.judged_position[:, None]
    else:
        inside = after & (positions <= pairs.judged_position[:, None]) & (positions > 0)
    row, position = np.nonzero(inside)
    since = batch.step_of[row, position] - pairs.edit_step[row]
    target = np.where(since == 0, pairs.values[row], later[told.offsets[:-1][row] + np.maximum(since - 1, 0)])
    present = task.labels(batch, name)[row, position]
    known = (present >= 0) & (target >= 0)
    return TokenEdits(row[known], position[known], present[known], target[known])


def edit_stream_rows(
    model: Any,
    task: Trace,
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
    """Edit success of every variable that can be set, at one hook, as rows.

    Args:
        model: the hooked model.
        task: draws the pairs and knows the machine.
        readouts: what the probes at `hook` read, by variable; those that cannot be set in a stream are left out.
        hook: where the probes were fitted and the edits are made.
        other_hook: where the control `wrong_site` makes them.
        method: the probe, for the rows' `granularity`.
        n_pairs: pairs a variable whose answer changes; cells share them.
        seed: of the pairs and the random directions.
        kinds: ways of editing, see `readout`.
        scopes: at the judged token alone, or from the edited step on.
        pairs: filled with the pairs of each variable, so that several hooks judge the same ones.
    """
    pairs = {} if pairs is None else pairs
    settable = [name for name in readouts if name.partition("[")[0] in ("operand", "array_ptr", "cell")]
    n_cells = max(1, sum(name.startswith("cell[") for name in settable))
    rows: list[dict[str, Any]] = []
    tape: dict[tuple[str, str, Control | None], list[tuple[int, int]]] = {}
    for name in settable:
        if name not in pairs:
            wanted = n_pairs if not name.startswith("cell[") else -(-n_pairs // n_cells)
            pairs[name] = changing_pairs(model, task, name, wanted, seed=seed)
        for scope in scopes:
            edits = stream_edits(task, pairs[name].pairs, name, scope=scope)
            for kind in kinds:
                counts = _judged(model, pairs[name], edits, readouts[name], hook, other_hook, kind, seed)
                for control, (right, n) in counts.items():
                    columns = _columns(hook, scope, kind, method, control)
                    rows.append(columns | {"variable": name} | _share(right, n))
                    if name.startswith("cell["):
                        tape.setdefault((scope, kind, control), []).append((right, n))
    for (scope, kind, control), counts in tape.items():
        right, n = map(sum, zip(*counts, strict=True))
        rows.append(_columns(hook, scope, kind, method, control) | {"variable": "cells"} | _share(right, n))  # type: ignore[arg-type]
    return [row for row in rows if row["n"]]


def changing_pairs(model: Any, task: Trace, name: str, n: int, *, seed: int) -> EditPairs:
    """At most `n` independent pairs of held-out streams whose answer the edit changes, with the model's own answers."""
    drawn = task.counterfactual(2 * n, name, seed=seed)
    rows = np.flatnonzero(drawn.changes)[:n]
    taken = {
        each.name: getattr(drawn, each.name)[rows]
        for each in fields(drawn)
        if isinstance(getattr(drawn, each.name), np.ndarray)
    }
    base, source = task.render(drawn.base.examples[rows]), task.render(drawn.source.examples[rows])
    pairs = replace(drawn, base=base, source=source, **taken)
    said = np.concatenate(
        [
            _answers(model, pairs, np.arange(start, min(start + _BATCH, len(pairs))))
            for start in range(0, len(pairs), _BATCH)
        ]
        or [np.empty(0, np.int64)]
    )
    return EditPairs(pairs, said)


@torch.no_grad()
def _answers(
    model: Any, pairs: TraceCounterfactual, rows: np.ndarray, hooks: Sequence[tuple[str, Any]] = ()
) -> np.ndarray:
    """The token that the model says at the judged position of each of these pairs."""
    judged = pairs.judged_position[rows]
    with model.hooks(fwd_hooks=list(hooks)):
        logits = model(pairs.base.tokens[rows, : int(judged.max()) + 1])
    return logits[torch.arange(len(rows)), torch.from_numpy(judged)].argmax(-1).numpy()


def _judged(
    model: Any,
    drawn: EditPairs,
    edits: TokenEdits,
    readout: Readout,
    hook: str,
    other_hook: str,
    kind: Edit,
    seed: int,
) -> dict[Control | None, tuple[int, int]]:
    """For the edit and its controls: answers that are the machine's counterfactual, and pairs. A pair in which the
    probe never saw one of the values is left out."""
    pairs = drawn.pairs
    known = (readout.place(edits.present) >= 0) & (readout.place(edits.target) >= 0)
    usable = np.setdiff1d(np.arange(len(pairs)), edits.row[~known])
    generator = torch.Generator().manual_seed(seed)
    right: dict[Control | None, int] = {None: 0, Control.RANDOM_SUBSPACE: 0, Control.WRONG_SITE: 0}
    for start in range(0, len(usable), _BATCH):
        rows = usable[start : start + _BATCH]
        part = edits.of_rows(rows)
        write = partial(_write, edits=part, readout=readout, kind=kind)
        changes = {
            None: (hook, write),
            Control.RANDOM_SUBSPACE: (hook, partial(write, generator=generator)),
            Control.WRONG_SITE: (other_hook, write),
        }
        for control, change in changes.items():
            right[control] += int((_answers(model, pairs, rows, [change]) == pairs.expected[rows]).sum())
    right[Control.UNPATCHED] = int((drawn.said == pairs.expected)[usable].sum())
    return {control: (count, len(usable)) for control, count in right.items()}


def _write(
    activation: Tensor,
    hook: Any,
    *,
    edits: TokenEdits,
    readout: Readout,
    kind: Edit,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The hook function: a copy of activation [batch, pos, d] with the edits made; each turned into a random direction
    where a generator is given."""
    changed = activation.clone()
    at = (torch.from_numpy(edits.row), torch.from_numpy(edits.position))
    written = readout.edited(activation[at], edits.present, edits.target, how=kind)
    changed[at] = written if generator is None else turned(activation[at], written, generator)
    return changed


def turned(h: Tensor, written: Tensor, generator: torch.Generator) -> Tensor:
    """h [k, d] changed by as much as in `written`, in random directions."""
    direction = torch.randn(h.shape, generator=generator)
    return h + direction * (written - h).norm(dim=-1, keepdim=True) / direction.norm(dim=-1, keepdim=True)


def edit_step_rows(
    model: Any,
    task: Task,
    readouts: Mapping[tuple[str, Site], Readout],
    *,
    other_hook: Mapping[str, str],
    method: str,
    n_pairs: int = 128,
    seed: int = 4,
    kinds: Sequence[Edit] = ("mean",),
) -> list[dict[str, Any]]:
    """Edit success in a task of one step, judged on the whole next state: variables by sites, as rows.

    Args:
        readouts: (variable, site of one position) -> what the probe there reads.
        other_hook: hook -> where the control `wrong_site` makes its edits.
    """
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for name, _ in readouts):
        if not variable(task.spec, name).settable:
            continue
        drawn = task.counterfactual(4 * n_pairs, name, seed=seed)
        chosen = np.flatnonzero(drawn.changes)[:n_pairs]
        if not len(chosen):
            continue
        states, told = drawn.base.examples[chosen], drawn.answers[chosen]
        base, expected = task.render(states, told), torch.from_numpy(told.astype(np.int64))
        read = variable(task.spec, name).read
        present, target = (read(each).astype(np.int64) for each in (states, drawn.source.examples[chosen]))
        unpatched = _whole_answers(model, task, base, expected)
        for (variable_name, site), readout in readouts.items():
            if variable_name != name:
                continue
            known = (readout.place(present) >= 0) & (readout.place(target) >= 0)
            if not known.any():
                continue
            usable = torch.from_numpy(np.flatnonzero(known))
            positions = resolve(task.position_names, site.positions, states)
            h = collect(model, base, [site], position_names=task.position_names)[site][:, 0]
            wrong = Site(other_hook[site.hook], site.positions)
            other = collect(model, base, [wrong], position_names=task.position_names)[wrong][:, 0]
            for kind in kinds:
                ends = (present[known], target[known])
                written, moved = h.clone(), other.clone()
                written[usable] = readout.edited(h[usable], *ends, how=kind)
                moved[usable] = readout.edited(other[usable], *ends, how=kind)
                random = turned(h, written, torch.Generator().manual_seed(seed))
                right = {
                    None: _whole_answers(model, task, base, expected, Patch(site.hook, positions, written[:, None])),
                    Control.UNPATCHED: unpatched,
                    Control.RANDOM_SUBSPACE: _whole_answers(
                        model, task, base, expected, Patch(site.hook, positions, random[:, None])
                    ),
                    Control.WRONG_SITE: _whole_answers(
                        model, task, base, expected, Patch(wrong.hook, positions, moved[:, None])
                    ),
                }
                for control, hits in right.items():
                    columns = _columns(site.hook, site.positions, kind, method, control)
                    rows.append(columns | {"variable": name} | _share(int(hits[known].sum()), int(known.sum())))
    return rows


@torch.no_grad()
def _whole_answers(model: Any, task: Task, base: Batch, expected: Tensor, patch: Patch | None = None) -> np.ndarray:
    """Whether the model's whole next state is the expected one [n, state_length], bool [n].

    A causal record holds the expected answer before the token that is judged, as when it is decoded greedily.
    """
    with patched(model, [] if patch is None else [patch]):
        said = task.next_state_logits(model(base.tokens)).argmax(-1)
    return (said == expected).all(-1).numpy()


def _columns(hook: str, position: str, kind: Edit, method: str, control: Control | None) -> dict[str, Any]:
    return {
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
    }


def _share(right: int, n: int) -> dict[str, Any]:
    low, high = wilson_interval(right, n)
    return {"estimate": right / n if n else float("nan"), "ci_low": low, "ci_high": high, "n": n}


def wrong_hooks(hooks: Sequence[str]) -> dict[str, str]:
    """For each hook the one half the model away, where an edit made for it should not work."""
    return {hook: hooks[(i + len(hooks) // 2) % len(hooks)] for i, hook in enumerate(hooks)}
