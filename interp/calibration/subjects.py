"""The models that methods are calibrated on: one machine, compiled with one kind of disguise at a time.

All are exact: a model that errs on `N_CHECKED` held-out states is refused. They execute the machine of the quickstart
preset, so that a method's score stands beside its results on a trained model of the same task, machine and graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from interp.compiled.build import Compiled, compile_model
from interp.compiled.config import NoiseConfig
from interp.compiled.held_tape import Addressing, HeldTape, compile_held_tape
from interp.tasks import Batch, Trace
from interp.tasks.options import StreamOptions
from interp.training.presets import SMALL_MACHINE
from interp.worlds.machine import MachineSpec

N_CHECKED = 500


@dataclass(frozen=True)
class Setting:
    """How a model of the calibration is compiled."""

    words: str  # for the table
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    sharpness: float = 12.0  # nats by which the key attended to outscores every other


SETTINGS: dict[str, Setting] = {
    "clean": Setting("one feature a coordinate"),
    "rotated": Setting("the residual stream in a random basis", NoiseConfig(rotate=True)),
    "distracted": Setting(
        "rotated; two heads and 16 neurons a layer that write where nothing reads",
        NoiseConfig(rotate=True, distractor_heads=2, distractor_neurons=16),
    ),
    "superposed": Setting(
        "rotated; two values of a variable share a dimension wherever gates alone read it",
        NoiseConfig(rotate=True, antipodal=True),
    ),
    "redundant": Setting(
        "rotated; op and array_ptr written by two heads each, either of which will do",
        NoiseConfig(rotate=True, redundant=("op", "array_ptr")),
    ),
    "soft": Setting("rotated; attention barely sharp enough", NoiseConfig(rotate=True), sharpness=5.0),
    "saturated": Setting("rotated; attention twice as sharp", NoiseConfig(rotate=True), sharpness=24.0),
}


# Recurrent interpreters of `trace`, for what is asked of a state.
TAPES: dict[str, Addressing] = {"absolute_tape": "absolute", "relative_tape": "relative"}
TAPE_WORDS = {
    "absolute_tape": "an LSTM that keeps each cell at a place of its own, and the pointer as a counter",
    "relative_tape": "an LSTM that shifts the tape as the pointer moves, and keeps no pointer",
}
_TAPE_MACHINE = MachineSpec(n_instructions=24, n_cells=4, n_input=6, n_output=24, bits=3)


@dataclass(frozen=True, eq=False)
class Subject:
    """A compiled model under calibration."""

    name: str
    setting: Setting
    compiled: Compiled

    @property
    def model(self) -> Any:
        return self.compiled.model

    @property
    def key(self) -> Any:
        """What is known of it."""
        return self.compiled.key

    @property
    def task(self) -> Any:
        return self.compiled.form.task


@dataclass(frozen=True, eq=False)
class TapeSubject:
    """A recurrent interpreter under calibration."""

    name: str
    key: HeldTape

    @property
    def model(self) -> Any:
        return self.key.model

    @property
    def task(self) -> Any:
        return self.key.task


def compile_tape(name: str) -> TapeSubject:
    """One of TAPES.

    Raises:
        ValueError: an unknown name, or a model that does not answer every stream as the machine does.
    """
    if name not in TAPES:
        raise ValueError(f"no recurrent calibration model {name!r}; there are {', '.join(TAPES)}")
    task = Trace(_TAPE_MACHINE, StreamOptions(n_steps=24))
    tape = compile_held_tape(task, TAPES[name])
    batch = task.sample(N_CHECKED, seed=0)
    with torch.no_grad():
        said = tape.model(batch.tokens).argmax(-1)
    if wrong := int(((said != batch.targets) & batch.loss_mask).any(1).sum()):
        raise ValueError(f"the calibration model {name!r} errs on {wrong} of {N_CHECKED} streams")
    return TapeSubject(name, tape)


def compile_subject(name: str, spec: MachineSpec = SMALL_MACHINE) -> Subject:
    """Compile a setting for a machine.

    Raises:
        ValueError: an unknown setting, or a model that does not take every step as the machine does.
    """
    if name not in SETTINGS:
        raise ValueError(f"no calibration model {name!r}; there are {', '.join(SETTINGS)}")
    setting = SETTINGS[name]
    compiled = compile_model(spec, noise=setting.noise, sharpness=setting.sharpness)
    task = compiled.form.task
    batch = task.sample(N_CHECKED, seed=0, weights=task.strata_weights("op_outcome"))
    wrong = int(np.sum(~_exact(compiled, batch)))
    if wrong:
        raise ValueError(f"the calibration model {name!r} errs on {wrong} of {N_CHECKED} states; methods need it exact")
    return Subject(name, setting, compiled)


def _exact(compiled: Compiled, batch: Batch) -> np.ndarray:
    task = compiled.form.task
    with torch.no_grad():
        answers = task.next_state_logits(compiled.model(batch.tokens)).argmax(-1)
    return task.exact(answers, task.world.step(batch.examples).next)
