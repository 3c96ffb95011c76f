"""From a mistake to its edges: which messages of a state that is answered right mend the answer of one that is not.

1. The neighbour: of all examples that are one edit of one stored variable away, those that the model answers right in
   full and whose right answer is the same at the mistaken places; the one whose input differs at the fewest tokens, and
   of these the one where the right token leads the mistaken one most.
2. Every edge of the model is restored by itself: the mistaken run, but the reader reads what the writer writes on the
   neighbour. It mends if the whole answer, every place of it, is right then. Nothing is estimated.
3. Where no edge mends alone, a group: edges are restored together, the greatest gain first, until the answer is mended;
   then each that can be left out is left out, the smallest gain first.
4. The control: of single edges all the others; of a group, random groups of as many edges.

The lead is the mean over mistaken places of logit(right token) - logit(mistaken token): below 0 in the mistaken run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import written
from interp.circuits.faithfulness import run_from
from interp.circuits.standing import taken_apart
from interp.interventions.edits import one_edits
from interp.models.graph import Graph
from interp.tasks import Task
from interp.tasks.answers import read_answers

GROUP = 48  # edges that a group may begin with
RANDOM = 60  # random groups
_AT_ONCE = 48  # edges or groups a pass


@dataclass(frozen=True)
class Neighbour:
    """The nearest state that is answered right."""

    words: str  # the edit that leads to it: "array_ptr = 3"
    example: Any  # of the world, one
    n_tried: int  # states that are one edit away
    n_right: int  # of these: answered right, and with the same right answer at the mistaken places


@dataclass(frozen=True)
class Restored:
    """One edge, restored by itself."""

    edge: str
    gain: float  # by how much the lead grows
    mends: bool  # the whole answer is right then


@dataclass(frozen=True)
class Mending:
    """What mends one mistake."""

    places: tuple[str, ...]  # names of the mistaken places
    neighbour: Neighbour | None  # None: no state one edit away will do
    lead: float = 0.0  # in the mistaken run
    edges: tuple[Restored, ...] = ()  # all edges of the model, the greatest gain first
    group: tuple[str, ...] = ()  # where none mends alone: edges that mend together, none of them spare
    n_random: int = 0  # random groups of as many edges
    random_mended: int = 0  # of these

    @property
    def alone(self) -> tuple[Restored, ...]:
        """The edges that mend the answer by themselves."""
        return tuple(each for each in self.edges if each.mends)


@torch.no_grad()
def mend(
    model: Any, task: Task, base: Any, *, seed: int = 0, progress: Callable[[float], None] | None = None
) -> Mending:
    """The edges whose restoration mends the model's answer to an example.

    A task that shows the answer is read token by token with the right answer given (teacher forcing).

    Args:
        model: the hooked transformer.
        task: shows the example; its answer stands at `task.answer_positions`.
        base: an example of the world, one, that the model answers wrong.
        seed: of the random groups.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: the model answers it right; or a model that `taken_apart` refuses.
    """
    graph = taken_apart(model)
    truth, logits = _answers(model, task, base)
    said = logits.argmax(-1)
    wrong = (said != truth)[0]  # [k]
    if not wrong.any():
        raise ValueError("the model answers this example right: there is no mistake to mend")
    names = tuple(task.position_names[int(at) + task.shows_answer] for at in task.answer_positions[wrong.numpy()])
    found = _neighbour(model, task, base, truth, said, wrong)
    if found.n_right == 0:
        return Mending(names, found if found.n_tried else None)
    run = _Restoring(model, task, graph, base, found.example, truth, said, wrong)
    places = [(int(row), int(column)) for row, column in zip(*np.nonzero(graph.mask), strict=True)]
    leads, mended = run.restore([[place] for place in places], progress)
    gains = leads - run.lead
    order = np.argsort(-gains, kind="stable")
    edges = tuple(Restored(graph.edge(*places[i]).name, float(gains[i]), bool(mended[i])) for i in order)
    group = [] if mended.any() else run.smallest([places[i] for i in order[:GROUP] if gains[i] > 0])
    rng = np.random.default_rng(seed)
    drawn = [[places[i] for i in rng.choice(len(places), len(group), replace=False)] for _ in range(RANDOM)]
    by_chance = int(run.restore(drawn)[1].sum()) if group else 0
    return Mending(
        places=names,
        neighbour=found,
        lead=run.lead,
        edges=edges,
        group=tuple(graph.edge(*place).name for place in group),
        n_random=RANDOM if group else 0,
        random_mended=by_chance,
    )


def _answers(model: Any, task: Task, examples: Any) -> tuple[Tensor, Tensor]:
    """The world's answers, long [n, k], and the model's logits for them, [n, k, d_vocab]."""
    truth = task.expected(task.world.answer(examples))
    tokens = (task.render(examples, truth) if task.shows_answer else task.render(examples)).tokens
    positions = np.tile(task.answer_positions, (len(examples), 1))
    return torch.from_numpy(truth.astype(np.int64)), read_answers(model(tokens), positions)


def _lead(logits: Tensor, truth: Tensor, said: Tensor, wrong: Tensor) -> Tensor:
    """logit(right) - logit(mistaken), the mean over mistaken places, [...] from logits [..., k, d_vocab]."""
    choice = torch.stack([truth[0], said[0]], dim=-1)  # [k, 2]
    values = logits.gather(-1, choice.expand(*logits.shape[:-1], 2))
    return (values[..., 0] - values[..., 1])[..., wrong].double().mean(-1)


def _neighbour(model: Any, task: Task, base: Any, truth: Tensor, said: Tensor, wrong: Tensor) -> Neighbour:
    """The nearest state that is answered right, and how many there are; `n_right` 0: base in its place."""
    shown = task.render(base).tokens[:, task.prompt_positions]
    best, choice, tried, right = None, (base, ""), 0, 0
    for examples, words in one_edits(task.world, base):
        theirs, logits = _answers(model, task, examples)
        good = (logits.argmax(-1) == theirs).all(-1) & (theirs == truth)[:, wrong].all(-1)
        differ = (task.render(examples).tokens[:, task.prompt_positions] != shown).sum(-1)
        leads = _lead(logits, truth, said, wrong)
        tried, right = tried + len(words), right + int(good.sum())
        for row in np.flatnonzero(good.numpy()):
            key = (int(differ[row]), -float(leads[row]))
            if best is None or key < best:
                best, choice = key, (examples[row : row + 1], words[row])
    return Neighbour(choice[1], choice[0], tried, right)


class _Restoring:
    """The mistaken run, with edges carrying what they carry on the neighbour."""

    def __init__(
        self,
        model: Any,
        task: Task,
        graph: Graph,
        base: Any,
        neighbour: Any,
        truth: Tensor,
        said: Tensor,
        wrong: Tensor,
    ):
        self.model, self.graph, self.positions = model, graph, task.answer_positions
        self.truth, self.said, self.wrong = truth, said, wrong
        answers = truth.numpy()
        tokens, other = (
            (task.render(each, answers) if task.shows_answer else task.render(each)).tokens
            for each in (base, neighbour)
        )
        self.resid = model(tokens, stop_at_layer=0)
        self.right = written(model, graph, other)[0]  # [writer, 1, pos, d_model]
        self.lead = float(self._judge(model(tokens)[None])[0][0])

    def restore(
        self, groups: list[list[tuple[int, int]]], progress: Callable[[float], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The lead and whether the whole answer is right, [group] each, with each group of edges restored."""
        leads, mended = [], []
        for start in range(0, len(groups), _AT_ONCE):
            some = groups[start : start + _AT_ONCE]
            restored = torch.zeros(len(some), *self.graph.mask.shape, dtype=self.resid.dtype)
            for row, places in enumerate(some):
                for place in places:
                    restored[row, *place] = 1.0
            lead, right = self._judge(run_from(self.model, self.graph, self.resid, restored, self.right))
            leads.append(lead)
            mended.append(right)
            if progress is not None:
                progress(min(1.0, (start + len(some)) / len(groups)))
        return np.concatenate(leads), np.concatenate(mended)

    def smallest(self, ordered: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The first of `ordered` that mend together, without those that can be left out; [] where none do."""
        if not ordered:
            return []
        mended = self.restore([ordered[: n + 1] for n in range(len(ordered))])[1]
        if not mended.any():
            return []
        kept = ordered[: int(mended.argmax()) + 1]
        for place in reversed(list(kept)):
            fewer = [each for each in kept if each != place]
            if fewer and self.restore([fewer])[1][0]:
                kept = fewer
        return kept

    def _judge(self, logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """From logits [group, 1, pos, d_vocab]."""
        seen = read_answers(logits[:, 0], np.tile(self.positions, (len(logits), 1)))  # [group, k, d_vocab]
        right = (seen.argmax(-1) == self.truth).all(-1)
        return _lead(seen, self.truth, self.said, self.wrong).numpy(), right.numpy()
