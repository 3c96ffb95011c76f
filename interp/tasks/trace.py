"""`trace`: a stream of executed instructions; what the machine keeps, pointer and cells, is never shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.counterfactual import Counterfactual, PairDesign
from interp.tasks.options import StreamOptions
from interp.tasks.sites import check_disjoint
from interp.tasks.state_pairs import Kind, StatePairs
from interp.tasks.trace_batch import TraceBatch, streams_of
from interp.tasks.trace_contrasts import trace_contrasts
from interp.tasks.trace_pairs import JUDGED, draw_stream_pairs
from interp.tasks.trace_scores import stream_scores
from interp.tasks.trace_sources import stream_sources
from interp.tasks.trace_state_pairs import draw_state_pairs
from interp.tasks.units import UnitsOfRuns
from interp.tasks.value_sources import ValueSources
from interp.worlds.base import Split
from interp.worlds.machine import MachineAnswer, MachineSpec, MachineWorld, Op, Outcome, States
from interp.worlds.machine.relative import offset_of, relative_name
from interp.worlds.machine.streams import StreamLabels

_ANSWERED = (*JUDGED, Op.GET)  # ops that a second token follows
_AT_STEP = re.compile(r"stream\[@(step|before)\]")


class Trace(UnitsOfRuns):
    """A run told as a stream: `{`, then each executed instruction in turn, at most `n_steps` (64) of them, then `}`.

    An instruction is its op token. The value that GET read, the value that PUT emits and the branch that WHILE and ENDW
    take (`1`: they jump) stand behind it. The model is asked for what PUT emits and for the branches, each at the token
    of the op, and is then told (teacher forcing); what GET read is given. Runs start at array pointer 0 with all cells
    0. A run that ends before `n_steps` shows the instruction that halts or freezes as its last, without an answer.
    """

    name = "trace"
    attention_dir = "causal"
    positions = "learned"
    has_strata = False
    tells_stream = True
    edits_any_step = True
    n_probed = 16_000
    words = (
        "A program runs on a small tape machine. The model reads which instructions were executed, one after the "
        "other, never the tape itself; it must say what each PUT prints and whether each WHILE and ENDW jumps (1) or "
        "not (0)."
    )

    refused_contrasts = {"STOP": "it is the last instruction of a run and decides no answer"}  # noqa: RUF012

    Options = StreamOptions

    def __init__(self, world: MachineWorld | MachineSpec, options: Any = None):
        super().__init__(world, options)
        if self.spec.padded:
            raise ValueError("the trace task takes machines of one size; got a padded machine")
        self.n_steps = self.options.n_steps or 64

    def shown_hash(self, starts: States) -> np.ndarray:
        """Of the executed stream, with what it reads."""
        return self.world.stream_hash(starts, self.n_steps)

    @property
    def prompt_positions(self) -> slice:
        return slice(0, self.n_ctx)

    @property
    def answer_positions(self) -> np.ndarray:
        """Every position: streams are asked where their batch's `loss_mask` says."""
        return np.arange(self.n_ctx)

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable at every token, int64 [batch, pos]; -1 where the stream up to there does not determine it.

        See `trace_labels` for what that means.

        Raises:
            ValueError: the machine has no such variable.
        """
        streams = streams_of(batch)
        known = StreamLabels(self.spec, streams.run)
        op = known.read(name, seen="op")[streams.state_of]
        labels = np.where(streams.is_answer, known.read(name, seen="answer")[streams.state_of], op)
        labels[:, 0] = known.read(name, seen="nothing")[streams.state_of[:, 0]]
        return np.where(streams.step_of >= 0, labels, -1)

    def steps_since_revealed(self, batch: Batch) -> np.ndarray:
        """How many steps ago the stream last revealed each cell, int64 [batch, pos, n_cells]; -1: never.

        PUT and GET reveal a cell's value, WHILE and ENDW where they show it to be 0; an answer reveals it for 0 steps.
        """
        streams = streams_of(batch)
        before, after = StreamLabels(self.spec, streams.run).steps_since_revealed
        revealed = np.where(streams.is_answer[:, :, None], after[streams.state_of], before[streams.state_of])
        return np.where(streams.step_of[:, :, None] >= 0, revealed, -1)

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """(token, position) of every token, int64 [batch, pos]: all that the embedding sees."""
        return batch.tokens.numpy() * self.n_ctx + np.arange(self.n_ctx)

    def times(self, batch: Batch) -> np.ndarray:
        """See `TraceBatch.step_of`."""
        return streams_of(batch).step_of

    def ages(self, batch: Batch) -> dict[str, np.ndarray]:
        """Of the cells, see `steps_since_revealed`."""
        return {"cell": self.steps_since_revealed(batch)}

    def probe_places(self) -> list[str]:
        """Every token of a stream."""
        return ["stream"]

    def token_places(self) -> dict[str, Callable[[TraceBatch], np.ndarray]]:
        """All tokens; those of instructions; those behind them; and those at which the model must answer."""

        def ops(batch: TraceBatch) -> np.ndarray:
            return (batch.step_of >= 0) & ~batch.is_answer & (np.arange(self.n_ctx) > 0)

        return {
            "stream": lambda batch: batch.step_of >= 0,
            "ops": ops,
            "answers": lambda batch: batch.is_answer,
            "asked": lambda batch: batch.loss_mask.numpy(),
        }

    def can_swap(self, name: str) -> bool:
        """`operand`, `array_ptr`, `cell[i]` and `cell[@array_ptr+k]`: what an answer in a stream hangs on."""
        return super().can_swap(name) and name.partition("[")[0] in ("operand", "array_ptr", "cell")

    def variables(self) -> list[str]:
        """What a stream never shows: the pointer, every cell, the cell under the pointer, loop state, what follows."""
        wanted = ("array_ptr", "operand", "loop_depth", "instruction_ptr", "jump_target", "branch_taken", "result")
        known = self.world.variables()
        return [name for name in wanted if name in known] + [f"cell[{i}]" for i in range(self.spec.n_cells)]

    def swappable(self) -> list[str]:
        """The pointer, the cell under it, and every cell."""
        return ["array_ptr", "operand", *(f"cell[{i}]" for i in range(self.spec.n_cells))]

    def position_sets(self) -> list[str]:
        """The op token of the executed step, the token before it, which has seen all of the state as well, and all."""
        return ["stream[@step]", "stream[@before]", "all"]

    def resolve(self, positions: str, batch: Batch, at: int | np.ndarray = 0) -> Tensor:
        """As `Task.resolve`; `stream[@step]` is the op of executed step `at`, `stream[@before]` the one before."""
        parts = [part.strip() for part in positions.split("+")]
        if not any(_AT_STEP.fullmatch(part) for part in parts):
            return super().resolve(positions, batch, at)
        step = np.broadcast_to(np.asarray(at, dtype=np.int64), len(batch))
        found = []
        for part in parts:
            if (match := _AT_STEP.fullmatch(part)) is None:
                found.append(super().resolve(part, batch, at))
            else:
                found.append(torch.from_numpy(streams_of(batch).op_position(step) - (match[1] == "before"))[:, None])
        resolved = torch.cat(found, dim=1)
        check_disjoint(resolved.numpy(), positions)
        return resolved

    def edit_times(
        self, base: States, source: States, name: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Any step of each stream, uniformly: of base among those that an answer still follows, where there is one."""
        answered, steps = self._answered(base), self.world.run(source, self.n_steps, keep="last").n_steps
        last = np.array([each.max(initial=0) for each in answered])
        edit, take = (
            np.minimum((rng.random(len(base)) * count).astype(np.int64), count - 1)
            for count in (last + 1, np.maximum(steps, 1))
        )
        return edit, take

    def asked_after(self, examples: States, at: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first answer of each stream at step `at` or after it."""
        times = np.broadcast_to(np.asarray(at, dtype=np.int64), len(examples))
        judged = np.array(
            [next(iter(steps[steps >= time]), -1) for steps, time in zip(self._answered(examples), times, strict=True)],
            dtype=np.int64,
        )
        return self.render(examples).op_position(np.maximum(judged, 0))[:, None], judged

    def _answered(self, examples: States) -> list[np.ndarray]:
        """The executed steps of each stream that a model is asked about, in order."""
        streams = self.render(examples)
        return [step[asked] for step, asked in zip(streams.step_of, streams.loss_mask.numpy(), strict=True)]

    def answered(self, answer: MachineAnswer, judged: np.ndarray) -> np.ndarray:
        """The token behind the instruction of step `judged`, int64 [n, 1], of a run that gets there; -1: none."""
        tokens = self.expected(answer)[:, 0]
        later = judged > answer.at
        if later.any():
            tokens = np.where(
                later, self.expected(self.world.answer(answer.after(np.maximum(judged, 0))))[:, 0], tokens
            )
        return np.where(answer.ran(judged) & (judged >= 0), tokens, -1)[:, None]

    def contrasts(self) -> Mapping[str, Contrast]:
        """One token exchanged, judged at the first answer that depends on it; see `trace_contrasts`."""
        return trace_contrasts(self)

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
        """Pairs of streams, a step of each, and the answer of base if `name` took its value from source there.

        `operand`, `array_ptr` and `cell[i]` can be swapped. Judged is the first answer that depends on the edit: for
        `operand` this step's or, after INC and DEC, the next one that reads the cell; for `cell[i]` the next one that
        reads it; for `array_ptr` the next one. `independent` draws both streams, and the step of source, at random.
        In `minimal` pairs source is base with one value of the input changed, and the step is the same.

        Raises:
            ValueError: another variable or design, weights, or pairs that are found too rarely.
        """
        if weights is not None:
            raise ValueError("a stream of instructions belongs to no op x outcome stratum: leave weights out")
        return draw_stream_pairs(self, n, name, seed=seed, design=design, split=split)

    @property
    def has_state_pairs(self) -> bool:
        """See Task."""
        return True

    @property
    def has_value_sources(self) -> bool:
        """See Task: of machines that read and print."""
        return {Op.PUT, Op.GET} <= set(self.spec.ops)

    def value_sources(self, batch: Batch) -> ValueSources:
        """See Task; of each PUT that is asked for."""
        return stream_sources(streams_of(batch))

    def has_bystanders(self, name: str) -> bool:
        """Of cells: every answer reads the pointer."""
        return name.startswith("cell[")

    def state_pairs(
        self, n: int, name: str, *, seed: int, split: Split = "evaluation", kind: Kind = "stored"
    ) -> StatePairs:
        """See Task, and `state_pairs.draw_state_pairs`."""
        return draw_state_pairs(self, n, name, seed=seed, split=split, kind=kind)

    def state_variables(self) -> list[str]:
        """The pointer, what is read, every cell by its place, and cells by how far they are from the pointer."""
        near = range(-min(3, self.spec.n_cells - 1), min(3, self.spec.n_cells - 1) + 1)
        return [*self.swappable(), *(relative_name(offset) for offset in near)]

    def has_minimal_pairs(self, name: str) -> bool:
        """Whether changing one value of the input can change `name` at a step that is still the same instruction."""
        if offset_of(name) is not None:
            return False
        return self.spec.io and self.spec.n_input > 0 and name.partition("[")[0] in ("operand", "cell")

    @property
    def position_names(self) -> tuple[str, ...]:
        return ("{", *(f"stream[{index}]" for index in range(2 * self.n_steps)))

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> States:
        """States at the start of long runs; row i depends only on (seed, start + i). See `cython_vm.long_runs`.

        Raises:
            ValueError: weights are given; a stream has no op x outcome stratum.
        """
        if weights is not None:
            raise ValueError("a stream of instructions belongs to no op x outcome stratum: leave weights out")
        return self.draw_units(n, self.n_steps, seed=seed, start=start, split=split)

    def expected(self, answer: MachineAnswer) -> np.ndarray:
        """The token behind the instruction of the answer's step, int64 [n, 1]; -1 where it has none."""
        latents = answer.transition.latents
        has = answer.valid & (answer.transition.outcome == Outcome.RAN) & np.isin(latents["op"], JUDGED)
        return np.where(has, self.answer_tokens(latents), -1)[:, None]

    def render(self, examples: States, answers: np.ndarray | None = None) -> TraceBatch:
        """The streams of the runs from these states, which must be starts. They carry their own answers: `answers` of a
        counterfactual are judged, never shown."""
        states = examples
        executed = self.world.run(states, self.n_steps)
        assert executed.states is not None and executed.offsets is not None
        latents = self.world.step(executed.states).latents
        op, ran = latents["op"].astype(np.int64), latents["outcome"] == Outcome.RAN
        # The state after the last of n_steps instructions is not executed any more.
        shown = executed.time < self.n_steps
        answered = shown & ran & np.isin(op, _ANSWERED)
        row = executed.row_index
        length = shown.astype(np.int64) + answered
        end = np.cumsum(length)
        before = end - length
        position = 1 + before - before[executed.offsets[:-1]][row]

        tokens = np.full((len(states), self.n_ctx), self.spec.token_id("}"))
        tokens[:, 0] = self.spec.token_id("{")
        targets = np.full(tokens.shape, -1)
        step_of, is_answer = np.full(tokens.shape, -1), np.zeros(tokens.shape, dtype=bool)
        step_of[:, 0] = 0
        tokens[row[shown], position[shown]] = self._op_tokens[op[shown]]
        step_of[row[shown], position[shown]] = executed.time[shown]
        at = (row[answered], position[answered] + 1)
        tokens[at] = self.answer_tokens({name: values[answered] for name, values in latents.items()})
        step_of[at], is_answer[at] = executed.time[answered], True
        asked = answered & (op != Op.GET)
        targets[row[asked], position[asked]] = tokens[row[asked], position[asked] + 1]
        targets_tensor = torch.from_numpy(targets)
        return TraceBatch(
            torch.from_numpy(tokens),
            targets_tensor,
            targets_tensor >= 0,
            states,
            executed,
            step_of,
            is_answer,
            self.world,
            self.n_steps,
        )

    def trim(self, batch: Batch) -> Batch:
        longest = max([0, *batch.loss_mask.any(dim=0).nonzero().flatten().tolist()]) + 1
        return Batch(
            batch.tokens[:, :longest], batch.targets[:, :longest], batch.loss_mask[:, :longest], batch.examples
        )

    @cached_property
    def _op_tokens(self) -> np.ndarray:
        """The token id of every Op, int64 [9]; -1 for those that the machine lacks."""
        return np.array([self.spec.op_id(op) if op in self.spec.ops else -1 for op in Op])

    def answer_tokens(self, latents: dict[str, np.ndarray]) -> np.ndarray:
        """The token behind each instruction, int64 [n], from the variables of its step: PUT, GET, WHILE or ENDW."""
        op = latents["op"]
        value = np.where(op == Op.PUT, latents["emitted"], latents["result"])
        branch = np.isin(op, (Op.WHILE, Op.ENDW))
        first = np.where(branch, self.spec.token_id("0"), self.spec.number_id(0))
        return first + np.where(branch, latents["branch_taken"], value).astype(np.int64)

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """Teacher-forced: what the model would say at every position, long [n, pos]; judged where it is asked."""
        return model(batch.tokens).argmax(dim=-1)

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """Answers right by op and branch, and whole streams right.

        Every answer is judged with the true stream before it (teacher forcing). Rows: EXACT_MATCH for each op, with
        stratum `emitted`, `taken` or `not_taken`; TOKEN_ACCURACY of what PUT emits, by the steps since the stream last
        revealed the cell; SEQUENCE_MATCH, the share of streams without an error. `n` counts answers, not streams.
        """
        return stream_scores(self.spec, predicted, streams_of(batch))
