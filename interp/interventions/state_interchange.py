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

`side_accuracy` is judged on pairs of their own, `bystanders`: the first answer behind the edit reads another cell, and
must stay. Without it a part that takes everything along passes for a cell at an offset from the pointer.

Storage and retrieval are told apart on pairs of their own: at an instruction that is asked, in base and source, the
carrier before it is exchanged (storage), or what each layer reads at that one position (retrieval, parts `readout`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from interp.interventions.scores import BASE_RIGHT, Stratum, score_rows
from interp.ranges import counted
from interp.results import APART, BYSTANDERS, READOUT, Control, Method, Metric
from interp.tasks import Task
from interp.tasks.state_pairs import RETRIEVED, Kind, StatePairs
from interp.worlds.base import Split

LAGS = ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 4096))  # executed steps; rows name the first
DESIGN = "aligned"  # the pair design of these rows
Rows = list[dict[str, Any]]
Report = Callable[[float], None]


@counted(n_pairs=1, n_bootstrap=1)
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
    kind: Kind = "retrieved" if retrieval else "stored"
    pairs = task.state_pairs(n_pairs, variable, seed=seed, kind=kind)

    def beside(n: int, split: Split) -> StatePairs | None:
        if not task.has_bystanders(variable):
            return None
        return task.state_pairs(n, variable, seed=seed, split=split, kind="bystander")

    chosen: list[tuple[Any, Part]] = [(model, part) for part in parts_of(carrier, parts)]
    fitted = list(methods) if carrier.is_state else []
    if fitted:
        train = task.state_pairs(fit.n_pairs, variable, seed=seed, split="fit", kind=kind)
        some = {"pairs": train.rows(train.changes), "bystanders": beside(fit.n_pairs // 2, "fit")}
        for subject in [model, *([untrained] if untrained is not None else [])]:
            find = partial(fit_subspace, model=subject, carrier=carrier, fit=fit, seed=seed, **some)
            chosen += [(subject, find(method)) for method in fitted]
            report(0.2)
    bystanders = beside(n_pairs, "evaluation")
    runs = _Runs(model, carrier, task, pairs, bystanders, seed=seed, n_bootstrap=n_bootstrap)
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
    """Exchanges over the same pairs, over sources of the same value, and over bystanders, each judged."""

    def __init__(
        self,
        model: Any,
        carrier: Carrier,
        task: Task,
        pairs: StatePairs,
        bystanders: StatePairs | None,
        *,
        seed: int,
        n_bootstrap: int,
    ) -> None:
        self.model, self.carrier, self.task, self.pairs = model, carrier, task, pairs
        self.options = {"seed": seed, "n_bootstrap": n_bootstrap}
        self.generator = torch.Generator().manual_seed(seed)
        same = pairs.rows((pairs.same >= 0).all(1))
        of = {"pairs": pairs, "same": replace(same, source=same.same, expected=same.unedited), "bystanders": bystanders}
        self.of = {kind: each for kind, each in of.items() if each is not None and len(each)}
        self.changes = {"pairs": pairs.changes, "same": same.changes}  # of the pairs as they were drawn
        self.read = {id(model): self._read(model)}
        self.keys: dict[str, list[dict[str, Any]]] = {kind: [] for kind in self.of}
        self.right: dict[str, list[np.ndarray]] = {kind: [] for kind in self.of}
        self.alone = {kind: self._said(model, kind, self.read[id(model)][kind, "base"]) for kind in self.of}

    def _read(self, model: Any) -> dict[tuple[str, str], Tensor]:
        found = {}
        for kind, pairs in self.of.items():
            for side in ("base", "source"):
                found[kind, side] = self.carrier.read(model, getattr(pairs, side), pairs.at)
        # Keys and values of other positions stand at other places: another time is asked of states alone.
        if self.carrier.is_state:
            found["pairs", "other"] = self.carrier.read(model, self.pairs.source, self.pairs.other_at)
        return found

    def _said(self, model: Any, kind: str, carried: Tensor) -> Tensor:
        """What is said at the judged position, long [n]."""
        pairs = self.of[kind]
        said = self.carrier.answers(model, pairs.base, pairs.at, carried, pairs.positions)
        return said.gather(1, pairs.positions[:, None])[:, 0]

    def add(self, part: Part, subject: Any) -> None:
        """A part's exchange and its controls; of another model than ours its exchange alone, as a control."""
        if id(subject) not in self.read:
            self.read[id(subject)] = self._read(subject)
        read = self.read[id(subject)]

        def exchange(kind: str, control: Control | None, by: Part = part, source: str = "source") -> None:
            carried = by.exchanged(read[kind, "base"], read[kind, source])
            self._judge(kind, self._key(part, control), self._said(subject, kind, carried))

        if subject is not self.model:
            exchange("pairs", Control.UNTRAINED_MODEL)
            return
        for kind in self.of:
            exchange(kind, Control.SAME_VALUE if kind == "same" else None)
            if kind != "same":
                self._judge(kind, self._key(part, Control.UNPATCHED), self.alone[kind])
        if ("pairs", "other") in read:
            exchange("pairs", Control.WRONG_TIME, source="other")
        if (random := part.random(self.carrier.size, generator=self.generator)) is not None:
            for kind in [kind for kind in self.of if kind != "same"]:
                exchange(kind, Control.RANDOM_PART, by=random)

    def add_readout(self, name: str, hooks: Sequence[str]) -> None:
        """What layers read at the asking position, from source's asking position."""
        pairs, where = self.pairs, self.pairs.positions[:, None]
        taken = collect_positions(self.model, pairs.source, hooks, where)
        floats = sum(value[0].numel() for value in taken.values())
        with torch.no_grad(), patched(self.model, [Patch(hook, where, value) for hook, value in taken.items()]):
            said = self.model(pairs.base).argmax(-1).gather(1, where)[:, 0]
        for control, answers in ((None, said), (Control.UNPATCHED, self.alone["pairs"])):
            key = {"method": Method.FULL_VECTOR, "part": name, "part_size": floats, "control": control}
            key |= {"carrier_size": self.carrier.floats(pairs.at), "variable": pairs.variable}
            self._judge("pairs", key, answers)

    def _key(self, part: Part, control: Control | None) -> dict[str, Any]:
        floats, one = self.carrier.floats(self.pairs.at), self.carrier.size
        return {
            "variable": self.pairs.variable,
            "method": part.method,
            "part": part.name,
            "rank": None if part.basis is None else len(part.basis),
            "part_size": round(part.size * floats / one),
            "carrier_size": floats,
            "control": control,
        }

    def _judge(self, kind: str, key: dict[str, Any], said: Tensor) -> None:
        self.keys[kind].append(key)
        self.right[kind].append((said == self.of[kind].expected).numpy().astype(float))

    def rows(self) -> Rows:
        """All rows, by stratum, by lag and by the instruction that is judged."""
        found: Rows = []
        for kind, pairs in self.of.items():
            side = kind == "bystanders"
            metrics: tuple[Metric, ...] = (Metric.SIDE_ACCURACY,) if side else (Metric.IIA, Metric.EFFECT_ACCURACY)
            judged: list[dict[Metric, np.ndarray]] = [dict.fromkeys(metrics, right) for right in self.right[kind]]
            if side:
                common = {"pair_design": DESIGN, "stratum": BYSTANDERS}
                strata = [Stratum(common, np.ones(len(pairs), dtype=bool), metrics)]
            else:
                right = (self.alone[kind] == pairs.unedited).numpy()
                strata = _strata(self.task, pairs, self.changes[kind].numpy(), right)
            found += score_rows(self.keys[kind], judged, pairs.groups.numpy(), strata, **self.options)
        return found


def _strata(task: Task, pairs: StatePairs, changes: np.ndarray, right: np.ndarray) -> list[Stratum]:
    """Of sources of the same value the answer must stay: they are sorted by what the other source would change."""
    lag, op, iia = pairs.lag.numpy(), pairs.op.numpy(), (Metric.IIA,)
    common = {"pair_design": DESIGN}
    found = [
        Stratum(common | {"stratum": "changes"}, changes, (Metric.IIA, Metric.EFFECT_ACCURACY)),
        Stratum(common | {"stratum": BASE_RIGHT}, changes & right, (Metric.IIA, Metric.EFFECT_ACCURACY)),
        Stratum(common | {"stratum": "same"}, ~changes, iia),
        Stratum(common | {"stratum": APART}, changes & pairs.apart.numpy(), iia),
    ]
    for low, high in LAGS:
        inside = (lag >= low) & (lag <= high)
        found.append(Stratum(common | {"stratum": "changes", "lag": low}, changes & inside, iia))
    names = task.world.stratum_names
    for number in np.unique(op[op >= 0]):
        found.append(Stratum(common | {"stratum": "changes", "op": names[number]}, changes & (op == number), iia))
    return found
