"""What moves when a head writes what it writes in another state: the measurement behind a head's role (`roles`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.sweep import Interchange, interchange_answers
from interp.tasks import Batch, Task
from interp.tasks.answers import read_answers
from probes.scores import MIN_GROUPS, bootstrap_mean

_MIN_STRENGTH = 0.2  # mean of score and IIA; a variable below is not named
_MIN_SPARED = 0.5  # of right answers, when the other state has the same value
_KEPT = 0.9  # the share of the strength that a smaller set of positions has to keep
_POOL = 32  # states drawn for each pair asked for, since few pairs of some variables change the answer
_BATCH = 512  # rows a forward pass
_SAME = "same "
_LEADING = 0.9  # the share of pairs in which base's answer must lead unpatched: else little is left to be moved

Interval = tuple[float, float, float]  # estimate, low, high; the ends nan with fewer than ten programs


@dataclass(frozen=True)
class Move:
    """The variable that a head moves most, and where it writes it."""

    variable: str
    positions: str
    score: Interval
    iia: float
    spared: float
    n: int

    @property
    def certain(self) -> bool:
        strong = (self.score[0] + self.iia) / 2 >= _MIN_STRENGTH and self.score[1] > 0
        return strong and self.spared >= _MIN_SPARED


@dataclass(frozen=True, eq=False)
class HeadSwaps:
    """Pairs of states that execute the op and others, shared by all variables, each with its own answer."""

    model: Any
    task: Task
    base: Batch
    source: Batch
    members: dict[str, np.ndarray]  # variable -> rows; `_same(variable)` -> rows whose source has base's value
    targets: dict[str, Tensor]  # variable -> the world's counterfactual answer on these, [n, k]
    plain: dict[str, Tensor]  # variable -> the world's answer on base, [n, k]
    judged: dict[str, Tensor]  # variable -> places that are judged, bool [n, k]
    groups: np.ndarray  # of base, [row]
    seed: int

    @classmethod
    def draw(cls, model: Any, task: Task, op: str, names: Sequence[str], n: int, seed: int) -> HeadSwaps:
        world = task.world
        base = task.contrast(op).examples(_POOL * n, seed).examples
        pool = task.draw(len(base), seed=seed + 1)
        rng, plain = np.random.default_rng(seed), task.expected(world.answer(base))
        bases, sources, shown = [], [], []
        members, targets, before, judged = {}, {}, {}, {}
        for name in names:
            if not world.variable(name).settable:
                raise ValueError(f"variable {name!r} can be read but not set; a head's role needs one that can be set")
            defined = np.flatnonzero(world.read(pool, name) >= 0)
            if not len(defined):
                continue
            # Always defined: base i goes with source i, as for other such variables, which share these pairs then.
            source = pool if len(defined) == len(pool) else pool[rng.choice(defined, size=len(base))]
            values = world.read(source, name)
            answer = world.answer(base, do={name: values})
            expected, agree = task.expected(answer), _judged_places(task, base, name, values)
            rows = np.flatnonzero(answer.valid & ((expected != plain) & agree).any(axis=1))[:n]
            if len(np.unique(task.groups(base[rows]))) < MIN_GROUPS:
                continue  # too rarely, with this op, does the variable change the answer
            same = np.flatnonzero(answer.valid & (values == world.read(base, name)))[: n // 2]
            for key, some in ((name, rows), (_same(name), same)):
                if len(some):
                    members[key] = sum(map(len, bases)) + np.arange(len(some))
                    bases.append(base[some])
                    sources.append(source[some])
                    shown.append(expected[some])
                    targets[key] = torch.from_numpy(shown[-1].astype(np.int64))
                    before[key] = torch.from_numpy(plain[some].astype(np.int64))
                    judged[key] = torch.from_numpy(agree[some])
        if not members:
            raise ValueError(f"none of the variables {', '.join(names)} changes the answer of {op} often enough")
        states = tuple(type(base).concatenate(parts) for parts in (bases, sources))
        answers = np.concatenate(shown)
        tokens = torch.cat([task.render(part, answers).tokens for part in states], dim=1).numpy()
        _, first, place = np.unique(tokens, axis=0, return_index=True, return_inverse=True)
        return cls(
            model=model,
            task=task,
            base=task.render(states[0][first], answers[first]),
            source=task.render(states[1][first], answers[first]),
            members={name: place.ravel()[index] for name, index in members.items()},
            targets=targets,
            plain=before,
            judged=judged,
            groups=task.groups(states[0][first]).astype(np.int64),
            seed=seed,
        )

    def moves(self, heads: Sequence[tuple[int, int]], progress: Callable[[float], None]) -> list[Move]:
        """For each head its best variable, and the positions at which it writes it."""
        names = set(self.task.position_names)
        blocks, pointed = self.task.blocks(), self.task.pointed_places()
        found = self._scores(heads, ["all", *pointed], progress)
        best = []
        for of_head in found:  # {positions: {variable: [n, 2]}}
            tried = [
                (self._spared(row, name) >= _MIN_SPARED, self._strength(row[name]), name, where)
                for where, row in of_head.items()
                for name in self.variables
            ]
            _, strength, name, where = max(tried)
            best.append((name, where if strength >= _MIN_STRENGTH else "all"))
        broad = [index for index, (_, where) in enumerate(best) if where == "all"]
        parts = self._scores([heads[index] for index in broad], blocks, lambda share: None)
        moves = []
        for index, (name, where) in enumerate(best):
            shift = found[index][where][name]
            if where == "all" and self._strength(shift) >= _MIN_STRENGTH:
                whole = self._strength(shift)
                narrow = {block: row[name] for block, row in parts[broad.index(index)].items()}
                enough = [block for block, part in narrow.items() if self._strength(part) >= _KEPT * whole]
                if enough:
                    size = {block: sum(each.startswith(f"{block}[") for each in names) for block in enough}
                    where = min(enough, key=lambda block: size[block])
            score = intervals(shift[None, :, 0], self.groups[self.members[name]], seed=self.seed)[0]
            spared = self._spared(found[index][best[index][1]], name)
            moves.append(Move(name, where, score, float(shift[:, 1].mean()), spared, len(shift)))
        return moves

    @property
    def variables(self) -> list[str]:
        """Those that change the answer often enough to be judged."""
        return [name for name in self.members if not name.startswith(_SAME)]

    @staticmethod
    def _spared(row: dict[str, np.ndarray], name: str) -> float:
        """The share of right answers that survive a swap from a state of the same value; 1 where no pair was found."""
        return float(row[_same(name)][:, 1].mean()) if _same(name) in row else 1.0

    @staticmethod
    def _strength(shift: np.ndarray) -> float:
        """Mean of score and IIA, from [n, 2]."""
        return float(shift.mean())

    def _scores(
        self, heads: Sequence[tuple[int, int]], sets: Sequence[str], progress: Callable[[float], None]
    ) -> list[dict[str, dict[str, np.ndarray]]]:
        """For each head, by positions and variable, [n, 2]: score and whether the whole answer is right, by example.

        Both are 0 of a variable whose answer comes without any swap: where the answer is shown to the model, its first
        tokens may give the rest away.
        """
        n = len(self.base)
        at = {where: (self.task.resolve(where, self.base), self.task.resolve(where, self.source)) for where in sets}
        swaps = [
            Interchange(f"blocks.{layer}.attn.hook_z", *at[where], head=head) for layer, head in heads for where in sets
        ]
        answers = interchange_answers(
            self.model,
            self.base.tokens,
            self.source.tokens,
            swaps,
            answer=lambda logits: self._judged(logits, n).flatten(0, 1),
            batch_size=max(1, _BATCH // n) * n,  # so that the rows of every pass are whole repeats of base
            progress=progress,
        )
        found: list[dict[str, dict[str, np.ndarray]]] = []
        for place in range(len(heads)):
            rows: dict[str, dict[str, np.ndarray]] = {}
            for offset, where in enumerate(sets):
                rows[where] = {}
                for index, (name, members) in enumerate(self.members.items()):
                    judged = answers[place * len(sets) + offset, members, index].numpy()
                    before = answers[-1, members, index, 0].numpy()
                    if (before < 0).mean() < _LEADING and not name.startswith(_SAME):
                        rows[where][name] = np.zeros_like(judged)
                        continue
                    score = (judged[:, 0] - before) / max(-2 * float(before.mean()), 1e-6)
                    right = judged[:, 1]
                    if name.startswith(_SAME):  # of what is right unpatched
                        right = right / max(float(answers[-1, members, index, 1].mean()), 1e-6)
                    rows[where][name] = np.stack([score, right], axis=1)
            found.append(rows)
        return found

    def _judged(self, logits: Tensor, n: int) -> Tensor:
        """[repeat, n, variable, 2]: g and whether the whole counterfactual answer came out; 0 where not a member."""
        seen = read_answers(logits, self.task.answer_positions).unflatten(0, (-1, n))
        out = seen.new_zeros(len(seen), n, len(self.members), 2)
        for index, (name, members) in enumerate(self.members.items()):
            target, plain, judged = self.targets[name], self.plain[name], self.judged[name]
            own = seen[:, members]
            both = torch.stack([target, plain], dim=-1).clamp(min=0).expand(*own.shape[:-1], 2)
            pair = own.gather(-1, both)
            said = (target >= 0) & (plain >= 0)  # -1: behind the end of an answer nothing is said
            differ = ((target != plain) & judged & said).to(own)
            gap = ((pair[..., 0] - pair[..., 1]) * differ).sum(-1) / differ.sum(-1).clamp(min=1)
            right = ((own.argmax(-1) == target) | ~judged | (target < 0)).all(-1).to(own)
            out[:, members, index] = torch.stack([gap, right], dim=-1)
        return out


def _judged_places(task: Task, base: Any, name: str, values: np.ndarray) -> np.ndarray:
    """Which places of the answer are judged, bool [n, k]: where a stored variable's own slots are both shown and
    answered, they keep their tokens whatever a head writes, and are left out."""
    k = len(task.answer_positions)
    if task.world.variable(name).kind != "root":
        return np.ones((len(base), k), dtype=bool)
    shown, edited = (
        task.render(some).tokens[:, task.prompt_positions].numpy()
        for some in (base, task.world.edit(base, name, values))
    )
    return shown == edited if shown.shape[1] == k else np.ones((len(base), k), dtype=bool)


def _same(name: str) -> str:
    """The key of a variable's pairs in which base and source agree on it."""
    return _SAME + name


def intervals(values: np.ndarray, groups: np.ndarray, *, seed: int) -> list[Interval]:
    """(mean, low, high) of each row of [part, n], by bootstrap over groups where there are enough."""
    if len(np.unique(groups)) < MIN_GROUPS:
        return [(float(mean), float("nan"), float("nan")) for mean in values.mean(axis=1)]
    found = bootstrap_mean(values, groups, seed=seed)
    return [(float(a), float(b), float(c)) for a, b, c in np.stack(found, axis=1)]
