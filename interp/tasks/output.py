"""`output`: a program and its input go in, what it prints comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.answers import greedy_answer
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.machine_task import as_targets
from interp.tasks.options import OutputOptions
from interp.tasks.output_contrasts import output_contrasts
from interp.tasks.scratch import Scratch
from interp.tasks.sites import block_names
from interp.tasks.units import UnitsOfRuns
from interp.worlds.base import Split
from interp.worlds.machine import MachineAnswer, MachineSpec, MachineWorld, States

_TYPED = ("instructions[0]", "instructions[1]", "input[0]")
_FROM_INPUT = ("operand", "cell", "result", "emitted")  # what another input changes soon


class Output(UnitsOfRuns):
    """The output after the run from the start halts or freezes, or after `n_steps` (32) steps.

    In place and bidirectional: the model sees the program, the input and an empty output, and writes the final output
    at the positions of the output's slots. All slots are read off at once, so what it can do is bounded by its depth
    alone; a model that writes them one after the other could use what it has written as scratch paper.

    With `options.behind` the program and its input are the prompt, and the output's slots stand behind it, for models
    that write or fill in; with `options.scratch` facts of the run (`Scratch`) stand between the two, a part of what is
    written, and the output alone is judged.
    """

    name = "output"
    shown_blocks: ClassVar[tuple[str, ...]] = ("instructions", "input", "output")  # of a state, what the model sees
    attention_dir = "bidirectional"
    has_strata = False
    Options = OutputOptions
    refused_contrasts = {  # noqa: RUF012
        "STOP": "every program ends with it, and nothing comes of it",
        **dict.fromkeys(("WHILE", "ENDW"), "exchanged, one bracket leaves the other of its pair alone"),
    }
    words = (
        "The model reads a program of a small tape machine and its input, and says at once what it will have printed "
        "when it ends."
    )

    def __init__(self, world: MachineWorld | MachineSpec, options: Any = None):
        super().__init__(world, options)
        spec = self.spec
        if spec.padded or not spec.io or not spec.n_output:
            raise ValueError(
                f"the {self.name} task takes a machine of one size that can print: io=True, n_output from 1"
            )
        self.n_steps = self.options.n_steps or 32
        self.scratch = Scratch(self.world, self.n_steps, self.options.scratch)
        if self.options.behind:
            self.shows_answer, self.attention_dir = True, "causal"

    def shown_hash(self, starts: States) -> np.ndarray:
        """Of the part of the program that the run reaches, with its input."""
        return self.world.reachable_hash(starts, self.n_steps)

    @cached_property
    def shown(self) -> np.ndarray:
        """The positions of an encoded state that the model sees: the blocks of program, input and output."""
        names = enumerate(self.spec.layout.names)
        blocks = self.shown_blocks[:2] if self.options.behind else self.shown_blocks
        return np.array([at for at, name in names if name.partition("[")[0].rstrip(".") in blocks])

    @cached_property
    def _output(self) -> np.ndarray:
        """The positions of the output's slots in an encoded state."""
        return np.arange(self.spec.state_length)[self.spec.layout.slice("output")]

    def _placed(self, of_state: Any, of_scratch: tuple[Any, ...]) -> list[Any]:
        """One thing a position: of those of an encoded state that are shown, and of what stands behind the prompt."""
        behind = [*of_scratch, *(of_state[at] for at in self._output)] if self.options.behind else []
        return [*(of_state[at] for at in self.shown), *behind]

    @property
    def vocab(self) -> tuple[str, ...]:
        """The machine's, and the tokens of scratch slots where there are any."""
        return (*self.spec.vocab, *self.scratch.further_tokens)

    @property
    def position_names(self) -> tuple[str, ...]:
        return tuple(self._placed(self.spec.layout.names, self.scratch.names))

    @property
    def position_roles(self) -> tuple[int, ...]:
        first = self.spec.layout.n_roles  # behind those of a state
        return tuple(map(int, self._placed(self.spec.layout.roles, tuple(first + each for each in self.scratch.roles))))

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(map(int, self._placed(self.spec.layout.indices, self.scratch.indices)))

    @cached_property
    def slots(self) -> np.ndarray:
        """The positions, among those that the model sees, of the output's slots."""
        if self.options.behind:
            return np.arange(self.n_ctx - len(self._output), self.n_ctx)
        return np.searchsorted(self.shown, self._output)

    @property
    def prompt_positions(self) -> slice:
        return slice(0, len(self.shown))

    @property
    def answer_positions(self) -> np.ndarray:
        """In place the output's slots; behind the prompt, where its tokens and those of scratch slots are said."""
        return np.arange(len(self.shown) - 1, self.n_ctx - 1) if self.options.behind else self.slots

    @property
    def answer_names(self) -> tuple[str, ...]:
        return tuple(self.position_names[at + self.shows_answer] for at in self.answer_positions)

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> States:
        """States at the start of runs of every length up to n_steps; row i depends only on (seed, start + i).

        With `options.even` every length equally often, by `draw_ending`.

        Raises:
            ValueError: weights are given; a whole run has no op x outcome stratum.
        """
        if weights is not None:
            raise ValueError("a whole run belongs to no op x outcome stratum: leave weights out")
        if self.options.even:
            return self.draw_ending(n, (1, self.n_steps), seed=seed, start=start, split=split)
        return self.draw_units(n, (1, self.n_steps), seed=seed, start=start, split=split)

    def render(self, examples: States, answers: np.ndarray | None = None) -> Batch:
        """Examples for runs from the start of these states' programs; `answers`, tokens [n, k], replace the machine's
        output, and before it what stands in scratch slots."""
        starts = self.world.starts(examples)
        answers = self.expected(self.world.answer(starts)) if answers is None else answers
        tokens = self.world.encode(starts)[:, self.shown]
        if self.options.behind:
            tokens = np.concatenate([tokens, answers], axis=1)
        return Batch(*as_targets(tokens, self.answer_positions, answers), starts)

    def expected(self, answer: MachineAnswer) -> np.ndarray:
        """The output's slots at the end of the run, before them the scratch slots where there are any, as tokens."""
        output = self.world.encode(answer.after(self.n_steps))[:, self._output]
        return np.concatenate([self.scratch.tokens(answer), output], axis=1) if self.options.scratch else output

    def contrasts(self) -> Mapping[str, Contrast]:
        """One executed instruction exchanged for another; see `output_contrasts`."""
        return output_contrasts(self)

    def pointed_places(self) -> tuple[str, ...]:
        """None: a run starts with both pointers at 0."""
        return ()

    def edit_times(
        self, base: States, source: States, name: str, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Any step of each run, uniformly: at the first alone, when both pointers and all cells are 0, most variables
        have one value."""
        counts = [self.world.run(each, self.n_steps - 1, keep="last").n_steps + 1 for each in (base, source)]
        edit, take = (np.minimum((rng.random(len(base)) * count).astype(np.int64), count - 1) for count in counts)
        return edit, take

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """The first two instructions and the first value of the input, int64 [n]: at the start of a run both pointers
        and all cells are 0, so that the types of single steps would be one."""
        types = np.zeros(len(batch), dtype=np.int64)
        for slot in _TYPED:
            if slot in self.position_names:
                types = types * len(self.vocab) + batch.tokens[:, self.position_names.index(slot)].numpy()
        return types

    def edited_ancestors(self, name: str) -> tuple[str, ...]:
        """The slots of the input, for what a step reads of the tape or writes; nothing else of the start is shown but
        the program, which decides the split."""
        if name.partition("[")[0] not in _FROM_INPUT:
            return ()
        return tuple(f"input[{slot}]" for slot in range(self.spec.n_input))

    def position_sets(self) -> list[str]:
        """The blocks of program, input and output, and all positions (a ceiling)."""
        return [*(block for block in block_names(self.position_names) if block in self.shown_blocks), "all"]

    def probe_places(self) -> list[str]:
        """The first slot of each block that the model sees, and the slots of the output."""
        slots = [self.position_names[at] for at in self.slots]
        return list(dict.fromkeys([*(f"{block}[0]" for block in self.blocks() if block in self.shown_blocks), *slots]))

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """What the model says in the output's slots, and in scratch slots before them, long [n, k]."""
        if not self.options.behind:
            return model(batch.tokens).argmax(dim=-1)[:, self.slots]
        n_prompt = len(self.shown)
        blank = torch.full_like(batch.tokens[:, n_prompt:], self.vocab.index("EOO"))
        return greedy_answer(model, batch.tokens[:, :n_prompt], blank)

    def right(self, predicted: Tensor, batch: Batch) -> np.ndarray:
        """Whether each output is the machine's, whatever stands in scratch slots."""
        n_output = len(self._output)
        return (predicted.cpu().numpy()[:, -n_output:] == batch.targets.cpu().numpy()[:, self._told]).all(axis=1)

    def lengths(self, batch: Batch) -> np.ndarray:
        """Steps until each run halts or freezes; n_steps + 1 where it goes on."""
        return self.world.run(batch.examples, self.n_steps + 1, keep="last").n_steps

    def facts(self) -> tuple[tuple[str, int] | None, ...]:
        """Of scratch slots; the output's own tokens tell none."""
        return (*self.scratch.facts, *(None for _ in self._output)) if self.options.scratch else ()

    @property
    def _told(self) -> np.ndarray:
        """The positions whose logits say the output's slots."""
        return self.answer_positions[-len(self._output) :]

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """How far the model can go: EXACT_MATCH, whole outputs right, by the number of steps that the run makes.

        The stratum is `07 steps`, or `cut at 32 steps` where the run would go on; their mean is the area under the
        curve. TOKEN_ACCURACY is by slot of the output, BLOCK_ACCURACY of all scratch slots of one time, SEQUENCE_MATCH
        over all examples as they are drawn.
        """
        said, expected = predicted.cpu().numpy(), batch.targets.cpu()[:, self.answer_positions].numpy()
        hits = said == expected
        right, scratch = hits[:, -len(self._output) :], hits[:, : -len(self._output)]
        whole = right.all(axis=1)
        n_steps = self.lengths(batch)
        parts: list[tuple[dict[str, Any], np.ndarray]] = [
            ({"stratum": f"{k:02d} steps", "metric": Metric.EXACT_MATCH}, whole[n_steps == k])
            for k in range(self.n_steps + 1)
        ]
        cut = {"stratum": f"cut at {self.n_steps} steps", "metric": Metric.EXACT_MATCH}
        parts.append((cut, whole[n_steps > self.n_steps]))
        parts += [
            ({"position": f"output[{slot}]", "metric": Metric.TOKEN_ACCURACY}, right[:, slot])
            for slot in range(self.spec.n_output)
        ]
        for part, time in enumerate(self.scratch.times):
            told = scratch.reshape(len(scratch), len(self.scratch.times), -1)[:, part]
            parts.append(({"position": f"t+{time}", "metric": Metric.BLOCK_ACCURACY}, np.asarray(told.all(axis=1))))
        parts.append(({"metric": Metric.SEQUENCE_MATCH}, whole))
        rows = []
        for columns, correct in parts:
            if n := len(correct):
                low, high = wilson_interval(int(correct.sum()), n)
                rows.append({**columns, "estimate": float(correct.mean()), "ci_low": low, "ci_high": high, "n": n})
        return pd.DataFrame(rows)
