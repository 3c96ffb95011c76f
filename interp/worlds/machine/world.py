"""The tape machine as a world: states, variables that can be read and set, programs that are held out whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

import cython_vm
from cython_vm import (
    Layout,
    MachineSpec,
    Op,
    Outcome,
    ProgramArchive,
    States,
    Transition,
    encode,
    program_hash,
    run_fate,
    variable,
)
from cython_vm import Trace as MachineRun
from cython_vm.long_runs import sample_long_runs
from cython_vm.reachable import draw_reachable
from interp.worlds.base import Split, Strata, Variable, World
from interp.worlds.machine.answers import MachineAnswer, read_at
from interp.worlds.machine.contrasts import MachineContrast, contrasts_of
from interp.worlds.machine.needs import NEEDED_BY
from interp.worlds.machine.programs import evolved_programs, long_programs
from interp.worlds.machine.relative import relative_variable
from interp.worlds.machine.semantics import altered
from interp.worlds.machine.stages import STAGES, Stage, training_weights
from interp.worlds.machine.words import OP_WORDS, machine_words, state_words, value_names

if TYPE_CHECKING:
    from interp.worlds.machine.adaptive import AdaptiveSampler
    from interp.worlds.machine.training_records import TrainingRecords

_DECIDED = ("decide", "result")
_POINTERS = ("instruction_ptr", "array_ptr")
_OF_A_STEP = ("fetch", "decide", "result")


class MachineWorld(World):
    """A machine of one size (or padded); examples are `States`, each also the start of a run.

    Variables of a run are read and set `at` an executed step: state and instruction of that step of the run.
    """

    name = "machine"
    unit = "program"
    stratum_title = "instruction"
    stratum_names = tuple(op.name for op in Op)
    part_names = tuple(outcome.name for outcome in Outcome)
    strata_words = "op × outcome"  # type: ignore[assignment]
    capabilities = frozenset({"do", "edit", "contrasts", "rollout", "altered", "adaptive", "curriculum", "records"})

    def __init__(self, spec: MachineSpec):
        self.spec = spec

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MachineWorld:
        """The machine of these fields of MachineSpec."""
        return cls(MachineSpec(**values))

    def to_dict(self) -> dict[str, Any]:
        return self.spec.to_dict()

    def settings(self) -> tuple[str, ...]:
        """The fields of MachineSpec."""
        return tuple(each.name for each in fields(MachineSpec))

    # What is true.

    @cached_property
    def _variables(self) -> dict[str, Variable]:
        found = {}
        for name in self.spec.variables():
            each = variable(self.spec, name)
            found[name] = Variable(
                name,
                name.partition("[")[0],
                each.kind,
                each.parents,
                each.n_values(self.spec),
                each.slot,
                each.settable,
                each.equation,
            )
        return found

    def variables(self) -> Mapping[str, Variable]:
        return self._variables

    def variable(self, name: str) -> Variable:
        """As in World; also `cell[@array_ptr+k]`, which `variables` does not list."""
        if (relative := relative_variable(self.spec, name)) is not None:
            return relative
        if name not in self._variables:
            variable(self.spec, name)  # raises, in the machine's own words
        return self._variables[name]

    def main_variables(self) -> list[str]:
        """Both pointers, then whatever a step fetches, decides or results in; families left out."""
        names = [name for name in self._variables if "[" not in name]
        return [*_POINTERS, *(name for name in names if self._variables[name].kind in _OF_A_STEP)]

    def value_name(self, name: str, value: int) -> str:
        """Opcodes and outcomes by their names; whether a loop's bracket jumps."""
        names = value_names(self.variable(name).family)
        return names[value] if 0 <= value < len(names) else str(value)

    def read(self, examples: States, name: str, at: int | NDArray[np.int64] = 0) -> NDArray[np.int64]:
        return read_at(examples, name, at)

    def answer(
        self, examples: States, do: Mapping[str, ArrayLike] | None = None, at: int | NDArray[np.int64] = 0
    ) -> MachineAnswer:
        return MachineAnswer(examples, do, at)  # type: ignore[arg-type]

    def groups(self, examples: States) -> NDArray[np.uint64]:
        return program_hash(examples).astype(np.uint64)

    def strata(self, examples: States) -> Strata:
        """Opcode, and the outcome of the step as its part."""
        transition = cython_vm.step(examples)
        return Strata(
            self.stratum_title,
            self.stratum_names,
            transition.latents["op"].astype(np.int64),
            self.part_names,
            transition.outcome.astype(np.int64),
        )

    def types(self, examples: States, name: str) -> NDArray[np.int64]:
        """What is stored or fetched: the addresses (instruction_ptr, array_ptr) that the step fetches from; what is
        decided or computed: (op, operand), that the decision is taken on."""
        decided = self.variable(name).kind in _DECIDED
        first, second = ("op", "operand") if decided else _POINTERS
        return self.read(examples, first) * 256 + self.read(examples, second)

    def altered(self, seed: int = 0) -> World:
        """The machine whose pointer moves and changes of the cell have exchanged their meanings (`semantics`)."""
        return _AlteredMachine(self.spec)

    def edit(self, examples: States, name: str, values: ArrayLike) -> States:
        return examples.replace(name, values)

    def editable(self, name: str) -> bool:
        """Stored slots; the program's left out, since it decides the split."""
        found = self.variable(name)
        return found.kind == "root" and found.place is not None and found.family != "instruction"

    def contrasts(self) -> dict[str, MachineContrast]:
        return contrasts_of(self.spec)

    def advance(self, examples: States, predicted: NDArray[np.int64]) -> States:
        """The states that predicted tokens [n, state_length] spell. Raises ValueError where they spell none.

        An outcome token is what a model says of the step, not a part of the state: whatever it is, it is left out.
        """
        tokens = np.array(predicted)
        if self.spec.outcome_token:
            shown = self.spec.layout.slice("outcome")
            tokens[:, shown] = encode(examples)[:, shown]
        return cython_vm.decode(self.spec, tokens)

    def rollout_starts(
        self, n: int, *, seed: int, max_steps: int, archive: ProgramArchive | None = None
    ) -> dict[str, States]:
        """ "long": the longest-running of many uniform programs; with an archive "evolved" ones. See `programs`."""
        found = {"long": long_programs(self.spec, n, seed=seed, max_steps=max_steps)}
        return found if archive is None else found | {"evolved": evolved_programs(archive, self.spec, n, seed=seed)}

    def open_archive(self, path: Path) -> ProgramArchive:
        """A file that `tapelens evolve` wrote. Raises as `ProgramArchive.load`."""
        return ProgramArchive.load(path)

    def different_steps(self, starts: States, max_steps: int) -> NDArray[np.int64]:
        return np.minimum(run_fate(starts, max_steps).n_states, max_steps)

    def in_words(self) -> str:
        return machine_words(self.spec)

    @property
    def title(self) -> str:
        return "the machine"

    def reading_notes(self) -> tuple[str, ...]:
        return (
            "A step that cannot be done (a pointer beyond its end, a value out of range, a full output, an empty "
            "input) freezes: the whole state stays as it was. In every case but <em>ran</em> the machine freezes or "
            "halts, and copying the state is the right answer; there the model shows that it knows when nothing "
            "happens.",
        )

    def stratum_words(self) -> Mapping[str, str]:
        """What each instruction that the machine has does."""
        return {op.name: OP_WORDS[op.name] for op in self.spec.ops}

    def describe(self, example: States) -> str:
        """Program, what is executed and how that ends, tape, buffers."""
        return state_words(example)

    def sizes(self) -> dict[str, tuple[str, ...]]:
        """Program, tape and buffers."""
        return {"program": ("n_instructions",), "tape": ("n_cells",), "buffers": ("n_input", "n_output")}

    def needed_by(self, name: str) -> tuple[str, ...]:
        return NEEDED_BY.get(name.partition("[")[0], ())

    # Examples.

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: NDArray[np.float64] | None = None,
    ) -> States:
        """Single states; see `cython_vm.sample`."""
        return cython_vm.sample(self.spec, n, seed=seed, start=start, split=split, weights=weights)

    def draw_runs(
        self,
        n: int,
        *,
        n_steps: int | tuple[int, int],
        required: int = 0,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        rows: NDArray[np.integer] | None = None,
    ) -> States:
        """States at the start of long runs; see `cython_vm.long_runs`."""
        return sample_long_runs(
            self.spec, n, n_steps=n_steps, required=required, seed=seed, start=start, split=split, rows=rows
        )

    def draw_on_the_way(self, n: int, *, n_steps: int, seed: int, start: int = 0, split: Split) -> States:
        """States of long runs that have `n_steps` more steps and never come back to a state."""

        def begin(stream: int, first: int, count: int) -> States:
            span = (n_steps, 2 * n_steps)
            return self.draw_runs(count, n_steps=span, required=n_steps, seed=stream, start=first, split=split)

        return draw_reachable(
            begin, n, seed=seed, start=start, max_steps=4 * n_steps, exclude={"stuck"}, steps_left=n_steps
        )

    def strata_weights(self, balance: str) -> NDArray[np.float64] | None:
        """Equal shares of "op_outcome" [9, 8], or of "branches" [9, 8, 2]; None for "natural".

        Raises:
            ValueError: another balance.
        """
        if balance == "natural":
            return None
        if balance not in ("op_outcome", "branches"):
            raise ValueError(f"balance must be natural, op_outcome or branches, got {balance!r}")
        return cython_vm.strata_weights(self.spec, branches=balance == "branches")

    # What training draws.

    def training_weights(self, balance: str, loop_weight: float) -> NDArray[np.float64] | None:
        """As `strata_weights`, with WHILE and ENDW drawn `loop_weight` times as often: loops are learned last."""
        return training_weights(self.spec, balance=balance, loop_weight=loop_weight)

    def adaptive_sampler(
        self, base: NDArray[np.float64], strength: float, *, distances: bool, split: Split
    ) -> AdaptiveSampler:
        from interp.worlds.machine.adaptive import AdaptiveSampler  # imports torch, as the next does

        return AdaptiveSampler(self.spec, base, strength, distances=distances, split=split)

    def stages(self, kind: str) -> tuple[Stage, ...]:
        """Of the curriculum "language" or "sizes". Raises ValueError where the machine has none."""
        return STAGES[kind](self.spec)

    def open_records(
        self, path: Path, *, split: Split, progress: Callable[[int, int], None] | None = None
    ) -> TrainingRecords:
        """A folder of shards, or NAME.npy of the original project; see `TrainingRecords` for errors."""
        from interp.worlds.machine.training_records import TrainingRecords

        return TrainingRecords(path, split=split, progress=progress)

    # The machine's own, for its tasks.

    @property
    def layout(self) -> Layout:
        """Positions of an encoded state."""
        return self.spec.layout

    @property
    def vocab(self) -> tuple[str, ...]:
        """Token names in id order."""
        return self.spec.vocab

    def step(self, examples: States, do: Mapping[str, ArrayLike] | None = None) -> Transition:
        """One step of every state; see `cython_vm.step`."""
        return cython_vm.step(examples, do=do)

    def run(self, examples: States, n_steps: int, *, keep: Literal["all", "last"] = "all") -> MachineRun:
        """Many steps of every state; see `cython_vm.run`."""
        return cython_vm.run(examples, n_steps, keep=keep)

    def encode(self, examples: States) -> NDArray[np.int64]:
        """Tokens [n, state_length]."""
        return encode(examples).astype(np.int64)

    def decode(self, tokens: ArrayLike) -> States:
        """The states that tokens [n, state_length] spell. Raises ValueError where they spell none."""
        return cython_vm.decode(self.spec, tokens)

    def stream_hash(self, examples: States, n_steps: int) -> NDArray[np.uint64]:
        """Of the stream of instructions that each run executes; see `cython_vm.stream_hash`."""
        return cython_vm.stream_hash(examples, n_steps)

    def reachable_hash(self, examples: States, n_steps: int) -> NDArray[np.uint64]:
        """Of the part of each program that its run reaches, with the input; see `cython_vm.reachable_hash`."""
        return cython_vm.reachable_hash(examples, n_steps)

    def starts(self, examples: States) -> States:
        """The same programs and inputs at the start of a run."""
        return cython_vm.start_states(examples)


class _AlteredMachine(MachineWorld):
    """Reads and answers as the machine does on the program that altered meanings make of an example's."""

    capabilities = frozenset({"do"})

    def value_name(self, name: str, value: int) -> str:
        """Opcodes and outcomes by their names; whether a loop's bracket jumps."""
        names = value_names(self.variable(name).family)
        return names[value] if 0 <= value < len(names) else str(value)

    def read(self, examples: States, name: str, at: int | NDArray[np.int64] = 0) -> NDArray[np.int64]:
        return super().read(altered(examples), name, at)

    def answer(
        self, examples: States, do: Mapping[str, ArrayLike] | None = None, at: int | NDArray[np.int64] = 0
    ) -> MachineAnswer:
        return super().answer(altered(examples), do, at)
