"""`scratchpad`: a program and its input go in; what each executed step does is written down, then what was printed.

    [ instructions ] [ input ]  ip op at value  ip op at value  …  =  output

An executed instruction takes four tokens: where it stands, what it is, where the array pointer points after it, and the
value of the cell there. GET and PUT say with it how many were read or printed before: `GET[1]` reads the second value.
The instruction that halts or freezes is the last entry, with nothing changed; `=` ends the chain, and the output's
slots follow. A chain tells what a step can change and never the whole tape: a cell's value has to be looked up where
it was told last.

With `optional` the chain may end at any entry: half of the examples are shown in full, of the others a part that is
drawn by a hash of what the model is shown. The model then decides by itself how much it writes before it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.machine_task import as_targets
from interp.tasks.options import ScratchpadOptions
from interp.tasks.output import Output
from interp.tasks.writing import write_tokens
from interp.worlds.base import Split
from interp.worlds.machine import MachineAnswer, MachineSpec, MachineWorld, Op, Outcome, States

ENTRY = ("ip", "op", "at", "value")  # the tokens of an executed instruction
_END = np.uint64(0x9E3779B97F4A7C15)  # which examples are cut hangs on the hash of the unit and on this


class Scratchpad(Output):
    """See the module's docstring. Causal: logits at position p predict token p + 1, from the first entry on."""

    name = "scratchpad"
    attention_dir = "causal"
    shows_answer = True
    writes = True
    Options = ScratchpadOptions
    words = (
        "The model reads a program of a small tape machine and its input, writes down what each executed step does, "
        "and then what the program will have printed when it ends."
    )
    shown_blocks = ("instructions", "input")
    entry_width = len(ENTRY)

    def __init__(self, world: MachineWorld | MachineSpec, options: Any = None):
        super().__init__(world, options)
        if self.options.behind:
            raise ValueError("the answer of the task scratchpad stands behind its chain: leave behind out")
        own = [f"ip[{i}]" for i in range(self.spec.n_instructions)] + [f"at[{j}]" for j in range(self.spec.n_cells)]
        own += [f"GET[{i}]" for i in range(self.spec.n_input + 1)]
        own += [f"PUT[{i}]" for i in range(self.spec.n_output + 1)]
        self._vocab = (*self.spec.vocab, "=", "_", *own)
        self.id = {name: number for number, name in enumerate(self._vocab)}
        self.longest = self.options.longest or self.n_steps
        if not self.options.shortest <= self.longest <= self.n_steps:
            raise ValueError(
                f"shortest <= longest <= n_steps = {self.n_steps} must hold; got {self.options.shortest} and "
                f"{self.longest}"
            )
        self.n_written = len(ENTRY) * (self.n_steps + 1) + 1 + self.spec.n_output  # tokens of the longest answer

    @property
    def vocab(self) -> tuple[str, ...]:
        """The machine's tokens, `=`, blank, and what names places and counts."""
        return self._vocab

    @property
    def position_names(self) -> tuple[str, ...]:
        names = tuple(self.spec.layout.names[at] for at in self.shown)
        return names + tuple(f"{ENTRY[i % len(ENTRY)]}[{i // len(ENTRY)}]" for i in range(self.n_written))

    @property
    def position_roles(self) -> tuple[int, ...]:
        roles = [int(role) for role in self.spec.layout.roles[self.shown]]
        first = self.spec.layout.n_roles
        return (*roles, *(first + i % len(ENTRY) for i in range(self.n_written)))

    @property
    def position_indices(self) -> tuple[int, ...]:
        indices = [int(index) for index in self.spec.layout.indices[self.shown]]
        return (*indices, *(i // len(ENTRY) for i in range(self.n_written)))

    @property
    def prompt_positions(self) -> slice:
        return slice(0, len(self.shown))

    @cached_property
    def slots(self) -> np.ndarray:
        """Where the answer is said, chain and output."""
        return len(self.shown) - 1 + np.arange(self.n_written)

    @property
    def answer_names(self) -> tuple[str, ...]:
        return self.position_names[len(self.shown) :]

    # What a model sees.

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: np.ndarray | None = None,
    ) -> States:
        """As in `output`, of runs from `options.shortest` to `options.longest` steps."""
        if weights is not None:
            raise ValueError("a whole run belongs to no op x outcome stratum: leave weights out")
        draw = self.draw_ending if self.options.even else self.draw_units
        return draw(n, (self.options.shortest, self.longest), seed=seed, start=start, split=split)

    def render(self, examples: States, answers: np.ndarray | None = None) -> Batch:
        starts = self.world.starts(examples)
        answers = self.expected(self.world.answer(starts)) if answers is None else np.asarray(answers)
        prompt = self.world.encode(starts)[:, self.shown]
        written = np.where(answers < 0, self.id["_"], answers)
        tokens, targets, _ = as_targets(np.concatenate([prompt, written], axis=1), self.slots, answers)
        return Batch(tokens, targets, targets >= 0, starts)

    def expected(self, answer: MachineAnswer) -> np.ndarray:
        """The chain, `=` and the output, tokens [n, n_written]; -1 behind them."""
        entries, length = self.entries(answer)
        if self.options.optional:
            length = self._shown_entries(answer.states, length)
        final = self.world.encode(answer.after(self.n_steps))[:, self.spec.layout.slice("output")]
        tokens = np.full((len(entries), self.n_written), -1, dtype=np.int64)
        chain = entries.reshape(len(entries), -1)
        places, end = np.arange(chain.shape[1]), len(ENTRY) * length[:, None]
        tokens[:, : chain.shape[1]] = np.where(places < end, chain, -1)
        np.put_along_axis(tokens, end, self.id["="], axis=1)
        np.put_along_axis(tokens, end + 1 + np.arange(self.spec.n_output), final.astype(np.int64), axis=1)
        return tokens

    def entries(self, answer: MachineAnswer) -> tuple[np.ndarray, np.ndarray]:
        """What each executed step is told as, tokens [n, n_steps + 1, 4], and how many entries a run has, int64 [n].

        The last is the step that halts or freezes; a run that goes on after `n_steps` is cut there.
        """
        states, n = answer.states, len(answer.states)
        found = np.full((n, self.n_steps + 1, len(ENTRY)), -1, dtype=np.int64)
        length, over = np.full(n, self.n_steps), np.zeros(n, dtype=bool)
        count = {Op.GET: np.zeros(n, dtype=np.int64), Op.PUT: np.zeros(n, dtype=np.int64)}
        for s in range(self.n_steps + 1):
            now, after = _transition(self.world, answer, states, s)
            found[:, s] = self._entry(now["instruction_ptr"], now["op"], after, count)
            ran = now["outcome"] == Outcome.RAN
            ends = ~over & ~ran
            length[ends], over = s + 1, over | ~ran
            for op, so_far in count.items():
                so_far += ran & (now["op"] == op)
            states = after
        return found, length

    def _entry(self, ip: np.ndarray, op: np.ndarray, after: States, count: Mapping[Op, np.ndarray]) -> np.ndarray:
        """The four tokens of one executed step of each run, int64 [n, 4]; `count`: how many were read and printed."""
        plain = np.array([self.id[each.name] for each in Op], dtype=np.int64)
        said = plain[op]
        for each, most in ((Op.GET, self.spec.n_input), (Op.PUT, self.spec.n_output)):
            said = np.where(op == each, self.id[f"{each.name}[0]"] + np.minimum(count[each], most), said)
        at = after.array_ptr.astype(np.int64)
        value = after.cells[np.arange(len(after)), at].astype(np.int64)
        return np.stack([self.id["ip[0]"] + ip, said, self.id["at[0]"] + at, self.id["NUM_0"] + value], axis=1)

    def _shown_entries(self, starts: States, length: np.ndarray) -> np.ndarray:
        """How many entries of each chain are shown where the model may stop early: all of half of them."""
        drawn = (self.shown_hash(starts) * _END) >> np.uint64(33)
        part = (drawn >> np.uint64(1)).astype(np.int64) % (length + 1)
        return np.where(drawn & np.uint64(1), length, part)

    def trim(self, batch: Batch) -> Batch:
        """Without what stands behind the last token that asks."""
        last = int(batch.loss_mask.any(dim=0).nonzero().max()) + 1
        return Batch(batch.tokens[:, :last], batch.targets[:, :last], batch.loss_mask[:, :last], batch.examples)

    # What a model answers.

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """What the model writes greedily, chain and output, long [n, n_written]; -1 behind the output."""
        return self.finished(self.write(model, batch.tokens[:, self.prompt_positions]))

    def write(
        self, model: Any, prompt: Tensor, *, generator: torch.Generator | None = None, most: int | None = None
    ) -> Tensor:
        """What a model writes behind a prompt, tokens [n, n_written], or at most so many: sampled with a generator,
        else greedily."""
        n_tokens = self.n_written if most is None else most
        return write_tokens(model, prompt, n_tokens, over=self.over, generator=generator)

    def over(self, written: Tensor) -> Tensor:
        """Whether what was written so far, [n, k], ends with a whole output, bool [n]."""
        return ((written == self.id["="]).cumsum(dim=1) > 0).sum(dim=1) > self.spec.n_output

    def finished(self, answers: Tensor) -> Tensor:
        """Without what stands behind the output."""
        behind = ((answers == self.id["="]).cumsum(dim=1) > 0).long().cumsum(dim=1)  # 1 at the first `=`
        return torch.where(behind > 1 + self.spec.n_output, -1, answers)

    def outputs(self, written: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The output that was written, tokens [n, n_output], -1 where there is none; and tokens before it, [n]."""
        ends = written == self.id["="]
        at = np.where(ends.any(axis=1), ends.argmax(axis=1), written.shape[1])
        padded = np.concatenate([written, np.full((len(written), 1 + self.spec.n_output), -1)], axis=1)
        places = at[:, None] + 1 + np.arange(self.spec.n_output)
        return np.take_along_axis(padded, np.minimum(places, padded.shape[1] - 1), axis=1), at

    def right(self, predicted: Tensor, batch: Batch) -> np.ndarray:
        """Whether the output is the machine's, whatever was written before it, bool [n]."""
        said, _ = self.outputs(predicted.cpu().numpy())
        return (said == super().expected(self.world.answer(batch.examples))).all(axis=1)

    def entries_right(self, predicted: Tensor, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Which entries of the chain that was written are the machine's, bool [n, n_steps + 1]; and which were
        written."""
        written, answer = predicted.cpu().numpy(), self.world.answer(self.world.starts(batch.examples))
        true, length = self.entries(answer)
        _, spent = self.outputs(written)
        k, m = len(ENTRY), self.n_steps + 1
        told = written[:, : k * m].reshape(len(written), m, k)
        there = np.arange(m) < -(-spent[:, None] // k)
        return there & (told == true).all(axis=2) & (np.arange(m) < length[:, None]), there

    def told_steps(self, written: Tensor, batch: Batch) -> tuple[list[tuple[str, str, bool]], str, str]:
        """Of a batch of one, in words: each entry that was written, the machine's, and whether they agree; the output
        that was written; and the machine's."""
        tokens, (true, length) = (
            written.cpu().numpy(),
            self.entries(self.world.answer(self.world.starts(batch.examples))),
        )
        said, spent = self.outputs(tokens)
        k, n_told = len(ENTRY), -(-int(spent[0]) // len(ENTRY))

        def words(ids: Any) -> str:
            return " ".join(self._vocab[int(each)] for each in ids if each >= 0)

        theirs = [words(true[0, s]) if s < length[0] else "" for s in range(max(n_told, int(length[0])))]
        own = [words(tokens[0, k * s : min(k * (s + 1), int(spent[0]))]) for s in range(len(theirs))]
        steps = [(mine, other, mine == other) for mine, other in zip(own, theirs, strict=True)]
        return steps, words(said[0]), words(super().expected(self.world.answer(batch.examples))[0])

    def credit(self, written: Tensor, batch: Batch) -> Tensor:
        """Whether each token belongs to a step that is the machine's, or to a right output; 0 or 1, [n, n_written]."""
        entries, _ = self.entries_right(written, batch)
        of_step = torch.from_numpy(entries).float().repeat_interleave(len(ENTRY), dim=1)
        right = torch.from_numpy(self.right(written, batch)).float()[:, None]
        _, spent = self.outputs(written.cpu().numpy())
        place = torch.arange(written.shape[1])
        wide = F.pad(of_step, (0, max(0, written.shape[1] - of_step.shape[1])))[:, : written.shape[1]]
        return torch.where(place < torch.from_numpy(spent)[:, None], wide, right)

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """EXACT_MATCH, whole outputs right, by the number of steps that the run makes, as in `output`; ENTRIES_RIGHT,
        what was written of chains that is the machine's; SEQUENCE_MATCH, outputs right behind a chain without an
        error; over all examples as they are drawn."""
        right = self.right(predicted, batch)
        entries, there = self.entries_right(predicted, batch)
        n_steps = self.world.run(batch.examples, self.n_steps + 1, keep="last").n_steps
        parts: list[tuple[dict[str, Any], np.ndarray]] = [
            ({"stratum": f"{k:02d} steps", "metric": Metric.EXACT_MATCH}, right[n_steps == k])
            for k in range(self.n_steps + 1)
        ]
        cut = {"stratum": f"cut at {self.n_steps} steps", "metric": Metric.EXACT_MATCH}
        parts.append((cut, right[n_steps > self.n_steps]))
        parts.append(({"metric": Metric.ENTRIES_RIGHT}, entries[there]))
        parts.append(({"metric": Metric.SEQUENCE_MATCH}, right & (entries | ~there).all(axis=1)))
        rows = []
        for columns, correct in parts:
            if n := len(correct):
                low, high = wilson_interval(int(correct.sum()), n)
                rows.append({**columns, "estimate": float(correct.mean()), "ci_low": low, "ci_high": high, "n": n})
        return pd.DataFrame(rows)

    # What is asked of a model's inside.

    def contrasts(self) -> Mapping[str, Contrast]:
        """None yet: inputs that differ in one thing differ in every entry behind it."""
        return {}

    def times(self, batch: Batch) -> np.ndarray:
        """The executed step whose entry a token belongs to, int64 [n, pos]; 0 in the prompt; -1 behind the chain."""
        _, spent = self.outputs(batch.tokens[:, len(self.shown) :].numpy())
        place = np.arange(self.n_ctx) - len(self.shown)
        steps = np.where(place < 0, 0, place // len(ENTRY))
        return np.where(place < spent[:, None], steps, -1)

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable when the step that a token tells of is taken, int64 [n, pos]; -1 where it is undefined."""
        times = self.times(batch)
        return np.where(times >= 0, self.world.read(batch.examples, name, np.maximum(times, 0)), -1)

    def position_sets(self) -> list[str]:
        """The blocks of program and input, what entries are made of, and all positions (a ceiling)."""
        return [*self.blocks(), "all"]

    def probe_places(self) -> list[str]:
        """The first slot of each block of the prompt, and the entries of the first and the second step."""
        first = [f"{block}[0]" for block in self.shown_blocks]
        return [*first, *(f"{name}[{s}]" for s in (0, 1) for name in ENTRY)]


def _transition(
    world: MachineWorld, answer: MachineAnswer, states: States, s: int
) -> tuple[dict[str, np.ndarray], States]:
    """What is executed at step `s` of each run, and the states behind it; at the step of `do` with what it sets."""
    plain = world.step(states)
    now = {"instruction_ptr": states.instruction_ptr.astype(np.int64), "outcome": plain.outcome.astype(np.int64)}
    now["op"] = plain.latents["op"].astype(np.int64)
    here = np.flatnonzero(answer.at == s) if answer.do else np.zeros(0, dtype=np.int64)
    if not len(here):
        return now, plain.next
    edited, do = answer.transition, answer.do or {}
    now["op"][here], now["outcome"][here] = edited.latents["op"][here], edited.outcome[here]
    if "instruction_ptr" in do:
        now["instruction_ptr"][here] = np.asarray(do["instruction_ptr"])[here]
    now["op"] = np.maximum(now["op"], 0)  # undefined where `do` has no answer: such rows are left out
    order = np.arange(len(states))
    order[here] = len(states) + here
    return now, States.concatenate([plain.next, edited.next])[order]
