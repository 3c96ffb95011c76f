"""`chain`: several steps in a row, S_t … S_{t+n}, or S_{t+n} straight from S_t."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.answers import fixed_point_of
from interp.tasks.batch import Batch
from interp.tasks.chain_contrasts import chain_contrasts
from interp.tasks.contrast import Contrast
from interp.tasks.machine_task import MachineTask, as_targets
from interp.tasks.options import ChainOptions
from interp.tasks.sites import is_slot
from interp.worlds.base import Split
from interp.worlds.machine import MachineAnswer, MachineSpec, MachineWorld, Op, Outcome, States


class Chain(MachineTask):
    """S_t, then the `n_steps` (8) states after it, causal: logits at position p predict token p + 1.

    With `direct` the states between are left out: S_t, then S_{t+n}. The loss is taken on all states but S_t. Each S_t
    is met by a long run from its start that makes at least n more steps, and never comes back to a state.
    """

    name = "chain"
    attention_dir = "causal"
    has_strata = False
    Options = ChainOptions
    shows_answer = True
    refused_contrasts = {"STOP": "a chain's first step halts nowhere"}  # noqa: RUF012
    words = (
        "The model reads one state of a small tape machine, and then writes the states that follow, one after the "
        "other, each from its own answer before."
    )

    def __init__(self, world: MachineWorld | MachineSpec, options: Any = None):
        super().__init__(world, options)
        spec = self.spec
        if spec.padded:
            raise ValueError("the chain task takes machines of one size; got a padded machine")
        self.n_steps = self.options.n_steps or 8
        self.direct = self.options.direct
        self.attention_chunk = 0 if self.direct else spec.state_length

    @property
    def shown(self) -> tuple[int, ...]:
        """The steps after S_t whose states are to be answered."""
        return (self.n_steps,) if self.direct else tuple(range(1, self.n_steps + 1))

    @property
    def position_names(self) -> tuple[str, ...]:
        names = self.spec.layout.names
        return tuple(names) + tuple(f"t+{k}.{name}" for k in self.shown for name in names)

    @property
    def position_roles(self) -> tuple[int, ...]:
        """Blocks by turns where attention reaches one state back: what is learned at one step serves at every other."""
        layout, period = self.spec.layout, 2 if self.attention_chunk else 1 + len(self.shown)
        return tuple(
            int(role) + k % period * layout.n_roles for k in range(1 + len(self.shown)) for role in layout.roles
        )

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(int(index) for index in self.spec.layout.indices) * (len(self.shown) + 1)

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> States:
        """States S_t, uniform among those of a run that have n more steps; row i depends only on (seed, start + i).

        Raises:
            ValueError: weights are given; a chain has no op x outcome stratum.
        """
        if weights is not None:
            raise ValueError("a chain of steps belongs to no op x outcome stratum: leave weights out")

        return self.world.draw_on_the_way(n, n_steps=self.n_steps, seed=seed, start=start, split=split)

    @property
    def prompt_positions(self) -> slice:
        return slice(0, self.spec.state_length)

    @property
    def answer_positions(self) -> np.ndarray:
        length = self.spec.state_length
        return np.arange(length - 1, (1 + len(self.shown)) * length - 1)

    @property
    def content(self) -> np.ndarray:
        return np.array([is_slot(name) for name in self.spec.layout.names] * len(self.shown))

    def render(self, examples: States, answers: np.ndarray | None = None) -> Batch:
        """Chains from these states; `answers`, tokens [n, states shown x state_length], replace the machine's."""
        answers = self.expected(self.world.answer(examples)) if answers is None else answers
        length = self.spec.state_length
        if answers.shape != (len(examples), len(self.shown) * length):
            raise ValueError(
                f"answers must be [{len(examples)}, {len(self.shown) * length}], got {list(answers.shape)}"
            )
        tokens = np.concatenate([self.world.encode(examples), answers], axis=1)
        return Batch(*as_targets(tokens, self.answer_positions, answers), examples)

    def expected(self, answer: MachineAnswer) -> np.ndarray:
        """The states to be answered, one after the other: tokens [n, states shown x state_length]."""
        transitions = [answer.transition]
        for _ in range(self.n_steps - 1):
            transitions.append(self.world.step(transitions[-1].next))
        return np.concatenate([transitions[k - 1].tokens() for k in self.shown], axis=1).astype(np.int64)

    def contrasts(self) -> Mapping[str, Contrast]:
        """Every opcode but STOP, of the first step, judged on the first state to be answered; see `chain_contrasts`.

        Raises:
            ValueError: a direct chain, in which the first next state is not answered.
        """
        if self.direct:
            raise ValueError("a direct chain has no contrasts: what one step changes is not among its answers")
        return chain_contrasts(self)

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The model's greedy states, long [n, states shown x state_length]; only S_t goes in."""
        return self.predict(model, batch.tokens[:, : self.spec.state_length])

    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Greedy states, long [n, states shown x state_length], from S_t tokens [n, state_length].

        State by state, each by fixed-point iteration from a copy of the one before (Jacobi decoding, Santilli et al.
        2023), as in `step`.
        """
        decode = fixed_point_of(model)
        length = self.spec.state_length
        known = tokens
        for _ in self.shown:
            answer = known[:, -length:].clone()
            if decode is not None:  # nobody watches: what is known is read once
                known = torch.cat([known, decode(known, answer)], dim=1)
                continue
            moving = torch.arange(len(known))  # rows that do not stand still yet
            while len(moving):
                logits = model(torch.cat([known[moving], answer[moving]], dim=1))
                better = logits[:, known.shape[1] - 1 : -1].argmax(dim=-1)
                moved = (better != answer[moving]).any(dim=1)
                answer[moving] = better
                moving = moving[moved]
            known = torch.cat([known, answer], dim=1)
        return known[:, length:]

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable in the state that a position belongs to, int64 [batch, pos]; -1 where it is undefined.

        Raises:
            ValueError: the machine has no such variable.
        """
        self.world.variable(name)
        return self._at_each_state(batch, lambda states: self.world.read(states, name))

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """The input type of the state that a position belongs to, int64 [batch, pos]."""
        return self._at_each_state(batch, lambda states: self.world.types(states, name))

    def times(self, batch: Batch) -> np.ndarray:
        """The step in which the state that a position belongs to is taken on, int64 [batch, pos]."""
        return np.tile(np.repeat((0, *self.shown), self.spec.state_length), (len(batch), 1))

    def _at_each_state(self, batch: Batch, ask: Callable[[States], np.ndarray]) -> np.ndarray:
        runs = self.world.run(batch.examples, self.n_steps)
        values = [ask(runs.at(k)) for k in (0, *self.shown)]
        return np.repeat(np.stack(values, axis=1), self.spec.state_length, axis=1)

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """How much of each chain is right; the model's own states stand before each answer.

        Rows: EXACT_MATCH by the op and outcome of the step into each state (direct: one row for S_{t+n}, stratum
        `after n steps`); BLOCK_ACCURACY, exact states by their place in the chain; SEQUENCE_MATCH, whole chains.
        """
        length, runs = self.spec.state_length, self.world.run(batch.examples, self.n_steps)
        truth = self.expected(self.world.answer(batch.examples))
        right = (predicted.cpu().numpy() == truth).reshape(len(batch), len(self.shown), length).all(axis=2)
        rows = []

        def add(members: np.ndarray, correct: np.ndarray, **columns: str | Metric) -> None:
            if n := int(members.sum()):
                successes = int((correct & members).sum())
                low, high = wilson_interval(successes, n)
                rows.append({**columns, "estimate": successes / n, "ci_low": low, "ci_high": high, "n": n})

        everyone = np.ones(len(batch), dtype=bool)
        if self.direct:
            add(everyone, right[:, 0], stratum=f"after {self.n_steps} steps", metric=Metric.EXACT_MATCH)
        else:
            into = [self.world.step(runs.at(k - 1)) for k in self.shown]
            ops = np.stack([each.latents["op"] for each in into], axis=1)
            outcomes = np.stack([each.outcome for each in into], axis=1)
            for op in Op:
                for outcome in Outcome:
                    members = (ops == op) & (outcomes == outcome)
                    add(members, right, op=op.name, stratum=outcome.name, metric=Metric.EXACT_MATCH)
        for place, k in enumerate(self.shown):
            add(everyone, right[:, place], position=f"t+{k}", metric=Metric.BLOCK_ACCURACY)
        add(everyone, right.all(axis=1), metric=Metric.SEQUENCE_MATCH)
        return pd.DataFrame(rows)
