"""A base and one source a variable, with the world's answer when every variable takes its value from its own source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.by_stratum import equal_shares, matching
from interp.tasks import Batch, Task
from interp.worlds.base import Split

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
        drawn = _Drawn(task, variables, _WIDER * n_pairs, seed=seed, split=split, weights=None)
        rows = drawn.rows
        if len(rows) < n_pairs:
            raise ValueError(
                f"only {len(rows)} of {_WIDER * n_pairs} drawn pairs have a value for {' and '.join(drawn.names)}"
            )
        plain, further = rows[:n_pairs], rows[n_pairs:]
        wanted = max(0, n_pairs // 4 - int(drawn.both[plain].sum()))
        rows = np.concatenate([plain, further[drawn.both[further]][:wanted]])
        return drawn.pairs(rows, n_plain=n_pairs)

    @classmethod
    def stratified(
        cls, task: Task, variables: Sequence[str], *, n: int = 64, seed: int
    ) -> tuple[JointPairs | None, JointPairs | None]:
        """Up to `n` pairs of the stratum "both" for each of the world's strata of base, and the same bases with sources
        in which every variable has base's own value; None where there are no such pairs.

        Raises:
            ValueError: as `draw`.
        """
        weights = equal_shares(task.strata_weights("op_outcome"))
        size = _WIDER * n * max(1, len(task.world.stratum_names))
        drawn = _Drawn(task, variables, size, seed=seed, split="evaluation", weights=weights)
        rows = drawn.rows[drawn.both[drawn.rows]]
        number = task.strata(task.render(drawn.base[rows]), drawn.edit_time[rows]).number
        rows = np.concatenate([rows[number == each][:n] for each in np.unique(number)]) if len(rows) else rows
        if not len(rows):
            return None, None
        return drawn.pairs(rows, n_plain=0), drawn.same_value(rows, seed=seed)

    def __len__(self) -> int:
        return len(self.base)

    @property
    def valid(self) -> Tensor:
        """Whether a place is judged, bool [n, k]."""
        return self.targets >= 0


class _Drawn:
    """Everything that was drawn, of which pairs are chosen; `rows` have a joint counterfactual."""

    def __init__(
        self, task: Task, variables: Sequence[str], n: int, *, seed: int, split: Split, weights: np.ndarray | None
    ):
        self.names = names = tuple(variables)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"a joint swap needs two or more different variables, got {', '.join(names) or 'none'}")
        for name in names:
            task.world.settable(name)
        self.task, world = task, task.world
        size, rng = 1 + len(names), np.random.default_rng([seed, 1])
        drawn = task.draw(size * n, seed=seed, split=split, weights=weights)
        base, sources = drawn[0::size], [drawn[place::size] for place in range(1, size)]
        times = [task.edit_times(base, source, name, rng) for name, source in zip(names, sources, strict=True)]
        edit_time = _each(times[0][0], base)  # one step of base, at which all are set
        source_times = [_each(time, base) for _, time in times]
        named = zip(names, sources, source_times, strict=True)
        values = {name: world.read(source, name, time) for name, source, time in named}
        positions, judged = task.asked_after(base, edit_time)
        kept = np.flatnonzero(np.all([value >= 0 for value in values.values()], axis=0) & (judged >= 0))
        self.base, self.edit_time = base[kept], edit_time[kept]
        self.positions, self.judged = positions[kept], judged[kept]
        self.sources, self.source_times = [each[kept] for each in sources], [each[kept] for each in source_times]
        self.values = {name: value[kept] for name, value in values.items()}
        self.joint, self.unedited = self._answer(names), self._answer(())
        self.changes = (self.joint != self.unedited).any(1)
        self.both = self.changes.copy()
        for left_out in names:
            partial = self._answer([name for name in names if name != left_out])
            self.both &= (self.joint != partial).any(1) & (partial >= 0).any(1)
        self.rows = np.flatnonzero((self.joint >= 0).any(1))

    def _answer(self, some: Sequence[str]) -> np.ndarray:
        """The world's answer with these variables set, [n, k]."""
        do = {name: self.values[name] for name in some}
        return self.task.answered(self.task.world.answer(self.base, do=do, at=self.edit_time), self.judged)

    def pairs(self, rows: np.ndarray, *, n_plain: int) -> JointPairs:
        """The pairs of these rows."""
        sources = [(each[rows], time[rows]) for each, time in zip(self.sources, self.source_times, strict=True)]
        return self._shown(rows, sources, self.joint[rows], self.changes[rows], self.both[rows], n_plain)

    def same_value(self, rows: np.ndarray, *, seed: int) -> JointPairs | None:
        """The bases of these rows with sources, any that were drawn, in which each variable has base's own value."""
        rng, chosen = np.random.default_rng([seed, 2]), []
        for name in self.names:
            own = self.task.world.read(self.base[rows], name, self.edit_time[rows])
            chosen.append(matching(own, self.values[name], rng))
        found = np.flatnonzero(np.all([each >= 0 for each in chosen], axis=0))
        if not len(found):
            return None
        sources = [
            (each[match[found]], time[match[found]])
            for each, time, match in zip(self.sources, self.source_times, chosen, strict=True)
        ]
        none = np.zeros(len(found), dtype=bool)
        return self._shown(rows[found], sources, self.unedited[rows[found]], none, none, 0)

    def _shown(
        self,
        rows: np.ndarray,
        sources: Sequence[tuple[Any, np.ndarray]],
        answers: np.ndarray,
        changes: np.ndarray,
        both: np.ndarray,
        n_plain: int,
    ) -> JointPairs:
        return JointPairs(
            variables=self.names,
            base=self.task.render(self.base[rows], answers),  # a task that shows the answer shows the joint one
            sources=tuple(self.task.render(source, answers) for source, _ in sources),
            positions=torch.from_numpy(self.positions[rows]),
            targets=torch.from_numpy(answers),
            unedited=torch.from_numpy(self.unedited[rows]),
            edit_time=self.edit_time[rows],
            source_times=tuple(time for _, time in sources),
            changes=changes,
            both=both,
            n_plain=n_plain,
        )


def _each(times: int | np.ndarray, examples: Any) -> np.ndarray:
    return np.array(np.broadcast_to(np.asarray(times, dtype=np.int64), len(examples)))
