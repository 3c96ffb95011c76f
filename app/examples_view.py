"""Held-out examples of any world, by number, as all pages look at them: no world or task is named here.

Example k is row k of one fixed stream of the evaluation split, so a number in the address shows everybody the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import streamlit as st

from app import run_access, selection
from app.answers import Answers, answers
from app.numbers import quoted, whole_number
from app.run_access import LoadedModel
from app.session import View, describe_model
from interp import Run, RunError

SEED = 20  # of the stream of examples
NUMBER = "example_number"


@dataclass(frozen=True)
class ExamplesView(View):
    """One example of the stream, and a step of it where it has several."""

    number: int = 0  # from 0

    @property
    def op(self) -> str:
        shown = self._shown()
        return "" if shown is None else shown.stratum(self.step)

    def status(self) -> str:
        where = f"{describe_model(self.run)} · held-out example {self.number + 1}"
        shown = self._shown()
        if shown is None or shown.n_steps == 1:
            return where
        return f"{where} · step {self.step + 1} of {shown.n_steps}"

    def place(self) -> str:
        return f"Held-out example {self.number + 1} of the Examples page: a forward pass made now."

    def example(self) -> Any:
        loaded = run_access.model_if_there(self.run)
        assert loaded is not None, "a page asks for the example once the model is there"
        return shown_example(loaded.run.task, self.run, self.number).batch.examples

    def executed(self) -> int:
        shown = self._shown()
        if shown is None or not shown.task.edits_any_step:
            return 0
        return int(shown.steps[min(self.step, shown.n_steps - 1)])

    def named(self) -> dict[str, Any]:
        return {"example": self.number + 1, "step": self.step + 1}

    def code(self) -> list[str]:
        return [f'base = task.draw(1, seed={SEED}, start={self.number}, split="evaluation")']

    def _shown(self) -> Shown | None:
        """The example, once the model is there; None before, and where it cannot be loaded."""
        try:
            loaded = run_access.model_if_there(self.run)
        except RunError:
            return None
        return None if loaded is None else shown_example(loaded.run.task, self.run, self.number)


@dataclass(frozen=True, eq=False)
class Shown:
    """One example as its task shows it."""

    task: Any
    batch: Any  # of one
    times: np.ndarray  # int64 [pos]: the executed step that each token is about; -1 for none

    @cached_property
    def steps(self) -> np.ndarray:
        """The executed steps that tokens are about, rising."""
        found = np.unique(self.times[self.times >= 0])
        return found if len(found) else np.zeros(1, dtype=np.int64)

    @property
    def n_steps(self) -> int:
        return len(self.steps)

    @cached_property
    def tokens(self) -> list[str]:
        """The tokens by name."""
        return [self.task.vocab[int(token)] for token in self.batch.tokens[0]]

    def stratum(self, step: int) -> str:
        """The name of the world's stratum at a step of the slider; "" where there is none."""
        return self._stratum(step)[0]

    def part(self, step: int) -> str:
        """The part of the stratum, such as how an instruction ended; "" where there is none."""
        return self._stratum(step)[1]

    def value(self, name: str, step: int) -> int:
        """The value of one of the world's variables at a step of the slider; -1 where it is undefined."""
        at = int(self.steps[step])
        return int(np.ravel(self.task.world.read(self.batch.examples, name, at=at))[0])

    def _stratum(self, step: int) -> tuple[str, str]:
        if not (self.task.has_strata or self.n_steps > 1):
            return "", ""
        strata = self.task.strata(self.batch, at=int(self.steps[step]))
        number = int(strata.number[0])
        if number < 0:
            return "", ""
        return strata.names[number], "" if strata.part is None else strata.parts[int(strata.part[0])]


def view(run: Run) -> ExamplesView:
    """What to show now."""
    if NUMBER not in st.session_state:
        text = st.query_params.get("example", "1")
        number = whole_number(text)
        if not number:
            selection.notify(f"The link asks for example {quoted(text)}; the first is shown instead.")
        go(max(0, (number or 1) - 1), keep_step=True)
    return ExamplesView(run=run, step=selection.current().step, number=st.session_state[NUMBER])


def go(number: int, *, step: int = 0, keep_step: bool = False) -> None:
    """Show another example of the stream."""
    st.session_state[NUMBER] = number
    selection.set_extra({"example": str(number + 1)})
    if not keep_step:
        selection.emit(step=step, op="", kind="", id="")


def forget() -> None:
    """Begin with the first example at the next visit of the page: the run is another."""
    st.session_state.pop(NUMBER, None)


def shown_example(task: Any, run: Run, number: int) -> Shown:
    """Example `number` of the stream."""
    return _shown_example(task, run.config.digest, number)


def answered(loaded: LoadedModel, number: int) -> Answers:
    """The model's answers to example `number`."""
    return _answered(loaded, loaded.key, number)


@st.cache_resource(show_spinner=False, max_entries=64)
def _shown_example(_task: Any, digest: str, number: int) -> Shown:
    batch = _task.sample(1, seed=SEED, start=number, split="evaluation")
    return Shown(_task, batch, np.asarray(_task.times(batch))[0])


@st.cache_data(show_spinner=False, max_entries=64)
def _answered(_loaded: LoadedModel, key: str, number: int) -> Answers:
    return answers(_loaded, shown_example(_loaded.run.task, _loaded.run, number).batch)
