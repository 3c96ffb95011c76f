"""What the Step page runs, as all pages look at it: a program with all its steps, and the step that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app import program, run_access, selection, state_panel
from app.predictions import Prediction, predict
from app.program import ProgramError, Start, Walk
from app.session import View, describe_model, verdict
from cython_vm import MachineSpec, Op, Outcome, States, decode
from cython_vm import run as run_machine
from interp import Run, RunError

_START = "start"


@dataclass(frozen=True, kw_only=True)
class MachineView(View):
    """The machine's walk from the start in view, and the selected transition, `step`, of it."""

    start: Start
    walk: Walk

    @property
    def spec(self) -> MachineSpec:
        return self.run.config.spec

    @property
    def state(self) -> States:
        """The state before the transition shown, a batch of one."""
        return self.walk.states[self.step]

    @property
    def ops(self) -> tuple[str, ...]:
        """The opcodes of this machine, in vocabulary order."""
        return tuple(op_names(self.spec))

    @property
    def op(self) -> str:
        """The opcode that runs next."""
        return self.walk.ops[self.step]

    def status(self) -> str:
        return self.status_with(self._prediction_if_any()).removesuffix(" · the model is loading")

    def status_with(self, prediction: Prediction | None) -> str:
        """The line, with what the model predicts as far as that is known."""
        where = f"{describe_model(self.run)} · step {self.step + 1} of {self.walk.n_steps} · next **{self.op}**"
        if prediction is None:
            return f"{where} · the model is loading"
        return f"{where} · {verdict(bool(prediction.right[self.step]), prediction.p_state[self.step])}"

    def prediction(self) -> Prediction | None:
        """The model's predictions along the walk; None while the model is not there. Raises RunError."""
        loaded = run_access.model_if_there(self.run)
        return None if loaded is None else predict(loaded, self.walk.states[: self.walk.n_steps])

    def _prediction_if_any(self) -> Prediction | None:
        try:
            return self.prediction()
        except RunError:  # the page that needs the model says so
            return None

    def place(self) -> str:
        where = f"Step {self.step + 1} of the program on the Step page, where {self.op} runs next"
        return f"{where}: a forward pass made now."

    def example(self) -> States:
        return self.state

    def named(self) -> dict[str, Any]:
        return program.to_address(program.of_state(self.state))

    def code(self) -> list[str]:
        start = program.of_state(self.state)
        rest = "".join(
            f", {name}={value}"
            for name in ("instruction_ptr", "array_ptr", "cells", "input", "output")
            if (value := getattr(start, name))
        )
        spelt = " ".join(start.program) or "STOP"
        return ["from cython_vm import States", f"base = States.build(run.config.spec, program={spelt!r}{rest})"]

    def value_words(self, name: str, value: int) -> str:
        known = {"op": Op, "instruction": Op, "outcome": Outcome}.get(name.partition("[")[0])
        return str(value) if known is None else f"{known(value).name} ({value})"

    def held_out(self, n: int, op: str) -> str:
        return f"{n} held-out states that run {op}"

    def query(self, names: Sequence[str]) -> int:
        """The cell under the pointer; among positions of the answer what it becomes."""
        name = f"cells[{int(self.state.array_ptr[0])}]"
        return next((at for at, each in enumerate(names) if each in (name, f"next.{name}")), 0)

    def is_missed(self) -> bool:
        prediction = self._prediction_if_any()
        return prediction is not None and not bool(prediction.right[self.step])

    def can_explain(self, op: str) -> bool:
        return self.op == op

    def draw_state(self) -> None:
        state_panel.draw_state(self)

    @property
    def can_show(self) -> bool:
        return True

    def show(self, tokens: np.ndarray, step: int = 0) -> None:
        set_start(program.of_state(decode(self.spec, np.asarray([tokens]))))
        selection.emit(step=step, op="", kind="", id="")

    def in_words(self, tokens: np.ndarray, step: int = 0) -> str:
        """ "`+>[-]` at instruction 2, cell 1 holding 0"."""
        state = state_of(self.spec, tokens, step)
        spelt = program.spell(program.of_state(state).program)
        pointer = int(state.array_ptr[0])
        where = f"instruction {int(state.instruction_ptr[0])}, cell {pointer} holding {int(state.cells[0][pointer])}"
        return f"`{spelt}` at {where}"

    def against(self, tokens: np.ndarray) -> str:
        """The opcode that runs instead."""
        return program.executed(state_of(self.spec, tokens, 0))


def view(run: Run) -> MachineView:
    """What to show now."""
    spec = run.config.spec
    if _START not in st.session_state:
        set_start(_first_start(spec), keep_step=True)
    start: Start = st.session_state[_START]
    walk = _walk(start, spec)
    step = min(selection.current().step, walk.n_steps - 1)
    if step != selection.current().step:
        selection.notify(f"Step {selection.current().step + 1} does not exist: this run ends at step {walk.n_steps}.")
        selection.emit(step=step)
    return MachineView(run=run, step=step, start=start, walk=walk)


def set_start(start: Start, *, keep_step: bool = False) -> None:
    """Show another program or state, from its first step."""
    st.session_state[_START] = start
    selection.set_extra(program.to_address(start))
    if not keep_step:
        selection.emit(step=0, op="")


def state_of(spec: MachineSpec, tokens: np.ndarray, step: int) -> States:
    """The state, a batch of one, `step` steps after the one that tokens [state_length] spell."""
    first = decode(spec, np.asarray([tokens]))
    return first if step == 0 else run_machine(first, step).final


def op_names(spec: MachineSpec) -> list[str]:
    """The opcodes of a machine, in vocabulary order."""
    return [Op(op).name for op in spec.ops]


@st.cache_data(show_spinner=False, max_entries=64, hash_funcs={Start: repr, MachineSpec: repr})
def _walk(start: Start, spec: MachineSpec) -> Walk:
    return program.walk(program.build(start, spec))


def _first_start(spec: MachineSpec) -> Start:
    try:
        found = program.from_address(st.query_params.to_dict(), spec)
    except (ProgramError, ValueError) as error:
        selection.notify(f"The program in the link cannot run here. {str(error)[:300]} An example is shown instead.")
        found = None
    return found or program.first(spec)
