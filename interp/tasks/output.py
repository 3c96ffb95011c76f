"""`output`: a program and its input go in, what it prints comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.machine_task import as_targets
from interp.tasks.options import OutputOptions
from interp.tasks.output_contrasts import output_contrasts
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

    def shown_hash(self, starts: States) -> np.ndarray:
        """Of the part of the program that the run reaches, with its input."""
        return self.world.reachable_hash(starts, self.n_steps)

    @cached_property
    def shown(self) -> np.ndarray:
        """The positions of an encoded state that the model sees: the blocks of program, input and output."""
        names = enumerate(self.spec.layout.names)
        return np.array([at for at, name in names if name.partition("[")[0].rstrip(".") in self.shown_blocks])

    @property
    def position_names(self) -> tuple[str, ...]:
        return tuple(self.spec.layout.names[at] for at in self.shown)

    @property
    def position_roles(self) -> tuple[int, ...]:
        return tuple(int(role) for role in self.spec.layout.roles[self.shown])

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(int(index) for index in self.spec.layout.indices[self.shown])

    @cached_property
    def slots(self) -> np.ndarray:
        """The positions, among those that the model sees, of the output's slots."""
        whole = np.arange(self.spec.state_length)[self.spec.layout.slice("output")]
        return np.searchsorted(self.shown, whole)

    @property
    def prompt_positions(self) -> slice:
        return slice(0, len(self.shown))

    @property
    def answer_positions(self) -> np.ndarray:
        return self.slots

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
        """Examples for runs from the start of these states' programs; `answers`, tokens [n, n_output], replace the
        machine's output."""
        starts = self.world.starts(examples)
        answers = self.expected(self.world.answer(starts)) if answers is None else answers
        return Batch(*as_targets(self.world.encode(starts)[:, self.shown], self.slots, answers), starts)

    def expected(self, answer: MachineAnswer) -> np.ndarray:
        """The output's slots at the end of the run, as tokens [n, n_output]."""
        final = self.world.encode(answer.after(self.n_steps))
        return final[:, self.spec.layout.slice("output")]

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
        """The blocks that the model sees, and all positions (a ceiling)."""
        return [*block_names(self.position_names), "all"]

    def probe_places(self) -> list[str]:
        """The first slot of each block that the model sees, and the slots of the output."""
        slots = [self.position_names[at] for at in self.slots]
        return list(dict.fromkeys([*(f"{block}[0]" for block in self.blocks()), *slots]))

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """The model's output slots, long [n, n_output]."""
        return model(batch.tokens).argmax(dim=-1)[:, self.slots]

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """How far the model can go: EXACT_MATCH, whole outputs right, by the number of steps that the run makes.

        The stratum is `07 steps`, or `cut at 32 steps` where the run would go on; their mean is the area under the
        curve. TOKEN_ACCURACY is by slot of the output,
        SEQUENCE_MATCH over all examples as they are drawn.
        """
        expected = batch.targets.cpu()[:, self.slots].numpy()
        right = predicted.cpu().numpy() == expected
        whole = right.all(axis=1)
        n_steps = self.world.run(batch.examples, self.n_steps + 1, keep="last").n_steps
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
        parts.append(({"metric": Metric.SEQUENCE_MATCH}, whole))
        rows = []
        for columns, correct in parts:
            if n := len(correct):
                low, high = wilson_interval(int(correct.sum()), n)
                rows.append({**columns, "estimate": float(correct.mean()), "ci_low": low, "ci_high": high, "n": n})
        return pd.DataFrame(rows)
