"""Any field of a named run, changed from the command line: `--training.batch-size 64 --model.d-model 96`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro

from interp.models.config import MultiTokenConfig, TransformerConfig
from interp.models.looped_config import LoopedConfig
from interp.models.slot_machine_config import SlotMachineConfig
from interp.models.state_configs import STATE_CONFIGS
from interp.models.window_config import WINDOW_CONFIGS
from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.tasks.options import TaskOptions
from interp.worlds import World

_MEMORY = ("n_slots", "base", "n_values", "max_steps")  # the sizes of a memory of slots, and of its runs
_TASKS_OWN = (
    "d_vocab",
    "n_ctx",
    "position_roles",
    "position_indices",
    *_MEMORY,
)  # what the task and the machine decide
_FROM_SIZES = ("d_model", "n_heads")  # where one of these is given, fields whose default is -1 are derived anew
_OF_POSITIONS = ("index_init", "index_table_size", "position_range", "rotary_dim", "rotary_base")
_AS_IS = "preset"  # what a field that is not given says; None would be a value, of model.normalization_type


def _overrides_of(*configs: type, leave_out: Sequence[str] = ()) -> type:
    """A dataclass with the fields of all of `configs`, each "preset" unless given, with the help of the first that has
    it; where types differ between them, any of them is taken."""
    types: dict[str, Any] = {}
    help_texts: dict[str, str] = {}
    for config in configs:
        hints = get_type_hints(config)
        for name in (field.name for field in dataclasses.fields(config) if field.name not in leave_out):
            types[name] = types[name] | hints[name] if name in types else hints[name]
            help_texts.setdefault(name, _help_texts(config)[name])
    fields = []
    for name, hint in types.items():
        shown = tyro.conf.arg(help=help_texts[name], help_behavior_hint="")
        fields.append((name, Annotated[hint | Literal[_AS_IS], shown], dataclasses.field(default=_AS_IS)))
    return dataclasses.make_dataclass(f"{configs[0].__name__}Overrides", fields, frozen=True)


@cache  # asked for once a field, and reading a source takes milliseconds
def _help_texts(config: type) -> dict[str, str]:
    """What a dataclass's source says about each field: the string under it, or the comment behind it."""
    inherited = [_help_texts(base) for base in config.__bases__ if dataclasses.is_dataclass(base)]
    source = textwrap.dedent(inspect.getsource(config))
    lines, body = source.splitlines(), ast.parse(source).body[0].body  # type: ignore[attr-defined]
    texts = {name: text for texts in inherited for name, text in texts.items()}
    for statement, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        below = after.value if isinstance(after, ast.Expr) else None
        if isinstance(below, ast.Constant):
            texts[statement.target.id] = str(below.value)
        else:
            texts[statement.target.id] = lines[statement.lineno - 1].partition("#")[2].strip()
    return texts


if TYPE_CHECKING:

    @dataclasses.dataclass(frozen=True)
    class TrainingOverrides:
        """Every field of TrainingConfig, or "preset"."""

    @dataclasses.dataclass(frozen=True)
    class ModelOverrides:
        """Every field of some architecture's config that the task does not decide, or "preset"."""

    @dataclasses.dataclass(frozen=True)
    class OptionsOverrides:
        """Every field of TaskOptions, or "preset"."""

else:
    OptionsOverrides = _overrides_of(TaskOptions)
    TrainingOverrides = _overrides_of(TrainingConfig)
    _MODELS = (
        TransformerConfig,
        MultiTokenConfig,
        LoopedConfig,
        SlotMachineConfig,
        *STATE_CONFIGS,
        *WINDOW_CONFIGS,
    )
    ModelOverrides = _overrides_of(*_MODELS, leave_out=_TASKS_OWN)


def given(overrides: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in vars(overrides).items() if value != _AS_IS}


def overridden(
    config: RunConfig,
    world: World,
    *,
    training: dict[str, Any],
    model: dict[str, Any],
    options: dict[str, Any] | None = None,
) -> RunConfig:
    """The run on another machine, with some fields of its training, its model and its task's options changed.

    The model's seed follows the training's unless it is given. What a config derives from d_model and n_heads is
    derived anew where one of these is given.

    Raises:
        ValueError: a value is out of range or contradicts another.
    """
    from interp.tasks import TASKS

    trained = dataclasses.replace(config.training, **training)
    chosen = TaskOptions(**(vars(config.options or TaskOptions()) | options)) if options else config.options
    task = TASKS[config.task](world, chosen)
    known = {each.name: each for each in dataclasses.fields(config.model)}
    if unknown := [name for name in model if name not in known]:
        raise ValueError(
            f"the architecture {config.model.architecture} takes no --model.{unknown[0].replace('_', '-')}"
        )
    changes = {"d_vocab": len(task.vocab), "n_ctx": task.n_ctx, "seed": trained.seed} | model
    if any(name in model for name in _FROM_SIZES):
        changes = {name: -1 for name, each in known.items() if each.default == -1} | changes
    if getattr(config.model, "has_slots", False):
        spec: Any = world.spec  # type: ignore[attr-defined]
        sizes = (spec.n_slots, spec.base, spec.n_values, world.longest_run)  # type: ignore[attr-defined]
        changes = dict(zip(_MEMORY, sizes, strict=True)) | changes
    if getattr(config.model, "attention_chunk", 0):
        changes = {"attention_chunk": task.attention_chunk} | changes
    if "positional_embedding_type" in known:
        positions = changes.get("positional_embedding_type", config.model.positional_embedding_type)
        for name in ("position_roles", "position_indices"):
            changes[name] = getattr(task, name) if positions.startswith("block") else ()
        if positions != config.model.positional_embedding_type:  # what the preset says of its own positions goes
            changes = {name: known[name].default for name in _OF_POSITIONS if name in known} | changes
    changed = dataclasses.replace(config.model, **changes)
    kept = task.options if chosen is not None else None
    return dataclasses.replace(config, world=world, training=trained, model=changed, options=kept)


def world_from(world: World, changes: Sequence[str]) -> World:
    """The world with some settings changed, each given as NAME=VALUE. Raises ValueError on anything else."""
    values: dict[str, Any] = {}
    settings = world.settings()
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or name not in settings:
            raise ValueError(f"--machine takes NAME=VALUE with one of {', '.join(settings)}, got {change!r}")
        values[name] = {"true": True, "false": False}.get(value.lower(), int(value) if value.isdigit() else value)
    return world.changed(values) if values else world
