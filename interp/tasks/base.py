"""What a task is: batches drawn from the machine, labels from its variables, counterfactuals from its equations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cython_vm import (
    VARIABLES,
    Layout,
    MachineSpec,
    Op,
    Outcome,
    States,
    Transition,
    Variable,
    encode,
    sample,
    step,
    variable,
)
from interp.results import Metric, wilson_interval
from interp.tasks.options import TaskOptions

Split = Literal["all", "train", "evaluation"]
PairDesign = Literal["independent", "minimal"]

# The largest share of rows that `counterfactual` redraws before it gives up on a variable.
_MAX_DRAWS_PER_PAIR = 200


@dataclass(frozen=True)
class Batch:
    """Examples of a task, with the machine states that they were drawn from."""

    tokens: Tensor  # long [batch, pos]
    targets: Tensor  # long [batch, pos]; -1 where nothing is to be predicted
    loss_mask: Tensor  # bool [batch, pos]; where the loss is taken
    states: States  # S_t, one a row

    def __len__(self) -> int:
        return len(self.states)


@dataclass(frozen=True)
class Counterfactual:
    """Pairs for interchange on one variable, with the machine's exact answer."""

    base: Batch
    source: Batch
    expected: States  # machine(base, do variable <- its value in source)
    answers: np.ndarray  # what is to be answered then, as tokens: [n, state_length] where that is the next state
    changes: np.ndarray  # bool [n]: expected differs from the machine's answer on base alone
    redraw_rate: float  # share of drawn pairs rejected because no counterfactual value exists

    @property
    def targets(self) -> Tensor:
        """The expected answers as tokens, long, of the shape of `answers`."""
        return torch.from_numpy(self.answers.astype(np.int64))


class Task(ABC):
    """One way of asking a model about the machine.

    Attributes:
        name: its key in `TASKS`.
        spec: the machine.
        layout: names of the token positions that a model sees.
        attention_dir: the attention a transformer needs for it.
        positions: the positions that suit it: block-wise where a position is always the same slot.
        has_strata: whether an example belongs to one op x outcome stratum, so that these can be drawn by weight.
        takes: the fields of `TaskOptions` that it takes.
        attention_chunk: c > 0: chunks of c tokens follow from the one before, so that attention need not reach
            further; 0: attention reaches everything.
        options: what is chosen about it besides the machine.
    """

    name: str
    attention_dir: Literal["causal", "bidirectional"]
    positions: Literal["block", "learned"] = "block"
    has_strata: bool = True
    takes: tuple[str, ...] = ()
    attention_chunk: int = 0

    def __init__(self, spec: MachineSpec, options: TaskOptions | None = None):
        self.spec = spec
        self.options = TaskOptions() if options is None else options
        for each in fields(self.options):
            if each.name not in self.takes and getattr(self.options, each.name) != each.default:
                raise ValueError(f"the task {self.name} takes no option {each.name}")

    @property
    def vocab(self) -> tuple[str, ...]:
        return self.spec.vocab

    @property
    @abstractmethod
    def position_names(self) -> tuple[str, ...]:
        """A name for each of the `n_ctx` token positions."""

    @property
    @abstractmethod
    def position_roles(self) -> tuple[int, ...]:
        """For block-wise positions: the role of each token position (its block, or which bracket)."""

    @property
    @abstractmethod
    def position_indices(self) -> tuple[int, ...]:
        """For block-wise positions: the slot index inside the block."""

    @property
    def layout(self) -> Layout:
        """Positions of S_t, which every task of one step shows first."""
        return self.spec.layout

    @property
    def n_ctx(self) -> int:
        return len(self.position_names)

    @abstractmethod
    def batch(self, states: States, answers: np.ndarray | None = None) -> Batch:
        """The examples for these states; `answers`, tokens [n, state_length], replace the machine's S_{t+1}."""

    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Greedy next state, long [n, state_length], from S_t tokens [n, state_length]; hooks on the model count.

        Raises:
            ValueError: the task's answer is not a next state.
        """
        raise ValueError(f"the answer of the task {self.name} is not the next state of one step")

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The model's greedy answer to a batch, in the form that `score` takes; here the next state.

        Only S_t goes in: the answer half of a causal record is the model's to write.
        """
        return self.predict(model, batch.tokens[:, : self.spec.state_length])

    def next_state_logits(self, logits: Tensor) -> Tensor:
        """The slice [n, state_length, d_vocab] of a model's logits that predicts S_{t+1}, in its order.

        Raises:
            ValueError: the task's answer is not a next state.
        """
        raise ValueError(f"the answer of the task {self.name} is not the next state of one step")

    def sample(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> Batch:
        """Draw `n` examples; row i depends only on (seed, start + i). See `cython_vm.sample`."""
        return self.batch(self.draw(n, seed=seed, start=start, split=split, weights=weights))

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> States:
        """The states that the examples of `sample` are made from."""
        return sample(self.spec, n, seed=seed, start=start, split=split, weights=weights)

    def answers_after(self, transition: Transition) -> np.ndarray:
        """What a model should answer, as tokens, where its first step is this one."""
        return transition.tokens()

    def changes_answer(self, edited: Transition, plain: Transition) -> np.ndarray:
        """Whether an edit of the first step changes what is to be answered, bool [n]."""
        return ~edited.next.equal(plain.next)

    def trim(self, batch: Batch) -> Batch:
        """The batch as training needs it: without positions past its longest example, which nothing is learned from."""
        return batch

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable's value for each example, int64 [n]; -1 where it is undefined.

        Raises:
            ValueError: the machine has no such variable.
        """
        return variable(self.spec, name).read(batch.states)

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """The input type of each example for the control task (Hewitt & Liang 2019), int64 [n].

        For what is stored or fetched, the type is the pair of addresses (instruction_ptr, array_ptr) that the step
        fetches from; for what is decided or computed it is the pair (op, operand) that the decision is taken on.
        """
        decided = variable(self.spec, name).kind in ("decide", "result")
        first, second = ("op", "operand") if decided else ("instruction_ptr", "array_ptr")
        return self.labels(batch, first) * 256 + self.labels(batch, second)

    def exact(self, predicted: Tensor, states: States) -> np.ndarray:
        """Whether each predicted state [n, state_length] is exactly `states`, bool [n]; an outcome token aside."""
        shown = np.ones(self.spec.state_length, dtype=bool)
        if self.spec.outcome_token:
            shown[self.spec.layout.slice("outcome")] = False
        return (predicted.cpu().numpy() == encode(states))[:, shown].all(axis=1)

    def counterfactual(
        self,
        n: int,
        name: str,
        *,
        seed: int,
        design: PairDesign = "independent",
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> Counterfactual:
        """Pairs (base, source) and what the machine says when `name` takes its value from source.

        `independent` draws both at random. `minimal` makes source from base by one edit of a stored ancestor of
        the variable (or of itself) that changes its value. Pairs whose counterfactual has no value are redrawn.

        Raises:
            ValueError: unknown variable, one that cannot be set, or one that has a value too rarely.
        """
        chosen = variable(self.spec, name)
        if not chosen.settable:
            raise ValueError(f"variable {name!r} can be read but not set; interchange needs one that can be set")
        if design not in ("independent", "minimal"):
            raise ValueError(f"design must be 'independent' or 'minimal', got {design!r}")
        if design == "minimal" and not self.has_minimal_pairs(name):
            raise ValueError(f"variable {name!r} has no minimal pairs: no single stored value decides it")
        bases, sources, expected, answers, changes = [], [], [], [], []
        found, drawn = 0, 0
        while found < n:
            size = max(64, 2 * (n - found))
            draw = self.draw(2 * size, seed=seed, start=2 * drawn, split=split, weights=weights)
            drawn += size
            base, source = draw[0::2], draw[1::2]
            if design == "minimal":
                source = self._minimal_source(base, source, name, rng=np.random.default_rng([seed, drawn]))
            values = chosen.read(source)
            transition = step(base, do={name: values})
            keep = transition.valid & (values >= 0)
            if design == "minimal":
                keep &= values != chosen.read(base)
            rows = np.flatnonzero(keep)
            found += len(rows)
            bases.append(base[rows])
            sources.append(source[rows])
            expected.append(transition.next[rows])
            answers.append(self.answers_after(transition)[rows])
            changes.append(self.changes_answer(transition, step(base))[rows])
            if found < n and drawn > _MAX_DRAWS_PER_PAIR * max(n, 10):
                raise ValueError(f"variable {name!r}: only {found} of {drawn} drawn pairs have a counterfactual value")
        told = np.concatenate(answers)[:n]
        return Counterfactual(
            base=self.batch(States.concatenate(bases)[:n], told),
            source=self.batch(States.concatenate(sources)[:n]),
            expected=States.concatenate(expected)[:n],
            answers=told,
            changes=np.concatenate(changes)[:n],
            redraw_rate=1 - found / drawn,
        )

    def has_minimal_pairs(self, name: str) -> bool:
        """Whether one edit of a stored variable can change `name`; a buffer's length, say, takes more."""
        return bool(_stored_ancestors(self.spec, name))

    def _minimal_source(self, base: States, donor: States, name: str, *, rng: np.random.Generator) -> States:
        """Base with one stored ancestor of `name` (chosen per row) replaced by the donor's value."""
        roots = sorted(_stored_ancestors(self.spec, name))
        choice = rng.integers(len(roots), size=len(base))
        parts, order = [base], [np.arange(len(base))]
        for index, root in enumerate(roots):
            stored = variable(self.spec, root)
            values = stored.read(donor)
            rows = np.flatnonzero((choice == index) & (values >= 0) & (stored.read(base) >= 0))  # full slots alone
            parts.append(base[rows].replace(root, values[rows]))
            order.append(rows)
        # The last row written for a state is its edited one, where it has one.
        latest = np.zeros(len(base), dtype=np.int64)
        latest[np.concatenate(order)] = np.arange(sum(len(rows) for rows in order))
        return States.concatenate(parts)[latest]

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """Exact match by op x outcome, and by block, as rows of (op, stratum, position, metric, estimate, …, n).

        `stratum` is the outcome's name, `position` the block (absent for the whole state). Intervals are Wilson
        intervals over states, each from a program of its own.
        """
        transition = step(batch.states)
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


def macro_average(scores: pd.DataFrame) -> float:
    """Mean exact match over the op x outcome strata present in the rows of `Task.score`, each counted once."""
    return float(scores.loc[scores["metric"] == Metric.EXACT_MATCH, "estimate"].mean())


def _stored_ancestors(spec: MachineSpec, name: str) -> set[str]:
    """Slots from which `name` is computed (itself, if it is one), the program's left out: it decides the split."""
    names = spec.variables()
    ancestors, frontier = set(), [name]
    while frontier:
        current = frontier.pop()
        if current in ancestors:
            continue
        ancestors.add(current)
        frontier.extend(_concrete_parents(current, names))
    return {each for each in ancestors if each in names and _is_slot(variable(spec, each))}


def _is_slot(each: Variable) -> bool:
    return each.kind == "root" and each.slot is not None and not each.slot.startswith("instructions")


def _concrete_parents(name: str, names: Sequence[str] | dict[str, int]) -> list[str]:
    """Parents of a variable, with families such as cell[i] spelt out."""
    family = VARIABLES.get(name) or VARIABLES[name.split("[")[0] + "[i]"]
    parents: list[str] = []
    for parent in family.parents:
        if parent.endswith("[i]"):
            parents += [n for n in names if n.startswith(parent[:-2])]
        else:
            parents.append(parent)
    return parents


def fixed_point_of(model: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The model's own quick greedy decoding (prompt, guess) -> answer; None where it has none, or a hook would see."""
    return getattr(model, "fixed_point", None)
