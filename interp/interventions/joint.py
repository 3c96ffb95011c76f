"""Several swaps in one run: variables from sources of their own, or one variable at several places.

    IIA(X and Y) = mean of 1[ model(base, X's site <- source 1, Y's site <- source 2)
                              = machine(base, do X <- X(source 1), Y <- Y(source 2)) ]

Read it in the stratum "both": the machine's answer then differs from its answer when any one of the variables is left
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

from cython_vm import States, program_hash, sample, step, variable
from interp.interventions.activations import collect
from interp.interventions.interchange import site_column
from interp.interventions.patching import Patch, patched
from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.tasks import Batch, Task
from interp.tasks.base import Split
from interp.tasks.sites import Site, resolve
from probes.evaluation import MIN_GROUPS, bootstrap_mean

_WIDER = 8  # how many times `n_pairs` are drawn, so that enough of them are in the stratum "both"


@dataclass(frozen=True)
class JointPairs:
    """A base and one source a variable, drawn independently, with the machine's answer when all variables are set."""

    variables: tuple[str, ...]
    base: Batch
    sources: tuple[Batch, ...]
    targets: Tensor  # long [n, state_length]
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
        if fixed := [name for name in names if not variable(task.spec, name).settable]:
            raise ValueError(f"variable {fixed[0]!r} can be read but not set; a swap needs one that can be set")
        size = 1 + len(names)
        drawn = sample(task.spec, size * _WIDER * n_pairs, seed=seed, split=split)
        base, sources = drawn[0::size], [drawn[place::size] for place in range(1, size)]
        values = {name: variable(task.spec, name).read(source) for name, source in zip(names, sources, strict=True)}
        valid = np.all([value >= 0 for value in values.values()], axis=0)
        kept = np.flatnonzero(valid)
        base, sources = base[kept], [source[kept] for source in sources]
        values = {name: value[kept] for name, value in values.items()}
        joint = step(base, do=values)
        changes = ~joint.next.equal(step(base).next)
        both = changes.copy()
        for left_out in names:
            partial = step(base, do={name: value for name, value in values.items() if name != left_out})
            both &= ~joint.next.equal(partial.next) & partial.valid
        rows = np.flatnonzero(joint.valid)
        if len(rows) < n_pairs:
            raise ValueError(
                f"only {len(rows)} of {_WIDER * n_pairs} drawn pairs have a value for {' and '.join(names)}"
            )
        plain, further = rows[:n_pairs], rows[n_pairs:]
        wanted = max(0, n_pairs // 4 - int(both[plain].sum()))
        rows = np.concatenate([plain, further[both[further]][:wanted]])
        answers = joint.tokens()[rows]

        def shown(states: States) -> Batch:  # a task that shows the answer shows the joint one
            return task.render(states[rows], answers)

        return cls(
            variables=names,
            base=shown(base),
            sources=tuple(shown(source) for source in sources),
            targets=torch.from_numpy(answers.astype(np.int64)),
            changes=changes[rows],
            both=both[rows],
            n_plain=n_pairs,
        )

    def __len__(self) -> int:
        return len(self.base)


@torch.no_grad()
def swapped_answers(
    model: Any,
    task: Task,
    base: Batch,
    swaps: Sequence[tuple[Site, Batch]],
    *,
    bases: Sequence[Tensor | None] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Greedy next states [n, state_length] on base with every site taken from its source in the same run.

    Args:
        model: the hooked model, in eval mode.
        task: names positions and finds the answer in the logits.
        base: n examples.
        swaps: (site, source) each; a source may stand at several sites, and sites at several layers. Where an earlier
            swap changes what reaches a later site, the later one still puts in what its own source had there.
        bases: for each swap orthonormal rows [rank, d], or None for the whole vector.
        batch_size: rows a forward pass.

    Raises:
        ValueError: an unknown hook or position, or two whole-vector swaps that overlap at one hook.
    """
    names = task.position_names
    bases = [None] * len(swaps) if bases is None else list(bases)
    values = [collect(model, source, [site], position_names=names)[site] for site, source in swaps]
    where = [resolve(names, site.positions, base.examples) for site, _ in swaps]
    _check_disjoint([site for site, _ in swaps], where, bases)
    parts = []
    for start in range(0, len(base), batch_size):
        rows = slice(start, start + batch_size)
        patches = [
            Patch(site.hook, positions[rows], value[rows], head=site.head, basis=basis)
            for (site, _), positions, value, basis in zip(swaps, where, values, bases, strict=True)
        ]
        with patched(model, patches):
            parts.append(task.next_state_logits(model(base.tokens[rows])).argmax(-1))
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

    def right(subject: Any, swaps: Sequence[tuple[Site, Batch]]) -> np.ndarray:
        return (swapped_answers(subject, task, pairs.base, swaps) == pairs.targets).all(-1).numpy().astype(float)

    together = list(zip(sites, pairs.sources, strict=True))
    runs: dict[Control | None, np.ndarray] = {None: right(model, together), Control.UNPATCHED: right(model, [])}
    single = [right(model, [swap]) for swap in together]
    runs[Control.WRONG_SITE] = right(model, list(zip(sites, pairs.sources[1:] + pairs.sources[:1], strict=True)))
    if untrained is not None:
        runs[Control.UNTRAINED_MODEL] = right(untrained, together)
    programs = program_hash(pairs.base.examples).astype(np.int64)
    plain = np.arange(len(pairs)) < pairs.n_plain
    rows: list[dict[str, Any]] = []
    for stratum, chosen in (("both", pairs.both), ("changes", pairs.changes & plain), ("all", plain)):
        if not chosen.any():
            continue
        best = max(single, key=lambda run, chosen=chosen: run[chosen].mean())
        for control, run in (runs | {Control.SINGLE_SWAP: best}).items():
            values, groups = run[chosen], programs[chosen]
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
