"""State interchange: a variable's part of what a model carries taken from another stream, and what is answered then.

    IIA(X, part, t) = mean of 1[ model(base, part of the carrier at t <- source's) = world(base, do X at t) ]

at the first answer that depends on the edit (`interp.tasks.state_pairs`), as a curve over the delay (`lag`, executed
steps from the edit to that answer) and by the instruction that is judged (`op`). Beside each part, on the same pairs:

    unpatched        the model left alone
    random_part      as many random coordinates, or a random subspace of the rank
    wrong_time       the same part of the same source at another time, at which the variable differs if it ever does
    same_value       from a source in which the variable has base's own value: the answer must stay
    untrained_model  for subspaces, the same fit on the weights that training began from

In the stratum "changes, pointers apart" the pointers of base and source differ, so that `cell[i]` and the cell at the
same offset from the pointer are two cells: there the rival addressings disagree.

`side_accuracy` counts the answers between the edit and the judged one; none hangs on the edit. Storage and retrieval
are told apart on pairs of their own: at an instruction that is asked, in base and source, the carrier before it is
exchanged (storage), or what each layer reads at that one position (retrieval, parts `readout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import collect_positions
from interp.interventions.carrier import Carrier
from interp.interventions.carrier_parts import KINDS, Part, parts_of
from interp.interventions.carrier_subspaces import SubspaceFit, fit_subspace
from interp.interventions.patching import Patch, patched
from interp.interventions.scores import BASE_RIGHT, THREE, Stratum, score_rows
from interp.results import Control, Method, Metric
from interp.tasks import Task
from interp.tasks.state_pairs import RETRIEVED, StatePairs

LAGS = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 4096))  # executed steps; rows name the first
DESIGN = "aligned"  # the pair design of these rows
APART = "changes, pointers apart"  # where cell[i] and cell[@array_ptr+k] are different cells
READOUT = "readout"
_RANDOM = 2  # random parts, averaged
Rows = list[dict[str, Any]]
Report = Callable[[float], None]


def state_rows(
    model: Any,
    task: Task,
    variable: str,
    *,
    parts: Sequence[str] = KINDS,
    methods: Sequence[Method] = (),
    n_pairs: int = 256,
    seed: int = 0,
    untrained: Any | None = None,
    fit: SubspaceFit = SubspaceFit(),  # noqa: B008 (frozen)
    n_bootstrap: int = 500,
    report: Report = lambda share: None,
) -> Rows:
    """The three numbers of each part for one variable, with controls, as rows of the tidy frame.

    Args:
        model: the hooked model, in eval mode.
        task: tells streams (`Task.has_state_pairs`).
        variable: one that can be set. For `operand` pairs are those of retrieval, and what layers read is a part too.
        parts: names of parts, see `carrier_parts`.
        methods: of FITTED, how subspaces are found; left out where a model holds no state.
        n_pairs: pairs whose answer should change; of those whose answer should stay, at most as many are met.
        seed: of pairs, random parts, fits and bootstrap.
        untrained: a model of the same shape with initial weights, for the control of what is fitted.
        fit: how subspaces are fitted.
        n_bootstrap: bootstrap samples of units.
        report: called with the share done.

    Raises:
        ValueError: the task tells no stream, the model carries nothing, an unknown variable, part or method.
    """
    carrier = Carrier.of(model)
    retrieval = variable == RETRIEVED
    pairs = task.state_pairs(n_pairs, variable, seed=seed, retrieval=retrieval)
    chosen: list[tuple[Any, Part]] = [(model, part) for part in parts_of(carrier, parts)]
    fitted = list(methods) if carrier.is_state else []
    if fitted:
        train = task.state_pairs(fit.n_pairs, variable, seed=seed, split="fit", retrieval=retrieval)
        train = train.rows(train.changes)
        for subject in [model, *([untrained] if untrained is not None else [])]:
            read = (carrier.read(subject, train.base, train.at), carrier.read(subject, train.source, train.at))
            find = partial(fit_subspace, model=subject, carrier=carrier, pairs=train, fit=fit, seed=seed, read=read)
            chosen += [(subject, find(method)) for method in fitted]
            report(0.2)
    runs = _Runs(model, carrier, task, pairs, seed=seed, n_bootstrap=n_bootstrap)
    for done, (subject, part) in enumerate(chosen):
        runs.add(part, subject)
        report(0.3 + 0.6 * (done + 1) / len(chosen))
    if retrieval:
        for name, hooks in _readouts(model):
            runs.add_readout(name, hooks)
    report(1.0)
    return runs.rows()


def _readouts(model: Any) -> list[tuple[str, tuple[str, ...]]]:
    """What is read at a position: by all layers together, and by each."""
    hooks = model.readout_hooks()
    each = [(f"{READOUT}.layer{model.layer_of(hook)}", (hook,)) for hook in hooks]
    return [(READOUT, tuple(hooks)), *each] if hooks else []


class _Runs:
    """Runs over the same pairs, judged; those with sources of the same value have rows of their own."""

    def __init__(
        self, model: Any, carrier: Carrier, task: Task, pairs: StatePairs, *, seed: int, n_bootstrap: int
    ) -> None:
        self.model, self.carrier, self.task, self.pairs = model, carrier, task, pairs
        self.options = {"seed": seed, "n_bootstrap": n_bootstrap}
        self.generator = torch.Generator().manual_seed(seed)
        self.same = pairs.rows((pairs.same >= 0).all(1))
        self.read = {id(model): self._read(model)}
        self.keys: list[dict[str, Any]] = []
        self.judged: list[dict[Metric, np.ndarray]] = []
        self.same_keys: list[dict[str, Any]] = []
        self.same_judged: list[dict[Metric, np.ndarray]] = []
        self.alone = self._said(model, pairs, self.read[id(model)]["base"])

    def _read(self, model: Any) -> dict[str, Tensor]:
        pairs, carrier = self.pairs, self.carrier
        found = {
            "base": carrier.read(model, pairs.base, pairs.at),
            "source": carrier.read(model, pairs.source, pairs.at),
            "same": carrier.read(model, self.same.same, self.same.at) if len(self.same) else torch.empty(0),
        }
        # Keys and values of other positions stand at other places: another time is asked of states alone.
        return found | ({"other": carrier.read(model, pairs.source, pairs.other_at)} if carrier.is_state else {})

    def _said(self, model: Any, pairs: StatePairs, carried: Tensor) -> Tensor:
        return self.carrier.answers(model, pairs.base, pairs.at, carried, pairs.positions)

    def add(self, part: Part, subject: Any) -> None:
        """A part's exchange and its controls; of another model than ours its exchange alone, as a control."""
        read = self.read.get(id(subject)) or self.read.setdefault(id(subject), self._read(subject))
        exchange = partial(part.exchanged, read["base"])
        own = None if subject is self.model else Control.UNTRAINED_MODEL
        self._judge(part, own, self._said(subject, self.pairs, exchange(read["source"])))
        if own is not None:
            return
        self._judge(part, Control.UNPATCHED, self.alone)
        if "other" in read:
            self._judge(part, Control.WRONG_TIME, self._said(subject, self.pairs, exchange(read["other"])))
        random = [part.random(self.carrier.size, generator=self.generator) for _ in range(_RANDOM)]
        if random[0] is not None:
            drawn = [each for each in random if each is not None]
            said = [self._said(subject, self.pairs, each.exchanged(read["base"], read["source"])) for each in drawn]
            self._judge(part, Control.RANDOM_PART, *said)
        if len(self.same):
            base = read["base"][(self.pairs.same >= 0).all(1)]
            base = base[:, : read["same"].shape[1]] if base.ndim == 3 else base
            said = self._said(subject, self.same, part.exchanged(base, read["same"]))
            self.same_keys.append(self._key(part) | {"control": Control.SAME_VALUE})
            self.same_judged.append(judged(said, self.same, self.same.unedited))

    def add_readout(self, name: str, hooks: Sequence[str]) -> None:
        """What layers read at the asking position, from source's asking position."""
        pairs, where = self.pairs, self.pairs.positions[:, None]
        taken = collect_positions(self.model, pairs.source, hooks, where)
        floats = sum(value[0].numel() for value in taken.values())
        with torch.no_grad(), patched(self.model, [Patch(hook, where, value) for hook, value in taken.items()]):
            said = self.model(pairs.base).argmax(-1)
        for control, answers in ((None, said), (Control.UNPATCHED, self.alone)):
            key = {"method": Method.FULL_VECTOR, "part": name, "part_size": floats}
            key |= {"carrier_size": self.carrier.floats(pairs.at), "variable": pairs.variable}
            self.keys.append(key | {"control": control})
            self.judged.append(judged(answers, pairs, pairs.expected))

    def _key(self, part: Part) -> dict[str, Any]:
        floats, one = self.carrier.floats(self.pairs.at), self.carrier.size
        return {
            "variable": self.pairs.variable,
            "method": part.method,
            "part": part.name,
            "rank": None if part.basis is None else len(part.basis),
            "part_size": round(part.size * floats / one),
            "carrier_size": floats,
        }

    def _judge(self, part: Part, control: Control | None, *said: Tensor) -> None:
        found = [judged(each, self.pairs, self.pairs.expected) for each in said]
        self.keys.append(self._key(part) | {"control": control})
        self.judged.append({metric: np.mean([each[metric] for each in found], axis=0) for metric in found[0]})

    def rows(self) -> Rows:
        """All rows, by stratum, by lag and by the instruction that is judged."""
        right = judged(self.alone, self.pairs, self.pairs.unedited)[Metric.IIA] == 1
        found = score_rows(
            self.keys, self.judged, self.pairs.groups.numpy(), _strata(self.task, self.pairs, right), **self.options
        )
        if self.same_keys:
            alone = judged(self.alone[(self.pairs.same >= 0).all(1)], self.same, self.same.unedited)
            strata = _strata(self.task, self.same, alone[Metric.IIA] == 1)
            found += score_rows(self.same_keys, self.same_judged, self.same.groups.numpy(), strata, **self.options)
        return found


def judged(said: Tensor, pairs: StatePairs, expected: Tensor) -> dict[Metric, np.ndarray]:
    """The three numbers of each pair, float [n]; NaN where a pair has no such place.

    Args:
        said: what the model says at every position, long [n, pos].
        pairs: the pairs.
        expected: the right token at the judged position, long [n].
    """
    hit = (said.gather(1, pairs.positions[:, None])[:, 0] == expected).float()
    kept = ((said == pairs.targets) & pairs.side).sum(1).float() / pairs.side.sum(1)
    effect = torch.where(expected != pairs.unedited, hit, torch.nan)
    return {
        Metric.IIA: hit.numpy(),
        Metric.EFFECT_ACCURACY: effect.numpy(),
        Metric.SIDE_ACCURACY: kept.numpy(),
    }


def _strata(task: Task, pairs: StatePairs, right: np.ndarray) -> list[Stratum]:
    changes, lag, op = pairs.changes.numpy(), pairs.lag.numpy(), pairs.op.numpy()
    common = {"pair_design": DESIGN}
    found = [
        Stratum(common | {"stratum": "changes"}, changes, THREE),
        Stratum(common | {"stratum": BASE_RIGHT}, changes & right, THREE),
        Stratum(common | {"stratum": "same"}, ~changes, (Metric.IIA,)),
        Stratum(common | {"stratum": APART}, changes & pairs.apart.numpy(), (Metric.IIA,)),
    ]
    for low, high in LAGS:
        inside = (lag >= low) & (lag <= high)
        found.append(Stratum(common | {"stratum": "changes", "lag": low}, changes & inside, (Metric.IIA,)))
    names = task.world.stratum_names
    for number in np.unique(op[op >= 0]):
        columns = common | {"stratum": "changes", "op": names[number]}
        found.append(Stratum(columns, changes & (op == number), (Metric.IIA,)))
    return found
