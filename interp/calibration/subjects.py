"""The models that methods are calibrated on: one machine, compiled with one kind of disguise at a time.

All are exact: a model that errs on `N_CHECKED` held-out states is refused. They execute the machine of the quickstart
preset, so that a method's score stands beside its results on a trained model of the same task, machine and graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from interp.compiled.build import Compiled, compile_model
from interp.compiled.config import NoiseConfig
from interp.tasks import Batch
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


@dataclass(frozen=True, eq=False)
class Subject:
    """A compiled model under calibration."""

    name: str
    setting: Setting
    compiled: Compiled


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
