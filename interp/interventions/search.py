"""The smallest set of positions that carries a variable at one layer, found greedily.

1. On pairs of training units whose answer should change, add the named part (a block, a pointed slot, a bracket)
   that raises IIA most; where parts tie, the one that brings more of the answer's tokens right. Go on to `max_parts`.
2. Keep the shortest prefix within `tolerance` of the best IIA on the way.
3. Take its blocks apart into slots, and drop those without which IIA stays within `tolerance`: the harmless ones
   together, or else the most harmless half of them, and so on.
4. Score what is left on held-out units.

Greedy, so an upper bound on the smallest size; the fit's own IIA is flattered by the choice, the held-out one is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.interventions.activations import check_sites
from interp.interventions.by_stratum import Swap, stratum_rows
from interp.interventions.interchange import iia_sweep, swaps_of
from interp.interventions.pairs import SharedPairs
from interp.interventions.sweep import interchange_answers
from interp.ranges import counted, require_number
from interp.results import Method
from interp.tasks import Task
from interp.tasks.sites import Site, block_slots, is_slot


@dataclass(frozen=True)
class PositionSet:
    """A set of positions that carries a variable at a hook."""

    variable: str
    site: Site  # the hook, and the set's positions
    n_positions: int
    iia_fit: float  # on the pairs that it was chosen on
    path: tuple[tuple[str, float], ...]  # sets on the way up, with their IIA there


@counted(n_pairs=1, max_parts=1)
def smallest_set(
    model: Any,
    task: Task,
    name: str,
    hook: str,
    *,
    candidates: Sequence[str] | None = None,
    n_pairs: int = 96,
    max_parts: int = 4,
    tolerance: float = 0.03,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> PositionSet:
    """Search for the smallest position set at `hook` that carries the variable `name`.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        name: a settable variable.
        hook: where to swap.
        candidates: names of the parts to add; `candidate_parts` by default. Parts that a pair cannot resolve are left
            out.
        n_pairs: pairs of training units that change the answer, at most.
        max_parts: parts added, at most.
        tolerance: of IIA, that a smaller set may lose.
        seed: of the pairs.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: an unknown variable or hook, or no pair that changes the answer.
    """
    check_sites(model, [Site(hook)])
    require_number("tolerance", tolerance, least=0, most=1)
    report = progress or (lambda share: None)
    score = _Fit(model, task, name, hook, n_pairs=n_pairs, seed=seed)
    parts = [part for part in candidates or candidate_parts(task, name) if score.resolves([part])]
    chosen: list[str] = []
    path: list[tuple[str, float]] = []
    for step in range(max_parts):
        options = [[*chosen, part] for part in parts if part not in chosen and score.resolves([*chosen, part])]
        if not options:
            break
        found = score(options)
        best = max(range(len(options)), key=lambda index: found[index])
        chosen = options[best]
        path.append(("+".join(chosen), found[best][0]))
        report(0.8 * (step + 1) / max_parts)
    top = max(iia for _, iia in path)
    kept = next(names for names, iia in path if iia >= top - tolerance)
    slots = _prune(score, _slots(task, kept.split("+")), least=top - tolerance)
    report(1.0)
    site = Site(hook, "+".join(slots))
    return PositionSet(name, site, len(slots), score([slots])[0][0], tuple(path))


@counted(n_pairs=1)
def smallest_set_rows(
    model: Any,
    task: Task,
    name: str,
    hook: str,
    *,
    n_pairs: int = 256,
    untrained: Any | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[PositionSet, list[dict[str, Any]]]:
    """`smallest_set`, and its IIA on `n_pairs` of held-out units, pooled and by stratum, with controls, as rows."""
    found = smallest_set(model, task, name, hook, seed=seed, progress=progress)
    rows = iia_sweep(model, task, [name], [found.site], n_pairs=n_pairs, seed=seed, untrained=untrained)
    rows = [{**row, "method": Method.POSITION_SEARCH} for row in rows if "site" in row]
    swap = Swap(found.site, columns={"method": Method.POSITION_SEARCH})
    return found, rows + stratum_rows(model, task, name, [swap], seed=seed)


def candidate_parts(task: Task, name: str) -> list[str]:
    """The task's position sets but the ceiling, every bracket and brace of the prompt, and the slot that a member of
    a family stands in."""
    named = [each for each in task.position_sets() if each != "all"]
    brackets = [each for each in task.position_names[task.prompt_positions] if not is_slot(each)]
    own = task.world.variable(name)
    slot = [own.place] if own.family != name and own.place in task.position_names else []
    return [*named, *brackets, *slot]


class _Fit:
    """IIA, and the share of the answer's tokens that are right, of position sets on the pairs of the fit."""

    def __init__(self, model: Any, task: Task, name: str, hook: str, *, n_pairs: int, seed: int):
        self.model, self.task, self.hook = model, task, hook
        pairs = SharedPairs.draw(task, [name], n_pairs=n_pairs, n_changing=n_pairs, seed=seed, split="train")
        rows = pairs.members[name][pairs.changes[name]]
        if not len(rows):
            raise ValueError(f"no pair of {name!r} changes the answer: nothing to search with")
        self.pairs, self.rows = pairs, rows
        self.right = pairs.targets[name][pairs.changes[name]], pairs.valid[name][pairs.changes[name]]

    def __call__(self, sets: Sequence[Sequence[str]]) -> list[tuple[float, float]]:
        pairs, rows, (targets, valid) = self.pairs, self.rows, self.right
        answers = interchange_answers(
            self.model,
            pairs.base.tokens[rows],
            pairs.source.tokens[rows],
            swaps_of(self.task, [Site(self.hook, "+".join(parts)) for parts in sets], pairs, rows),
            positions=pairs.positions[rows],
        )
        right = (answers[:-1] == targets) & valid
        whole = (right | ~valid).all(-1).float().mean(-1)
        tokens = right.flatten(1).sum(1) / valid.sum()
        return [(float(iia), float(share)) for iia, share in zip(whole, tokens, strict=True)]

    def resolves(self, parts: Sequence[str]) -> bool:
        """Whether every pair has these positions, and no two parts overlap."""
        try:
            swaps_of(self.task, [Site(self.hook, "+".join(parts))], self.pairs, self.rows)
        except ValueError:
            return False
        return True


def _slots(task: Task, parts: Sequence[str]) -> list[str]:
    """Blocks spelt slot by slot; other parts as they are."""
    names = task.position_names
    spelt = ([names[place] for place in block_slots(names, part)] or [part] for part in parts)
    return [slot for slots in spelt for slot in slots]


def _prune(score: _Fit, slots: list[str], *, least: float) -> list[str]:
    """Slots without those that IIA can spare."""
    while len(slots) > 1:
        without = score([[other for other in slots if other != slot] for slot in slots])
        order = np.argsort([-iia for iia, _ in without], kind="stable")  # harmless ones first
        spare = [slots[index] for index in order if without[index][0] >= least]
        spare = spare[: len(slots) - 1]
        while spare:
            left = [slot for slot in slots if slot not in spare]
            if score([left])[0][0] >= least:
                break
            spare = spare[: len(spare) // 2]
        if not spare:
            break
        slots = [slot for slot in slots if slot not in spare]
    return slots
