"""`addition`: numbers and a plus between them go in, the digits of their sum come out.

    +a[0]a[1]a[2]a[3]+b[0]b[1]b[2]b[3]+sum[0]sum[1]sum[2]sum[3]sum[4]+

Every number has a field of slots, counted as they are written: reversed, slot i is place i. Without leading zeros
blanks fill the field of a number that is too short for it, "+74__+22__+96+", so that a slot has the same token position
in every example; the answer is as long as it is, and ends with a plus. The index of a slot counts from the plus in
front of it: the token that asks for a digit then stands one before those it depends on, however long numbers are.

Logits at a position say the next token of the answer. With `at_once` k the answer's tokens stand k - 1 slots later
than they are said (shifted labels, with blanks in front): k tokens are said in each pass, and none of them knows the
others. With all at once no token of the answer is ever shown.

The highest digits of the answer are asked for beyond the last slot of the longest number. With `spare` two more slots
stand there, always blank, so that they are found as everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.tasks.addition_contrasts import addition_contrasts
from interp.tasks.answers import fixed_point_of
from interp.tasks.base import Task
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.tasks.options import AdditionOptions
from interp.worlds.addition import NAMES, Addition
from interp.worlds.addition_digits import DIGITS, lengths
from interp.worlds.rows import Rows, RowsAnswer

_MAIN = 4  # places above which nothing is swapped at first


class AdditionTask(Task):
    """Sums of the world `addition` as tokens."""

    name = "addition"
    words = (
        "The model reads numbers with a plus before and behind each, and writes the digits of their sum; each place is "
        "right only if what is carried into it is."
    )
    Options = AdditionOptions
    attention_dir = "causal"
    whole_answers = True
    world: Addition

    def __init__(self, world: Addition, options: Any = None):
        super().__init__(world, options)
        self.reverse, self.leading_zeros = self.options.reverse, self.options.leading_zeros
        n_said = self.world.n_digits + 2  # the sum's digits, and the plus behind them
        self.n_spare = 2 * self.options.spare  # slots of a summand beyond its digits
        self.at_once = min(self.options.at_once or n_said, n_said)
        self.shows_answer = self.at_once < n_said
        self.plus, self.blank = self.world.base, self.world.base + 1

    @property
    def vocab(self) -> tuple[str, ...]:
        return (*DIGITS[: self.world.base], "+", "_")

    @cached_property
    def _slots(self) -> list[tuple[str, int, int]]:
        """Name, role and index of every token position. All fields are equally long, so that offsets agree: without
        spare slots what asks for the plus, behind the last digit that a carry is needed for, has a role of its own."""
        d, summands, found = self.world.n_digits, NAMES[: self.world.n_operands], []
        for role, name in enumerate((*summands, "sum")):
            n_slots = d if name == "sum" else d + self.n_spare
            found += [(f"{name}.plus", role, 0), *((f"{name}[{i}]", role, i + 1) for i in range(n_slots))]
        role, index = (len(summands), d + 1) if self.n_spare else (len(summands) + 1, 0)
        return [*found, (f"sum[{d}]", role, index), ("sum.end", role, index + 1)]

    @property
    def position_names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self._slots)

    @property
    def position_roles(self) -> tuple[int, ...]:
        return tuple(role for _, role, _ in self._slots)

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(index for _, _, index in self._slots)

    @property
    def prompt_positions(self) -> slice:
        return slice(0, 1 + self.world.n_operands * (self.world.n_digits + self.n_spare + 1))

    @property
    def answer_positions(self) -> np.ndarray:
        first = self.prompt_positions.stop - 1
        return np.arange(first, first + self.world.n_digits + 2)

    @property
    def answer_names(self) -> tuple[str, ...]:
        return tuple(self.position_names[at + 1] for at in self.answer_positions)

    @property
    def content(self) -> np.ndarray:
        says = np.ones(len(self.answer_positions), dtype=bool)
        says[-1] = False
        return says

    # What a model sees.

    def render(self, examples: Rows, answers: np.ndarray | None = None) -> Batch:
        answers = self.expected(self.world.answer(examples)) if answers is None else np.asarray(answers)
        prompt = torch.from_numpy(self._prompt(examples))
        tokens = torch.cat([prompt, self._shown(torch.from_numpy(answers.astype(np.int64)))], dim=1)
        targets = torch.full_like(tokens, -1)
        targets[:, torch.from_numpy(self.answer_positions)] = torch.from_numpy(answers.astype(np.int64))
        return Batch(tokens, targets, targets >= 0, examples)

    def _prompt(self, examples: Rows) -> np.ndarray:
        digits = self.world.digits(examples)
        plus = np.full((*digits.shape[:-1], 1), self.plus)
        written = self._field(digits)[..., :-1]
        spare = np.full((*digits.shape[:-1], self.n_spare), self.blank)
        fields = np.concatenate([plus, np.where(written == self.plus, self.blank, written), spare], axis=-1)
        return np.concatenate([fields.reshape(len(examples), -1), np.full((len(examples), 1), self.plus)], axis=1)

    def _field(self, digits: np.ndarray) -> np.ndarray:
        """Numbers, digits [..., places], as they are written, with a plus behind each: tokens [..., places + 1]."""
        places = digits.shape[-1]
        n_shown = np.full(digits.shape[:-1], places) if self.leading_zeros else lengths(digits)
        slots = np.arange(places + 1)
        place = slots if self.reverse else n_shown[..., None] - 1 - slots
        place = np.broadcast_to(place, (*digits.shape[:-1], places + 1))
        written = np.take_along_axis(digits, np.clip(place, 0, places - 1), axis=-1)
        behind = np.where(slots == n_shown[..., None], self.plus, self.blank)
        return np.where(slots < n_shown[..., None], written, behind)

    def _shown(self, answers: Tensor) -> Tensor:
        """What stands in the answer's slots when it is known to be this: tokens [n, k], -1 where nothing is said."""
        if not self.shows_answer:
            return torch.full_like(answers, self.blank)
        known = torch.where(answers < 0, self.blank, answers)
        late = self.at_once - 1
        front = torch.full_like(known[:, :late], self.blank)
        return torch.cat([front, known[:, : known.shape[1] - late]], dim=1)

    def expected(self, answer: RowsAnswer) -> np.ndarray:
        """The digits as they are written, the plus behind them, and -1 after it; -1 where there is no answer."""
        tokens = self._field(answer.values)
        return np.where(answer.valid[:, None] & (tokens != self.blank), tokens, -1)

    def trim(self, batch: Batch) -> Batch:
        """Without what stands behind the last token that asks."""
        last = int(batch.loss_mask.any(dim=0).nonzero().max()) + 1
        return Batch(batch.tokens[:, :last], batch.targets[:, :last], batch.loss_mask[:, :last], batch.examples)

    # What a model answers.

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """Greedy answers, long [n, k]; -1 behind the plus that ends them.

        By fixed-point iteration, as in `step`: a whole answer is guessed and re-read until it stands still. The model
        sees its own tokens alone, `at_once` of them more in every pass.
        """
        prompt = batch.tokens[:, self.prompt_positions]
        guess = torch.zeros((len(prompt), len(self.answer_positions)), dtype=torch.long, device=prompt.device)
        if self.at_once == 1 and (decode := fixed_point_of(model)) is not None:
            return self.finished(decode(prompt, guess))
        for _ in range(-(-guess.shape[1] // self.at_once)):
            logits = model(torch.cat([prompt, self._shown(guess)], dim=1))
            better = logits[:, torch.from_numpy(self.answer_positions)].argmax(dim=-1)
            if torch.equal(better, guess):
                break
            guess = better
        return self.finished(guess)

    def finished(self, answers: Tensor) -> Tensor:
        """Without what stands behind the plus that ends an answer."""
        over = (answers == self.plus).cumsum(dim=1) - (answers == self.plus).long() > 0
        return torch.where(over, -1, answers)

    # What is asked of a model's inside.

    def contrasts(self) -> Mapping[str, Contrast]:
        """A carry into each place against none, and a cascade against one a place shorter; see `addition_contrasts`."""
        return addition_contrasts(self)

    def position_sets(self) -> list[str]:
        """The summands, each slot of the lowest places of the sum, and all positions (a ceiling)."""
        names = NAMES[: self.world.n_operands]
        return [*names, "sum.plus", *self._sum_slots(), "all"]

    def probe_places(self) -> list[str]:
        """Where the digits of the sum are said, and where the last summand's first digit stands."""
        return [f"{NAMES[self.world.n_operands - 1]}[0]", "sum.plus", *self._sum_slots()]

    def _sum_slots(self) -> list[str]:
        return [f"sum[{i}]" for i in range(min(_MAIN, self.world.n_digits + 1))]
