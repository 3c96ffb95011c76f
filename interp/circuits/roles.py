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

import torch

from interp.circuits.attention import position_sets, set_members
from interp.circuits.head_swaps import HeadSwaps, Interval, Move, intervals
from interp.circuits.nodes import node_effects
from interp.circuits.pairs import draw_pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.ranges import counted
from interp.tasks import Batch, Task

_HALF = 0.5  # of a head's attention, for a slot to be named


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


@counted(n=1)
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
    if not graph.one_stream:
        raise ValueError(
            f"a head's role is measured where every head writes at every position; {model.cfg.architecture!r} has sides"
        )
    chosen = _heads_of(graph, heads)
    report = progress or (lambda share: None)
    pairs = draw_pairs(task, op, n, seed=seed)
    effects = intervals(node_effects(model, pairs), pairs.groups, seed=seed)
    names = [writer.name for writer in graph.writers]
    swaps = HeadSwaps.draw(model, task, op, task.swappable() if variables is None else variables, n, seed)
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


def _heads_of(graph: Graph, heads: Sequence[tuple[int, int]] | None) -> list[tuple[int, int]]:
    """These heads, or all; ValueError on one that there is not."""
    every = [(layer, head) for layer in range(graph.n_layers) for head in range(graph.n_heads)]
    chosen = every if heads is None else list(heads)
    if unknown := [head for head in chosen if head not in every]:
        raise ValueError(
            f"the model has no head {unknown[0]}: layers go to {graph.n_layers - 1}, heads to {graph.n_heads - 1}"
        )
    return chosen


class _Looks:
    """Attention patterns over the states, by named sets of positions."""

    def __init__(self, model: Any, task: Task, batch: Batch):
        hooks = model.attention_hooks()
        _, cache = model.run_with_cache(batch.tokens, names_filter=hooks, return_cache_object=False)
        self._patterns = [model.on_record(name, cache[name]) for name in hooks]
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


def _sentence(
    layer: int, head: int, op: str, move: Move, to_block: str, share: float, effect: Interval, *, n_tried: int
) -> str:
    looks = f"In {op}, from {_words(move.positions)} head a{layer}.h{head} attends to {_words(to_block)}"
    if move.certain:
        moves = (
            f"and brings {move.variable}: with what it writes there swapped for another state's, the answer goes "
            f"{move.score[0]:.0%} of the way to the one with that state's {move.variable} "
            f"({move.iia:.0%} of whole answers)"
        )
    else:
        moves = f"and moves none of {n_tried} variables for certain ({move.variable} most, {move.score[0]:.0%})"
    worth = (
        "replacing all it writes by what it writes in the other run of a pair changes the logit difference by "
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
