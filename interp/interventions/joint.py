"""Several swaps in one run: variables from sources of their own, or one variable at several places.

    IIA(X and Y) = mean of 1[ model(base, X's site <- source 1, Y's site <- source 2)
                              = world(base, do X <- X(source 1), Y <- Y(source 2)) ]

Read it in the stratum "both": the world's answer then differs from its answer when any one of the variables is left
as in base, so that no single swap can be right. Controls on the same triples: the model left alone, the better of the
single swaps, the sources exchanged between the sites, an untrained model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import collect
from interp.interventions.interchange import site_column
from interp.interventions.patching import Patch, check_basis, patched
from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.tasks import Batch, Task
from interp.tasks.base import read_answers
from interp.tasks.sites import Site
from interp.worlds.base import Split
from probes.evaluation import MIN_GROUPS, bootstrap_mean

_WIDER = 8  # how many times `n_pairs` are drawn, so that enough of them are in the stratum "both"


@dataclass(frozen=True)
class JointPairs:
    """A base and one source a variable, drawn independently, with the world's answer when all variables are set."""

    variables: tuple[str, ...]
    base: Batch
    sources: tuple[Batch, ...]
    positions: Tensor  # long [n, k]: the token positions whose logits are judged
    targets: Tensor  # long [n, k]; -1 where the world has no answer
    unedited: Tensor  # long [n, k]: the world's answer on base
    edit_time: np.ndarray  # int64 [n]: the executed step of base at which all variables are set
    source_times: tuple[np.ndarray, ...]  # int64 [n] each: the executed step that a source's value is taken from
    changes: np.ndarray  # bool [n]: another answer than on base
    both: np.ndarray  # bool [n]: another answer than with any one variable left as it is, too
    n_plain: int  # the first so many are as drawn; the others were added for the stratum "both"

    @classmethod
    def draw(
        cls, task: Task, variables: Sequence[str], *, n_pairs: int, seed: int, split: Split = "evaluation"
    ) -> JointPairs:
        """Draw `n_pairs`, and add of eight times as many until a quarter of `n_pairs` are in the stratum "both".

        Raises:
            ValueError: fewer than two variables, a repeated or unsettable one, or hardly a joint counterfactual.
        """
        names = tuple(variables)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"a joint swap needs two or more different variables, got {', '.join(names) or 'none'}")
        world = task.world
        for name in names:
            world.settable(name)
        size, rng = 1 + len(names), np.random.default_rng([seed, 1])
        drawn = task.draw(size * _WIDER * n_pairs, seed=seed, split=split)
        base, sources = drawn[0::size], [drawn[place::size] for place in range(1, size)]
        times = [task.edit_times(base, source, name, rng) for name, source in zip(names, sources, strict=True)]
        edit_time = _each(times[0][0], base)  # one step of base, at which all are set
        source_times = [_each(time, base) for _, time in times]
        values = {
            name: world.read(source, name, time)
            for name, source, time in zip(names, sources, source_times, strict=True)
        }
        positions, judged = task.asked_after(base, edit_time)
        kept = np.flatnonzero(np.all([value >= 0 for value in values.values()], axis=0) & (judged >= 0))
        base, edit_time, positions, judged = base[kept], edit_time[kept], positions[kept], judged[kept]

        def answer(some: Sequence[str]) -> np.ndarray:
            """With these variables set, [n, k]."""
            do = {name: values[name][kept] for name in some}
            return task.answered(world.answer(base, do=do, at=edit_time), judged)

        joint, unedited = answer(names), answer(())
        changes = (joint != unedited).any(1)
        both = changes.copy()
        for left_out in names:
            partial = answer([name for name in names if name != left_out])
            both &= (joint != partial).any(1) & (partial >= 0).any(1)
        rows = np.flatnonzero((joint >= 0).any(1))
        if len(rows) < n_pairs:
            raise ValueError(
                f"only {len(rows)} of {_WIDER * n_pairs} drawn pairs have a value for {' and '.join(names)}"
            )
        plain, further = rows[:n_pairs], rows[n_pairs:]
        wanted = max(0, n_pairs // 4 - int(both[plain].sum()))
        rows = np.concatenate([plain, further[both[further]][:wanted]])
        answers = joint[rows]
        return cls(
            variables=names,
            base=task.render(base[rows], answers),  # a task that shows the answer shows the joint one
            sources=tuple(task.render(source[kept[rows]], answers) for source in sources),
            positions=torch.from_numpy(positions[rows]),
            targets=torch.from_numpy(answers),
            unedited=torch.from_numpy(unedited[rows]),
            edit_time=edit_time[rows],
            source_times=tuple(time[kept[rows]] for time in source_times),
            changes=changes[rows],
            both=both[rows],
            n_plain=n_pairs,
        )

    def __len__(self) -> int:
        return len(self.base)


def _each(times: int | np.ndarray, examples: Any) -> np.ndarray:
    return np.array(np.broadcast_to(np.asarray(times, dtype=np.int64), len(examples)))


@torch.no_grad()
def swapped_answers(
    model: Any,
    task: Task,
    base: Batch,
    swaps: Sequence[tuple[Site, Batch]],
    *,
    positions: Tensor | None = None,
    edit_time: int | np.ndarray = 0,
    source_times: Sequence[int | np.ndarray] | None = None,
    bases: Sequence[Tensor | None] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Greedy answers [n, k] on base with every site taken from its source in the same run.

    Args:
        model: the hooked model, in eval mode; hooks that stand on it count.
        task: names positions.
        base: n examples.
        swaps: (site, source) each; a source may stand at several sites, and sites at several layers. Where an earlier
            swap changes what reaches a later site, the later one still puts in what its own source had there.
        positions: long [n, k], where the answer is read; `task.answer_positions` where None.
        edit_time: the executed step of base at which pointers are read, for all or one each.
        source_times: the same of each swap's source; 0 where None.
        bases: for each swap orthonormal rows [rank, d], or None for the whole vector.
        batch_size: rows a forward pass.

    Raises:
        ValueError: an unknown hook or position, a basis that does not fit, or two whole-vector swaps that overlap at
            one hook.
    """
    bases = [None] * len(swaps) if bases is None else list(bases)
    times = [0] * len(swaps) if source_times is None else list(source_times)
    for basis in bases:
        check_basis(basis, model)
    values = [
        collect(model, source, [site], task=task, at=time)[site]
        for (site, source), time in zip(swaps, times, strict=True)
    ]
    where = [task.resolve(site.positions, base, edit_time) for site, _ in swaps]
    read = torch.from_numpy(np.tile(task.answer_positions, (len(base), 1))) if positions is None else positions
    _check_disjoint([site for site, _ in swaps], where, bases)
    parts = []
    for start in range(0, len(base), batch_size):
        rows = slice(start, start + batch_size)
        patches = [
            Patch(site.hook, there[rows], value[rows], head=site.head, basis=basis)
            for (site, _), there, value, basis in zip(swaps, where, values, bases, strict=True)
        ]
        with patched(model, patches):
            parts.append(read_answers(model(base.tokens[rows]), read[rows]).argmax(-1))
    return torch.cat(parts)


def _check_disjoint(sites: Sequence[Site], where: Sequence[Tensor], bases: Sequence[Tensor | None]) -> None:
    for first in range(len(sites)):
        for second in range(first):
            one_hook = sites[first].hook == sites[second].hook and sites[first].head == sites[second].head
            if not one_hook or bases[first] is not None or bases[second] is not None:
                continue
            if (where[first][:, :, None] == where[second][:, None, :]).any():
                raise ValueError(f"two whole vectors cannot be put in one place: {sites[second]} and {sites[first]}")


def joint_rows(
    model: Any,
    task: Task,
    variables: Sequence[str],
    sites: Sequence[Site],
    *,
    n_pairs: int = 256,
    seed: int = 0,
    untrained: Any | None = None,
    n_bootstrap: int = 500,
) -> list[dict[str, Any]]:
    """IIA of several variables swapped at once, `sites[i]` holding `variables[i]`, with controls, as tidy rows.

    Variables, sites and positions are joined by " & "; the pair design is "joint".

    Raises:
        ValueError: as many sites as variables are needed; and as `JointPairs.draw` and `swapped_answers`.
    """
    if len(sites) != len(variables):
        raise ValueError(f"a joint swap needs a site for each variable: {len(variables)} variables, {len(sites)} sites")
    pairs = JointPairs.draw(task, variables, n_pairs=n_pairs, seed=seed)

    def right(subject: Any, swaps: Sequence[tuple[Site, int]]) -> np.ndarray:
        """Whether the answer is the joint one with each site taken from the source of this number."""
        answers = swapped_answers(
            subject,
            task,
            pairs.base,
            [(site, pairs.sources[index]) for site, index in swaps],
            positions=pairs.positions,
            edit_time=pairs.edit_time,
            source_times=[pairs.source_times[index] for _, index in swaps],
        )
        return ((answers == pairs.targets) | (pairs.targets < 0)).all(-1).numpy().astype(float)

    order = range(len(sites))
    together = list(zip(sites, order, strict=True))
    runs: dict[Control | None, np.ndarray] = {None: right(model, together), Control.UNPATCHED: right(model, [])}
    single = [right(model, [swap]) for swap in together]
    runs[Control.WRONG_SITE] = right(model, list(zip(sites, [*order[1:], 0], strict=True)))
    if untrained is not None:
        runs[Control.UNTRAINED_MODEL] = right(untrained, together)
    units = task.groups(pairs.base.examples).astype(np.int64)
    plain = np.arange(len(pairs)) < pairs.n_plain
    rows: list[dict[str, Any]] = []
    for stratum, chosen in (("both", pairs.both), ("changes", pairs.changes & plain), ("all", plain)):
        if not chosen.any():
            continue
        best = max(single, key=lambda run, chosen=chosen: run[chosen].mean())
        for control, run in (runs | {Control.SINGLE_SWAP: best}).items():
            values, groups = run[chosen], units[chosen]
            few = len(np.unique(groups)) < MIN_GROUPS
            interval = None if few else bootstrap_mean(values[None], groups, seed=seed, n_resamples=n_bootstrap)
            rows.append(
                {
                    "variable": " & ".join(variables),
                    "site": " & ".join(dict.fromkeys(site_column(site) for site in sites)),
                    "position": " & ".join(site.positions for site in sites),
                    "method": Method.FULL_VECTOR,
                    "control": control,
                    "pair_design": "joint",
                    "stratum": stratum,
                    "metric": Metric.IIA,
                    "aggregation": Aggregation.MEAN,
                    "estimate": float(values.mean()),
                    "ci_low": None if interval is None else float(interval[1][0]),
                    "ci_high": None if interval is None else float(interval[2][0]),
                    "interval_kind": None if interval is None else IntervalKind.BOOTSTRAP_PROGRAMS,
                    "n": int(chosen.sum()),
                }
            )
    return rows
