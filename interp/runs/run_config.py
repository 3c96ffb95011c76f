"""What a run is made of: task, world, model, training; and the digest that says whether two runs were meant alike."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.configuration import config_dict
from interp.worlds import World, as_world, world_from_dict

if TYPE_CHECKING:
    from interp.runs.training_config import DataSource, StartingPoint, TrainingConfig

NEXT_STATE_TASKS = ("step_inplace", "step")  # those that declare `answers_state`
STREAM_TASKS = ("trace",)  # those that declare `tells_stream`
WRITING_TASKS = ("scratchpad",)  # those that declare `writes`


@dataclass(frozen=True)
class RunConfig:
    """What a run is made of; two runs with the same digest were meant to be the same."""

    task: str
    world: World  # or a MachineSpec, which stands for its machine
    model: Any  # the config of one of MODELS
    training: TrainingConfig
    data: DataSource | None = None  # None: records are drawn from the world as training goes
    options: Any = None  # of the task, an instance of its `Options`; None: its defaults
    start: StartingPoint | None = None  # None: from random weights

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", as_world(self.world))

    @property
    def spec(self) -> Any:
        """The machine of a run about the machine. Raises AttributeError where the world is another."""
        return self.world.spec  # type: ignore[attr-defined]

    @property
    def seed(self) -> int:
        return self.training.seed

    @property
    def answers_state(self) -> bool:
        """`Task.answers_state`, without the task's module, which imports torch."""
        return self.task in NEXT_STATE_TASKS

    @property
    def tells_stream(self) -> bool:
        """`Task.tells_stream`, as above."""
        return self.task in STREAM_TASKS

    @property
    def writes(self) -> bool:
        """`Task.writes`, as above."""
        return self.task in WRITING_TASKS

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready nested dict of every field."""
        values = {
            "task": self.task,
            **_world_dict(self.world),
            "model": config_dict(self.model),
            "training": config_dict(self.training),
        }
        if self.data is not None:
            values["data"] = dataclasses.asdict(self.data)
        if self.options is not None and (options := config_dict(self.options)):
            values["options"] = options
        if self.start is not None:
            values["start"] = dataclasses.asdict(self.start)
        return values

    @property
    def digest(self) -> str:
        """16 hex digits that identify the config (SHA-256 of its canonical JSON, the places of its data, of its
        text and of the run it starts from left out)."""
        values = self.to_dict()
        if "world" in values:
            values["world"] = {"name": self.world.name, **self.world.identity()}
        if self.data is not None:
            values["data"] = self.data.digest
        if self.start is not None:
            values["start"] = [self.start.digest, self.start.step]
        canonical = json.dumps(values, sort_keys=True, default=list)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunConfig:
        """Rebuild from `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a field is missing, unknown or out of range.
        """
        from interp.models import config_class
        from interp.runs.training_config import DataSource, StartingPoint, TrainingConfig

        return cls(
            task=values["task"],
            world=world_of(values),
            model=config_class(values["model"].get("architecture", "transformer"))(**values["model"]),
            training=TrainingConfig.from_dict(values["training"]),
            data=DataSource(**values["data"]) if "data" in values else None,
            options=_options(values["task"], values["options"]) if "options" in values else None,
            start=StartingPoint(**values["start"]) if "start" in values else None,
        )


def _world_dict(world: World) -> dict[str, Any]:
    """The machine stands under the key `spec`, as in runs made before there were other worlds."""
    settings = world.to_dict()
    return {"spec": settings} if world.name == "machine" else {"world": {"name": world.name, **settings}}


def world_of(values: Mapping[str, Any]) -> World:
    """The world of what `RunConfig.to_dict` gave. Raises as `world_from_dict`."""
    return world_from_dict(values["world"] if "world" in values else {"name": "machine", **values["spec"]})


def _options(task: str, values: dict[str, Any]) -> Any:
    from interp.tasks.options import OPTIONS

    if task not in OPTIONS:
        from interp.tasks.registry import TASKS

        return TASKS[task].Options(**values)
    return OPTIONS[task](**values)
