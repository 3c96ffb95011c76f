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

from cython_vm import Op, States, encode, program_hash, sample, step, variable
from interp.circuits.attention import POINTED, position_sets, set_members
from interp.circuits.discovery import node_effects
from interp.circuits.graph import Graph
from interp.circuits.pairs import draw_pairs, first_states
from interp.interventions import Site, default_variables, interchange, interchange_answers
from interp.tasks import Batch, Task
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
    op: Op,
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
        task: draws the states and knows the machine.
        op: the instruction that the states execute.
        heads: (layer, head), those of a circuit for example; every head by default.
        variables: settable variables to try; `default_variables` by default.
        n: pairs, of the node effect and of each variable, all from held-out programs.
        seed: of everything random.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: a head that the model lacks, an op that the machine lacks, or an unknown or unsettable variable.
    """
    graph = Graph.of(model)
    every = [(layer, head) for layer in range(graph.n_layers) for head in range(graph.n_heads)]
    chosen = every if heads is None else list(heads)
    if unknown := [head for head in chosen if head not in every]:
        raise ValueError(
            f"the model has no head {unknown[0]}: layers go to {graph.n_layers - 1}, heads to {graph.n_heads - 1}"
        )
    report = progress or (lambda share: None)
    pairs = draw_pairs(task, op, n, seed=seed)
    effects = _intervals(node_effects(model, pairs), pairs.programs, seed=seed)
    names = [writer.name for writer in graph.writers]
    swaps = _Swaps.draw(model, task, op, default_variables(task.spec) if variables is None else variables, n, seed)
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
    targets: dict[str, Tensor]  # variable -> the machine's counterfactual answer on these, [n, state_length]
    plain: dict[str, Tensor]  # variable -> the machine's answer on base, [n, state_length]
    judged: dict[str, Tensor]  # variable -> slots that are judged, bool [n, state_length]
    programs: np.ndarray  # of base, [row]
    seed: int

    @classmethod
    def draw(cls, model: Any, task: Task, op: Op, names: Sequence[str], n: int, seed: int) -> _Swaps:
        base = first_states(task, op, _POOL * n, seed=seed)
        pool = sample(task.spec, len(base), seed=seed + 1, split="evaluation")
        rng, plain = np.random.default_rng(seed), step(base)
        bases, sources, shown = [], [], []
        members, targets, before, judged = {}, {}, {}, {}
        for name in names:
            each = variable(task.spec, name)
            if not each.settable:
                raise ValueError(f"variable {name!r} can be read but not set; a head's role needs one that can be set")
            defined = np.flatnonzero(each.read(pool) >= 0)
            if not len(defined):
                continue
            # Always defined: base i goes with source i, as for other such variables, which share these pairs then.
            source = pool if len(defined) == len(pool) else pool[rng.choice(defined, size=len(base))]
            values = each.read(source)
            done = step(base, do={name: values})
            agree = np.ones_like(done.tokens(), dtype=bool)
            if each.kind == "root":
                agree = encode(base.replace(name, values)) == encode(base)
            rows = np.flatnonzero(done.valid & ((done.tokens() != plain.tokens()) & agree).any(axis=1))[:n]
            if len(np.unique(program_hash(base[rows]))) < MIN_GROUPS:
                continue  # too rarely, with this op, does the variable change the answer
            same = np.flatnonzero(done.valid & (values == each.read(base)))[: n // 2]
            for key, some in ((name, rows), (_same(name), same)):
                if len(some):
                    members[key] = sum(map(len, bases)) + np.arange(len(some))
                    bases.append(base[some])
                    sources.append(source[some])
                    shown.append(done.tokens()[some])
                    targets[key] = torch.from_numpy(shown[-1].astype(np.int64))
                    before[key] = torch.from_numpy(plain.tokens()[some].astype(np.int64))
                    judged[key] = torch.from_numpy(agree[some])
        if not members:
            raise ValueError(f"none of the variables {', '.join(names)} changes the answer of {op.name} often enough")
        states, answers = (States.concatenate(bases), States.concatenate(sources)), np.concatenate(shown)
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
            programs=program_hash(states[0][first]).astype(np.int64),
            seed=seed,
        )

    def moves(self, heads: Sequence[tuple[int, int]], progress: Callable[[float], None]) -> list[_Move]:
        """For each head its best variable, and the positions at which it writes it."""
        names = set(self.task.position_names)
        blocks = [name for name in position_sets(self.task) if name != "brackets" and name not in POINTED]
        pointed = [name for name in POINTED if name.split("[")[0] in blocks]
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
            score = _intervals(shift[None, :, 0], self.programs[self.members[name]], seed=self.seed)[0]
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
        sites = [Site(f"blocks.{layer}.attn.hook_z", where, head=head) for layer, head in heads for where in sets]
        n = len(self.base)
        swaps = interchange(self.task, sites, self.base.examples, self.source.examples)
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
        seen = self.task.next_state_logits(logits).unflatten(0, (-1, n))
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
        hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
        _, cache = model.run_with_cache(batch.tokens, names_filter=hooks, return_cache_object=False)
        self._patterns = [cache[name] for name in hooks]
        self._sets = position_sets(task)
        self._members = set_members(task, self._sets, batch.examples)
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
        narrow = {name: share for name, share in {**shares, **slots}.items() if name in POINTED or name in slots}
        wide = {name: share for name, share in shares.items() if name not in POINTED}
        best = max(narrow, key=lambda name: narrow[name])
        if narrow[best] < _HALF:
            narrow, best = wide, max(wide, key=lambda name: wide[name])
        return best, float(narrow[best])


def _same(name: str) -> str:
    """The key of a variable's pairs in which base and source agree on it."""
    return _SAME + name


def _intervals(values: np.ndarray, programs: np.ndarray, *, seed: int) -> list[Interval]:
    """(mean, low, high) of each row of [part, n], by bootstrap over programs where there are enough."""
    if len(np.unique(programs)) < MIN_GROUPS:
        return [(float(mean), float("nan"), float("nan")) for mean in values.mean(axis=1)]
    found = bootstrap_mean(values, programs, seed=seed)
    return [(float(a), float(b), float(c)) for a, b, c in np.stack(found, axis=1)]


def _sentence(
    layer: int, head: int, op: Op, move: _Move, to_block: str, share: float, effect: Interval, *, n_tried: int
) -> str:
    looks = f"In {op.name}, from {_words(move.positions)} head a{layer}.h{head} attends to {_words(to_block)}"
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
    if positions in POINTED:
        block, pointer = positions[:-1].split("[@")
        return f"the slot of {block} at {pointer}"
    return positions if positions.endswith("]") else f"the slots of {positions}"
