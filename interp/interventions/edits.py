"""Edits of one forward pass by hand: a variable set, an activation swapped from another example, a part ablated.

What `iia_sweep` asks of thousands of pairs is asked here of any example that a person picks. Setting a variable means
that the site takes the activation that the model has on a *source*, an example in which the variable holds the value:

    swapped   the value that the site has in a source example (activation patching)
    ablated   zeros, the mean over reference examples, or a resample of them

Both give a `Patch`; several patches act in one pass. `edited_answer` holds what comes out against the world's answer if
the variables had the values that were set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import collect, positions_of
from interp.interventions.patching import Ablation, Patch, ablation_value, patched
from interp.tasks import Task
from interp.tasks.answers import read_answers
from interp.tasks.sites import Site
from interp.worlds.base import World

REFERENCES = 128  # validation examples that an ablation takes its values from
MANY_VALUES = 64  # values of a stored variable above which its edits are not tried one by one
SEARCHED = 4096  # held-out examples that are searched for a value


@dataclass(frozen=True)
class Source:
    """An example in which a variable holds a value."""

    examples: Any  # of the world, one
    step: int  # the executed step at which it does
    words: str  # where it comes from


@dataclass(frozen=True)
class EditedAnswer:
    """Answers to one example, token by token, k of them."""

    names: tuple[str, ...]  # of each token
    truth: np.ndarray  # int64 [k]: the world's answer as the example is; -1: none
    expected: np.ndarray  # int64 [k]: the world's answer with the variables set; -1: none
    before: np.ndarray  # int64 [k]: the model's, left alone
    after: np.ndarray  # int64 [k]: the model's, edited
    p_before: np.ndarray  # float32 [k]: probability of the expected token, left alone
    p_after: np.ndarray  # float32 [k]: the same, edited

    @property
    def valid(self) -> np.ndarray:
        """Whether the world has an answer there, bool [k]."""
        return self.expected >= 0

    @property
    def should_change(self) -> np.ndarray:
        """Where the edit changes the world's answer, bool [k]."""
        return self.valid & (self.expected != self.truth)

    @property
    def right(self) -> bool:
        """Whether the edited answer is the world's wherever it has one."""
        return bool(((self.after == self.expected) | ~self.valid).all()) and bool(self.valid.any())


def source_with(task: Task, base: Any, name: str, value: int, *, at: int = 0, seed: int = 20) -> Source:
    """An example in which a variable holds a value: base with one stored value edited, else the first held-out one.

    Args:
        task: knows the world.
        base: the example to stay near to, one.
        name: the variable.
        value: what it should hold.
        at: the executed step of base at which it should hold it; edits are tried at 0 alone.
        seed: of the stream of held-out examples, numbered from 1 in `words`.

    Raises:
        ValueError: no such variable, a value that it cannot have, or none found.
    """
    world = task.world
    n_values = world.variable(name).n_values
    if not 0 <= value < n_values:
        raise ValueError(f"{name} takes values from 0 to {n_values - 1}, got {value}")
    if int(world.read(base, name, at)[0]) == value:
        return Source(base, at, "this example as it is")
    if at == 0:
        for edited, words in one_edits(world, base, first=name):
            found = np.flatnonzero(world.read(edited, name) == value)
            if len(found):
                return Source(edited[found[:1]], 0, f"this example with {words[found[0]]}")
    size = 256
    for start in range(0, SEARCHED, size):
        examples = task.draw(size, seed=seed, start=start, split="evaluation")
        steps = np.unique(task.times(task.render(examples))) if task.edits_any_step else np.zeros(1, dtype=np.int64)
        steps = steps[steps >= 0]
        times = np.broadcast_to(steps, (size, len(steps)))
        read = world.read(examples, name, times if len(steps) > 1 else 0).reshape(size, -1)
        rows, columns = np.nonzero(read == value)
        if len(rows):
            row, step = int(rows[0]), int(steps[columns[0]])
            when = f", step {step + 1}" if len(steps) > 1 else ""
            return Source(examples[row : row + 1], step, f"held-out example {start + row + 1}{when}")
    raise ValueError(f"none of {SEARCHED:,} held-out examples has {name} = {value}")


def one_edits(world: World, base: Any, *, first: str = "") -> list[tuple[Any, list[str]]]:
    """Every example that is one edit of one stored variable away from base, one entry a variable.

    Args:
        world: the world; one without `edit` has none.
        base: an example, one.
        first: a variable whose own edits come first, and of which only what decides it is edited; "" for all.

    Returns:
        (examples, a phrase for each: "array_ptr = 3"). Buffers' empty slots and variables of very many values are left
        out, and so is the value that is there already.
    """
    if "edit" not in world.capabilities:
        return []
    names = world.stored_ancestors(first) if first else [name for name in world.variables() if world.editable(name)]
    found = []
    for name in sorted(names, key=lambda each: each != first):
        now, n_values = int(world.read(base, name)[0]), world.variable(name).n_values
        if now < 0 or n_values > MANY_VALUES:
            continue
        values = np.array([value for value in range(n_values) if value != now], dtype=np.int64)
        if len(values):
            repeated = type(base).concatenate([base] * len(values))
            found.append((world.edit(repeated, name, values), [f"{name} = {value}" for value in values]))
    return found


def swapped(
    model: Any, task: Task, base: Any, source: Any, site: Site, *, at: int = 0, source_at: int | None = None
) -> Patch:
    """The patch that gives base the activation that source has at a site; pointed slots are resolved apart.

    Args:
        model: the hooked model.
        task: shows both.
        base: examples of the world, n.
        source: as many.
        site: where.
        at: the executed step of base at which pointers are read.
        source_at: that of source; `at` by default.

    Raises:
        ValueError: as `collect`; or base and source have another number of positions there.
    """
    taken = collect(model, task.render(source), [site], task=task, at=at if source_at is None else source_at)[site]
    return Patch(site.hook, positions_of(site.positions, task.render(base), task=task, at=at), taken, head=site.head)


def ablated(
    model: Any, task: Task, base: Any, site: Site, kind: Ablation = "mean", *, at: int = 0, seed: int = 0
) -> Patch:
    """The patch that ablates a site: zero, or the mean or a resample over validation examples that have step `at`.

    Raises:
        ValueError: as `collect`; an unknown kind; or no validation example has that step.
    """
    reference = task.sample(REFERENCES, seed=seed, split="validation")
    there = (task.times(reference) == at).any(axis=1)
    if not there.any():
        raise ValueError(f"none of {REFERENCES} validation examples has an executed step {at}")
    seen = collect(model, reference[np.flatnonzero(there)], [site], task=task, at=at)[site]
    value = ablation_value(kind, seen, n=len(base), generator=torch.Generator().manual_seed(seed))
    return Patch(site.hook, positions_of(site.positions, task.render(base), task=task, at=at), value, head=site.head)


@torch.no_grad()
def edited_answer(
    model: Any,
    task: Task,
    base: Any,
    patches: Sequence[Patch],
    *,
    do: Mapping[str, int] | None = None,
    at: int = 0,
) -> EditedAnswer:
    """What the model answers to an example, left alone and under patches, beside the world's answers.

    A task that shows the answer is read token by token with the right answer given (teacher forcing): the world's, and
    under edits its counterfactual one, as interchange interventions do.

    Args:
        model: the hooked model; hooks that stand on it count.
        task: shows the example.
        base: an example of the world, one.
        patches: what to write where; none leaves the model alone.
        do: the variables that were set, and to what; none: the world's answer stays as it is.
        at: the executed step of base at which they were.

    Raises:
        ValueError: the world has no `do`, or no such variable; the model has no such hook.
    """
    values = {name: np.array([value], dtype=np.int64) for name, value in (do or {}).items()}
    for name in values:
        task.world.settable(name)
    positions, judged = task.asked_after(base, at)
    truth, expected = (
        task.answered(task.world.answer(base, do=each, at=at), judged).astype(np.int64) for each in (None, values)
    )
    if not values:
        expected = truth
    answers = np.where(expected >= 0, expected, truth)  # where the world has no answer, none is judged
    left_alone = _probabilities(model, task, base, truth, positions)
    with patched(model, patches):
        edited = _probabilities(model, task, base, answers, positions)
    wanted = torch.from_numpy(np.maximum(expected, 0))[0][:, None]
    return EditedAnswer(
        names=tuple(task.position_names[int(where) + task.shows_answer] for where in positions[0]),
        truth=truth[0],
        expected=expected[0],
        before=left_alone.argmax(-1).numpy(),
        after=edited.argmax(-1).numpy(),
        p_before=left_alone.gather(-1, wanted)[:, 0].numpy(),
        p_after=edited.gather(-1, wanted)[:, 0].numpy(),
    )


def _probabilities(model: Any, task: Task, base: Any, answers: np.ndarray, positions: np.ndarray) -> Tensor:
    """What the model gives to each token where the answer is read, [k, d_vocab]."""
    tokens = (task.render(base, answers) if task.shows_answer else task.render(base)).tokens
    return read_answers(model(tokens), positions)[0].float().softmax(-1)
