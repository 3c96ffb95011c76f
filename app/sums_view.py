"""What the Sum page shows, as all pages look at it: a held-out sum by its number, or one that a person typed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import streamlit as st

from app import examples_view, run_access, selection
from app.answers import Answers, answers
from app.components.sum_board import GENERATES, PROPAGATES, Column
from app.examples_view import ExamplesView, Shown
from app.numbers import quoted
from app.run_access import LoadedModel
from app.session import View, describe_model
from interp import Run, RunError
from interp.worlds.addition import NAMES, Addition
from interp.worlds.addition_digits import DIGITS, to_digits, written


def _own(run: Run) -> str:
    """Under which key of the session a run's own sum is kept: what one model reads, another may not."""
    return f"own_sum {run.config.digest}"


@dataclass(frozen=True)
class SumsView(ExamplesView):
    """One sum: example `number`, or `own` where a person typed one."""

    own: str = ""

    def example(self) -> Any:
        loaded = run_access.model_if_there(self.run)
        assert loaded is not None, "a page asks for the example once the model is there"
        return self.shown(loaded.run.task).batch.examples

    def shown(self, task: Any) -> Shown:
        """The sum as its task shows it."""
        if not self.own:
            return examples_view.shown_example(task, self.run, self.number)
        batch = task.render(task.world.examples([parse(task.world, self.own)]))
        return Shown(task, batch, np.asarray(task.times(batch))[0])

    def answered(self, loaded: LoadedModel) -> Answers:
        """What the model says."""
        if not self.own:
            return examples_view.answered(loaded, self.number)
        return answers(loaded, self.shown(loaded.run.task).batch)

    def _shown(self) -> Shown | None:
        try:
            loaded = run_access.model_if_there(self.run)
        except RunError:
            return None
        return None if loaded is None else self.shown(loaded.run.task)

    def status(self) -> str:
        what = f"your sum {self.own}" if self.own else f"held-out sum {self.number + 1}"
        return f"{describe_model(self.run)} · {what}"

    def place(self) -> str:
        what = f"Your sum {self.own}" if self.own else f"Held-out sum {self.number + 1} of the Sum page"
        return f"{what}: a forward pass made now."

    def held_out(self, n: int, op: str) -> str:
        return f"{n} held-out sums with “{op}”"


def parse(world: Addition, text: str) -> tuple[int, ...]:
    """The summands that a person typed, in the world's base. Raises ValueError in a sentence for that person."""
    parts = [part.strip().upper() for part in re.split(r"[+ ]+", text.strip()) if part.strip()]
    if len(parts) != world.n_operands:
        raise ValueError(f"Type {world.n_operands} numbers with a plus between them, such as 999 + 1.")
    digits = DIGITS[: world.base]
    for part in parts:
        if set(part) - set(digits):
            raise ValueError(f"{quoted(part)} is no number in base {world.base}, whose digits are {digits}.")
        if len(part.lstrip("0")) > world.n_digits:
            raise ValueError(f"{quoted(part)} has more digits than the {world.n_digits} that this model reads.")
    return tuple(int(part, world.base) for part in parts)


def view(run: Run) -> View:
    """What to show now."""
    asked = st.query_params.get("sum", "")  # read first: the number of an example is written over it
    whole = examples_view.view(run)
    if _own(run) not in st.session_state:
        try:
            if asked:
                parse(run.config.world, asked)  # type: ignore[arg-type]
        except ValueError as error:
            selection.notify(f"The link asks for the sum {quoted(asked)}. {error}")
            asked = ""
        show_own(run, asked)
    return SumsView(run=run, step=0, number=whole.number, own=st.session_state[_own(run)])


def spelt(text: str) -> str:
    """A sum without what surrounds its numbers: "999+1"."""
    return "+".join(part.upper() for part in re.split(r"[+ ]+", text.strip()) if part)


def show_own(run: Run, text: str) -> None:
    """Show a sum that a person typed; "" for the held-out ones."""
    own = st.session_state[_own(run)] = spelt(text)
    selection.set_extra({"sum": own} if own else {"example": str(st.session_state[examples_view.NUMBER] + 1)})


@dataclass(frozen=True)
class Places:
    """A sum place by place, with what the model says."""

    shown: Shown
    found: Answers | None

    @property
    def world(self) -> Addition:
        return self.shown.task.world

    @cached_property
    def said(self) -> list[tuple[str, float]] | None:
        """The model's digits and their probabilities, from the lowest place up; None while it is not there."""
        if self.found is None:
            return None
        asked = np.flatnonzero(self.found.asked[0])
        vocab, listed = self.shown.task.vocab, []
        for at in asked:
            token = vocab[int(self.found.said[0, at])]
            if token == "+":
                break
            listed.append((token.replace("_", ""), float(self.found.p[0, at])))
        return listed if self.shown.task.reverse else listed[::-1]

    def columns(self) -> list[Column]:
        """Every place and the carry above the highest, from the lowest up."""
        world, examples = self.world, self.shown.batch.examples
        digits = world.digits(examples)[0]
        known = {name: int(world.read(examples, name)[0]) for name in world.variables()}
        n_each = [len(written(each)) for each in digits.tolist()]
        result = [known[f"result_digit[{i}]"] for i in range(world.n_digits + 1)]
        filled, n_result = self.shown.task.leading_zeros, len(written(result))
        found = []
        for i in range(world.n_digits + 1):
            inside = i < world.n_digits
            total = written(to_digits([known[f"digit_sum[{i}]"]], world.base, 3)[0].tolist()) if inside else ""
            does = "" if not inside else GENERATES if known[f"generate[{i}]"] else ""
            if inside and not does and known[f"propagate[{i}]"]:
                does = PROPAGATES
            said, p = ("", 0.0) if self.said is None or i >= len(self.said) else self.said[i]
            found.append(
                Column(
                    place=i,
                    digits=tuple(
                        DIGITS[each[i]] if inside and (filled or i < n) else ""
                        for each, n in zip(digits, n_each, strict=True)
                    ),
                    carry=known.get(f"carry_in[{i}]", 0),
                    cascade=known.get(f"cascade[{i}]", 0),
                    total=total,
                    does=does,
                    truth=DIGITS[result[i]] if filled or i < n_result else "",
                    said=None if self.said is None else said,
                    p=p,
                )
            )
        return found

    def names(self) -> tuple[str, ...]:
        return tuple(NAMES[: self.world.n_operands])

    def in_words(self, place: int) -> str:
        """What comes into a place and from where."""
        column = self.columns()[place]
        if not column.carry:
            return f"No carry comes into place {place}."
        start = place - column.cascade
        if column.cascade == 1:
            return f"The digits of place {start} make the carry that comes into place {place}."
        through = ", ".join(str(i) for i in range(start + 1, place))
        return (
            f"The carry into place {place} has come {column.cascade} places: place {start} makes it, and place"
            f"{'s' if column.cascade > 2 else ''} {through} let{'s' if column.cascade == 2 else ''} it through."
        )
