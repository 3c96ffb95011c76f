"""What each head of an instruction does, in a sentence generated from measurements alone.

1. Variable: on states that execute the instruction, swap what the head writes (z, before W_O) for what it writes in an
   independently drawn state, and hold the answer against the machine's with one variable set to its value there. With
   g = logit(counterfactual token) - logit(base's token), averaged over the slots where these two answers differ (and,
   where the variable is stored, the two inputs agree: its own slots keep their tokens whatever the head writes),

       score = mean of (g swapped - g) / (-2 mean of g):  0 = nothing moved, 1 = g reversed, the variable moved whole.

   A swap that only destroys also lowers the logit of base's token, so the head's variable is that of the highest mean
   of score and IIA, the share of answers that are then the counterfactual ones; none where that mean is below 0.2 or
   the score's interval holds 0. Nor is it a variable for which more than half of the right answers are lost when the
   other state has the *same* value: that swap should change nothing, unless the head carries something else. A
   descendant (the result of what a head fetched) comes out lower, since base and source execute different instructions.
2. Where it writes: swapped at all positions, or at a pointed slot resolved apart in base and source; of all positions,
   the smallest block that keeps nine tenths of that mean.
3. Where it looks: the mean share of attention that queries there pay to a pointed slot, a fixed slot or a block; the
   most specific that gets half of it, else the block that gets most.
4. Worth: the effect on the logit difference of replacing all it writes by what it writes in a run that executes
   another instruction (`node_effects`); negative where it helps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.attention import position_sets, set_members
from interp.circuits.nodes import node_effects
from interp.circuits.pairs import draw_pairs
from interp.circuits.standing import taken_apart
from interp.interventions.sweep import Interchange, interchange_answers
from interp.tasks import Batch, Task
from interp.tasks.base import read_answers
from probes.evaluation import MIN_GROUPS, bootstrap_mean

_MIN_STRENGTH = 0.2  # mean of score and IIA; a variable below is not named
_MIN_SPARED = 0.5  # of right answers, when the other state has the same value
_KEPT = 0.9  # the share of the strength that a smaller set of positions has to keep
_HALF = 0.5  # of a head's attention, for a slot to be named
_POOL = 32  # states drawn for each pair asked for, since few pairs of some variables change the answer
_BATCH = 512  # rows a forward pass
_SAME = "same "

Interval = tuple[float, float, float]  # estimate, low, high; the ends nan with fewer than ten programs


@dataclass(frozen=True)
class HeadRole:
    """What a head was found to do."""

    layer: int
    head: int
    from_block: str  # positions at which its output matters, as interp.tasks.sites spells them
    to_block: str  # positions that it attends to from there; "brackets" for whatever is in no block
    attention: float  # the share of that attention, 0 to 1
    variable: str | None  # what it moves; None where nothing tried moves for certain
    score: float  # how far it moves the variable, or the best of those tried, 1 = whole
    score_low: float
    score_high: float
    iia: float  # share of answers that are then the machine's counterfactual ones, a stored variable's own slots aside
    spared: float  # share of right answers that stay right when the other state has the variable's same value
    n: int  # pairs of the variable
    effect: float  # of the whole head on the logit difference, negative where it helps
    effect_low: float
    effect_high: float
    sentence: str

    @property
    def node(self) -> str:
        return f"a{self.layer}.h{self.head}"


@torch.no_grad()
def head_roles(
    model: Any,
    task: Task,
    op: str,
    *,
    heads: Sequence[tuple[int, int]] | None = None,
    variables: Sequence[str] | None = None,
    n: int = 32,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[HeadRole]:
    """The role of each head in an instruction.

    Args:
        model: the hooked transformer, in eval mode.
        task: draws the states, of one step each, and knows what comes of them.
        op: the contrast, an instruction that the states execute.
        heads: (layer, head), those of a circuit for example; every head by default.
        variables: settable variables to try; `task.swappable()` by default.
        n: pairs, of the node effect and of each variable, all from held-out programs.
        seed: of everything random.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: a head that the model lacks, a contrast that the task lacks, an unknown or unsettable variable, a
            task whose examples are no single steps, or a model that `taken_apart` refuses.
    """
    if not task.has_strata:
        raise ValueError(f"a head's role is measured on single steps; an example of {task.name} is a run of several")
    graph = taken_apart(model)
    every = [(layer, head) for layer in range(graph.n_layers) for head in range(graph.n_heads)]
    chosen = every if heads is None else list(heads)
    if unknown := [head for head in chosen if head not in every]:
        raise ValueError(
            f"the model has no head {unknown[0]}: layers go to {graph.n_layers - 1}, heads to {graph.n_heads - 1}"
        )
    report = progress or (lambda share: None)
    pairs = draw_pairs(task, op, n, seed=seed)
    effects = _intervals(node_effects(model, pairs), pairs.groups, seed=seed)
    names = [writer.name for writer in graph.writers]
    swaps = _Swaps.draw(model, task, op, task.swappable() if variables is None else variables, n, seed)
    report(0.2)
    moves = swaps.moves(chosen, lambda share: report(0.2 + 0.7 * share))
    looks = _Looks(model, task, swaps.base)
    roles = []
    for (layer, head), move in zip(chosen, moves, strict=True):
        to_block, share = looks.at(layer, head, move.positions)
        effect = effects[names.index(f"a{layer}.h{head}")]
        sentence = _sentence(layer, head, op, move, to_block, share, effect, n_tried=len(swaps.variables))
        found = move.variable if move.certain else None
        roles.append(
            HeadRole(
                layer,
                head,
                move.positions,
                to_block,
                share,
                found,
                *move.score,
                move.iia,
                move.spared,
                move.n,
                *effect,
                sentence,
            )
        )
    report(1.0)
    return roles


@dataclass(frozen=True)
class _Move:
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
class _Swaps:
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
    def draw(cls, model: Any, task: Task, op: str, names: Sequence[str], n: int, seed: int) -> _Swaps:
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
            told, agree = task.expected(answer), _judged_places(task, base, name, values)
            rows = np.flatnonzero(answer.valid & ((told != plain) & agree).any(axis=1))[:n]
            if len(np.unique(task.groups(base[rows]))) < MIN_GROUPS:
                continue  # too rarely, with this op, does the variable change the answer
            same = np.flatnonzero(answer.valid & (values == world.read(base, name)))[: n // 2]
            for key, some in ((name, rows), (_same(name), same)):
                if len(some):
                    members[key] = sum(map(len, bases)) + np.arange(len(some))
                    bases.append(base[some])
                    sources.append(source[some])
                    shown.append(told[some])
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

    def moves(self, heads: Sequence[tuple[int, int]], progress: Callable[[float], None]) -> list[_Move]:
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
            score = _intervals(shift[None, :, 0], self.groups[self.members[name]], seed=self.seed)[0]
            spared = self._spared(found[index][best[index][1]], name)
            moves.append(_Move(name, where, score, float(shift[:, 1].mean()), spared, len(shift)))
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
        """For each head, by positions and variable, [n, 2]: score and whether the whole answer is right, by example."""
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
            both = torch.stack([target, plain], dim=-1).expand(*own.shape[:-1], 2)
            pair = own.gather(-1, both)
            differ = ((target != plain) & judged).to(own)
            gap = ((pair[..., 0] - pair[..., 1]) * differ).sum(-1) / differ.sum(-1).clamp(min=1)
            right = ((own.argmax(-1) == target) | ~judged).all(-1).to(own)
            out[:, members, index] = torch.stack([gap, right], dim=-1)
        return out


class _Looks:
    """Attention patterns over the states, by named sets of positions."""

    def __init__(self, model: Any, task: Task, batch: Batch):
        hooks = model.attention_hooks()
        _, cache = model.run_with_cache(batch.tokens, names_filter=hooks, return_cache_object=False)
        self._patterns = [cache[name] for name in hooks]
        self._sets, self._pointed = position_sets(task), task.pointed_places()
        self._members = set_members(task, self._sets, batch)
        self._names = task.position_names

    def at(self, layer: int, head: int, positions: str) -> tuple[str, float]:
        """What queries at `positions` attend to, and the share of their attention."""
        pattern = self._patterns[layer][:, head]
        queries = torch.ones_like(pattern[..., 0])
        if positions != "all":
            queries = self._members[:, self._sets.index(positions)]
        mean = torch.einsum("bqk,bq->bk", pattern, queries / queries.sum(-1, keepdim=True))
        shares = dict(zip(self._sets, torch.einsum("bk,bsk->s", mean, self._members).tolist(), strict=True))
        shares = {name: share / len(mean) for name, share in shares.items()}
        slots = dict(zip(self._names, mean.mean(0).tolist(), strict=True))
        narrow = {name: share for name, share in {**shares, **slots}.items() if name in self._pointed or name in slots}
        wide = {name: share for name, share in shares.items() if name not in self._pointed}
        best = max(narrow, key=lambda name: narrow[name])
        if narrow[best] < _HALF:
            narrow, best = wide, max(wide, key=lambda name: wide[name])
        return best, float(narrow[best])


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


def _intervals(values: np.ndarray, groups: np.ndarray, *, seed: int) -> list[Interval]:
    """(mean, low, high) of each row of [part, n], by bootstrap over groups where there are enough."""
    if len(np.unique(groups)) < MIN_GROUPS:
        return [(float(mean), float("nan"), float("nan")) for mean in values.mean(axis=1)]
    found = bootstrap_mean(values, groups, seed=seed)
    return [(float(a), float(b), float(c)) for a, b, c in np.stack(found, axis=1)]


def _sentence(
    layer: int, head: int, op: str, move: _Move, to_block: str, share: float, effect: Interval, *, n_tried: int
) -> str:
    looks = f"In {op}, from {_words(move.positions)} head a{layer}.h{head} attends to {_words(to_block)}"
    if move.certain:
        moves = (
            f"and brings {move.variable}: with what it writes there swapped for another state's, the answer goes "
            f"{move.score[0]:.0%} of the way to the machine's with that state's {move.variable} "
            f"({move.iia:.0%} of whole answers)"
        )
    else:
        moves = f"and moves none of {n_tried} variables for certain ({move.variable} most, {move.score[0]:.0%})"
    worth = (
        "replacing all it writes by that of a run of another instruction changes the logit difference by "
        f"{effect[0]:+.2f} [{effect[1]:+.2f}, {effect[2]:+.2f}]"
    )
    return f"{looks} ({share:.0%} of its attention) {moves}; {worth}."


def _words(positions: str) -> str:
    """A set of positions in words."""
    if positions == "all":
        return "every position"
    if positions == "brackets":
        return "the brackets"
    if "[@" in positions:
        block, pointer = positions[:-1].split("[@")
        return f"the slot of {block} at {pointer}"
    return positions if positions.endswith("]") else f"the slots of {positions}"
