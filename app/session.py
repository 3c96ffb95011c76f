"""What every page looks at: the run, the program in view with all its steps, and the step that is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import streamlit as st

from app import program, run_access, selection
from app.predictions import Prediction, predict
from app.program import ProgramError, Start, Walk
from cython_vm import MachineSpec, Op, States
from interp import Run, RunError
from interp.calibration import score
from interp.results import Aggregation, Metric, records, select
from interp.runs import NEXT_STATE_TASKS

_START = "start"


@dataclass(frozen=True)
class View:
    """The run in view, the machine's walk from the start in view, and the selected step."""

    run: Run
    start: Start
    walk: Walk
    step: int  # index of the transition shown, from 0

    @property
    def spec(self) -> MachineSpec:
        return self.run.config.spec

    @property
    def state(self) -> States:
        """The state before the transition shown, a batch of one."""
        return self.walk.states[self.step]

    @property
    def op(self) -> str:
        """The opcode that runs next."""
        return self.walk.ops[self.step]

    @property
    def chosen_op(self) -> str:
        """The opcode to explain: the one picked, else the one that runs next."""
        return selection.current().op or self.op


def view() -> View:
    """What to show now. Raises RunError when the run cannot be opened."""
    run = run_access.current()
    spec = run.config.spec
    if spec.pointers != "one_hot" or spec.punctuation != "blocks" or spec.outcome_token or spec.padded:
        raise RunError(f"{run.path} writes states in a layout of its own; the app draws the default one alone")
    selection.begin(tuple(op_names(spec)))
    if _START not in st.session_state:
        set_start(_first_start(spec), keep_step=True)
    start: Start = st.session_state[_START]
    walk = _walk(start, spec)
    step = min(selection.current().step, walk.n_steps - 1)
    if step != selection.current().step:
        selection.notify(f"Step {selection.current().step + 1} does not exist: this run ends at step {walk.n_steps}.")
        selection.emit(step=step)
    return View(run=run, start=start, walk=walk, step=step)


def set_start(start: Start, *, keep_step: bool = False) -> None:
    """Show another program or state, from its first step."""
    st.session_state[_START] = start
    extra = program.to_address(start)
    if name := st.query_params.get("run"):
        extra["run"] = name
    selection.set_extra(extra)
    if not keep_step:
        selection.emit(step=0, op="")


def predicted(view: View) -> Prediction | None:
    """The model's predictions along the walk; None while the model is not there, or if its task is another than one
    step. Raises RunError."""
    if view.run.config.task not in NEXT_STATE_TASKS:
        return None
    loaded = run_access.model_if_there(view.run)
    return None if loaded is None else predict(loaded, view.walk.states[: view.walk.n_steps])


def status(view: View, prediction: Prediction | None) -> str:
    """Where we are, in one line."""
    where = f"{describe_model(view.run)} · step {view.step + 1} of {view.walk.n_steps} · next **{view.op}**"
    if view.run.config.task not in NEXT_STATE_TASKS:
        return f"{where} · the model's task is {view.run.config.task}, not one step"
    if prediction is None:
        return f"{where} · the model is loading"
    right = bool(prediction.right[view.step])
    return f"{where} · predicted **{'right ✓' if right else 'wrong ✗'}**, {certainty(prediction.p_state[view.step])}"


def certainty(p: float) -> str:
    """A probability with two digits, never rounded to 0 or 1."""
    return "p > 0.99" if p >= 0.995 else "p < 0.01" if p < 0.005 else f"p = {p:.2f}"


def show_status(view: View) -> None:
    """Where we are, as a line over the pages that are about something else."""
    try:
        prediction = predicted(view)
    except RunError:  # the page that needs the model says so
        prediction = None
    line = status(view, prediction)
    st.caption(line.removesuffix(" · the model is loading"))


def describe_model(run: Run) -> str:
    """ "4 layers × 4 heads", as far as the architecture has them."""
    cfg = run.config.model
    heads = getattr(cfg, "n_heads", None)
    return f"{cfg.n_layers} layers" + (f" × {heads} heads" if heads else "")


def describe_run(run: Run) -> str:
    """What the numbers on the pages belong to: run, task, machine, weights, and how good the model is."""
    spec = run.config.spec
    parts = [
        f"Run {run.name}: task {run.config.task}",
        f"a machine of {spec.n_instructions} instructions and {spec.n_cells} cells of 0 to {spec.max_value}",
        f"config {run.config.digest}",
    ]
    try:
        parts.append(f"weights of step {run.step:,}")
        metrics = run_access.frame(run, "metrics")
    except RunError:
        return " · ".join(parts)
    macro = select(metrics, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
    final = [row for row in records(macro) if row["checkpoint_step"] == run.step]
    if final:
        best = max(final, key=lambda row: row["n"])
        parts.append(f"exact match {best['estimate']:.2%} (mean over op × outcome, {best['n']:,} held-out states)")
    return " · ".join(parts)


def show_calibration(methods: Iterable[str]) -> None:
    """What each method scores on models whose mechanism is known; nothing for methods that were not calibrated."""
    for method in methods:
        if phrase := score(method):
            st.caption(f"On models with hand-set weights, whose mechanism is known, {method}: {phrase}.")


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
