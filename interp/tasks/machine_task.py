"""What the tasks of the machine share: a machine's states, encoded, and answers that are machine states."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.base import Task
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast, Pairs, pairs_of
from interp.tasks.sites import is_slot
from interp.worlds.base import Strata
from interp.worlds.machine import (
    MachineAnswer,
    MachineContrast,
    MachineSpec,
    MachineWorld,
    Op,
    Outcome,
    States,
    compared_slots,
)


class MachineTask(Task):
    """A task about the machine; `world` may be given as its MachineSpec."""

    world: MachineWorld

    def __init__(self, world: MachineWorld | MachineSpec, options: Any = None):
        super().__init__(MachineWorld(world) if isinstance(world, MachineSpec) else world, options)
        self.spec = self.world.spec

    @property
    def vocab(self) -> tuple[str, ...]:
        return self.spec.vocab

    @property
    def layout(self):
        """Positions of S_t, which every task of one step shows first."""
        return self.spec.layout

    def strata(self, batch: Batch, at: int | np.ndarray = 0) -> Strata:
        """The instruction of executed step `at` of each example, and how it ends."""
        return self.world.strata(self.world.answer(batch.examples, at=at).before)

    def position_sets(self) -> list[str]:
        """Each block that has slots, each pointed slot, and all positions (a ceiling)."""
        layout = self.spec.layout
        blocks = [block for block in layout.blocks if layout.slice(block).stop > layout.slice(block).start]
        return [*blocks, "instructions[@instruction_ptr]", "cells[@array_ptr]", "all"]

    def pointed_places(self) -> tuple[str, ...]:
        """The slots under both pointers, of themselves and of what they point into, where these are shown."""
        return tuple(f"{block}[@{pointer}]" for pointer, block in _POINTED if block in self.blocks())

    def probe_places(self) -> list[str]:
        """The pointed slots, the first slot of every block, the opening brace, and where an answer's blocks begin."""
        layout = self.spec.layout
        pointed = self.pointed_places()
        first = [f"{block}[0]" for block in layout.blocks if f"{block}[0]" in layout.names]
        # Of a causal record: the last token of S_t, and the bracket in S_{t+1} behind which each block is written.
        brackets = [name for block in layout.blocks if (name := f"next.{block}.[") in self.position_names]
        return [*pointed, *first, "{", *(["}", *brackets] if brackets else [])]

    def spell(self, examples: States) -> np.ndarray:
        """The encoded states, whole, whatever the task shows of them."""
        return self.world.encode(examples)

    @property
    def spelled_length(self) -> int:
        return self.spec.state_length


_POINTED = (
    ("instruction_ptr", "instruction_ptr"),
    ("instruction_ptr", "instructions"),
    ("array_ptr", "array_ptr"),
    ("array_ptr", "cells"),
)


class NextStateTask(MachineTask):
    """A task whose answer is the next state of one step; a position of the answer is a slot of S_{t+1}."""

    whole_answers = True
    answers_state = True
    words = "The model reads one state of a small tape machine and says the next one, slot by slot."

    @abstractmethod
    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Greedy next state, long [n, state_length], from S_t tokens [n, state_length]; hooks on the model count."""

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The model's greedy next state; only S_t goes in."""
        return self.predict(model, batch.tokens[:, : self.spec.state_length])

    def expected(self, answer: MachineAnswer) -> np.ndarray:
        return answer.transition.tokens().astype(np.int64)

    @cached_property
    def content(self) -> np.ndarray:
        return np.array([is_slot(name) for name in self.spec.layout.names])

    def next_state_logits(self, logits: Tensor) -> Tensor:
        """The slice [n, state_length, d_vocab] of a model's logits that predicts S_{t+1}, in its order."""
        first, last = int(self.answer_positions[0]), int(self.answer_positions[-1])
        return logits[:, first : last + 1]

    def exact(self, predicted: Tensor, states: States) -> np.ndarray:
        """Whether each predicted state [n, state_length] is exactly `states`, bool [n]; an outcome token aside."""
        shown = np.ones(self.spec.state_length, dtype=bool)
        if self.spec.outcome_token:
            shown[self.spec.layout.slice("outcome")] = False
        return (predicted.cpu().numpy() == self.world.encode(states))[:, shown].all(axis=1)

    def right(self, predicted: Tensor, batch: Batch) -> np.ndarray:
        """Whether each answer is exactly the next state, an outcome token aside."""
        return self.exact(predicted, self.world.step(batch.examples).next)

    def given(self, batch: Batch) -> np.ndarray:
        """S_t: most of a state is copied."""
        return self.world.encode(batch.examples)

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The slots of a state."""
        return tuple(self.spec.layout.names)

    def contrasts(self) -> Mapping[str, Contrast]:
        """Every opcode, executed instead of another, and every way to freeze, instead of running."""
        found = {}
        for name, contrast in self.world.contrasts().items():
            examples = partial(_first, self, contrast)
            found[name] = Contrast(name, name, contrast.kind, partial(_pairs, self, contrast), examples)
        return found

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """Exact match by op x outcome, and by block, as rows of (op, stratum, position, metric, estimate, …, n).

        `stratum` is the outcome's name, `position` the block (absent for the whole state). Intervals are Wilson
        intervals over states, each from a program of its own.
        """
        transition = self.world.step(batch.examples)
        right = predicted.cpu().numpy() == transition.tokens()
        ops, outcomes = transition.latents["op"], transition.outcome
        parts: list[tuple[str | None, np.ndarray]] = [(None, right.all(axis=1))]
        parts += [(block, right[:, self.spec.layout.slice(block)].all(axis=1)) for block in self.spec.layout.blocks]
        rows = []
        for op in Op:
            for outcome in Outcome:
                members = (ops == op) & (outcomes == outcome)
                n = int(members.sum())
                if not n:
                    continue
                for block, correct in parts:
                    successes = int(correct[members].sum())
                    low, high = wilson_interval(successes, n)
                    rows.append(
                        {
                            "op": op.name,
                            "stratum": outcome.name,
                            "position": block,
                            "metric": Metric.EXACT_MATCH if block is None else Metric.BLOCK_ACCURACY,
                            "estimate": successes / n,
                            "ci_low": low,
                            "ci_high": high,
                            "n": n,
                        }
                    )
        return pd.DataFrame(rows)


def _pairs(task: NextStateTask, contrast: MachineContrast, n: int, *, seed: int, half: int | None = None) -> Pairs:
    clean, corrupted, redraw_rate = contrast.draw(n, seed=seed, half=half)
    compared = compared_slots(clean, corrupted)
    return pairs_of(task, contrast.name, clean, corrupted, compared=compared, redraw_rate=redraw_rate)


def _first(task: NextStateTask, contrast: MachineContrast, n: int, seed: int) -> Batch:
    return task.render(contrast.first(n, seed=seed))


def as_targets(tokens: np.ndarray, at: np.ndarray, answers: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [n, pos] as tensors, with `answers` [n, k] as the targets at positions `at` [k], and the loss mask."""
    shown = torch.from_numpy(tokens.astype(np.int64))
    if answers.shape == tokens.shape and (at == np.arange(tokens.shape[1])).all():  # every position answers
        return shown, torch.from_numpy(answers.astype(np.int64)), torch.ones_like(shown, dtype=torch.bool)
    targets = torch.full_like(shown, -1)
    targets[:, torch.from_numpy(at)] = torch.from_numpy(answers.astype(np.int64))
    mask = torch.zeros_like(shown, dtype=torch.bool)
    mask[:, torch.from_numpy(at)] = True
    return shown, targets, mask
