"""A named run asked of another architecture or task: the same world and training, the model that suits both."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from interp.models import TransformerConfig, config_class
from interp.registry import Registry
from interp.runs import RunConfig
from interp.tasks import TASKS
from interp.tasks.options import TaskOptions
from interp.training.overrides import overridden
from interp.training.presets import model_for, transformer_for
from interp.worlds import World, as_world


def filled_in_for(
    task_name: str, world: Any, architecture: str, *, options: Any = None, seed: int = 0, **sizes: Any
) -> Any:
    """The config of an architecture that tells a prompt from the answer behind it, otherwise as `transformer_for`.

    Raises:
        ValueError: the task does not say where its prompt ends.
    """
    config, task = config_class(architecture), TASKS[task_name](as_world(world), options)
    n_prompt = getattr(getattr(task, "prompt_positions", None), "stop", None)
    if n_prompt is None or n_prompt >= task.n_ctx:
        raise ValueError(
            f"the architecture {architecture} needs a prompt and an answer behind it; {task_name} has none"
        )
    shared = {each.name for each in fields(TransformerConfig)}
    own = {name: sizes.pop(name) for name in set(sizes) - shared}
    like = transformer_for(task_name, world, options=options, seed=seed, **sizes)
    known = {each.name for each in fields(config)} - {"architecture", "attention_dir"}
    alike = {name: getattr(like, name) for name in shared & known}
    return config(**alike, n_prompt=n_prompt, **own)


# How the config of an architecture is made for a task; any other: `model_for`, from its vocabulary and sizes alone.
BUILDERS: Registry[Callable[..., Any]] = Registry(
    "architecture",
    {
        "transformer": "interp.training.presets:transformer_for",
        "looped": "interp.training.presets:looped_for",
        "encoder_decoder": "interp.training.rebuilt:filled_in_for",
        "masked_diffusion": "interp.training.rebuilt:filled_in_for",
        "diffusion_lm": "interp.training.rebuilt:filled_in_for",
    },
)


def rebuilt(
    config: RunConfig,
    world: World,
    *,
    task: str | None = None,
    architecture: str | None = None,
    training: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The run with another task or architecture, and with some fields changed as by `overridden`.

    Where either is another than the run's, the model is made anew for the pair from `model` alone: nothing of the old
    one's sizes goes over. A new task starts from its own options.

    Raises:
        ValueError: no such task or architecture, a field that there is not, or a value out of range.
    """
    model, options = dict(model or {}), dict(options or {})
    task, kind = task or config.task, architecture or config.model.architecture
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
    if task != config.task or kind != config.model.architecture:
        chosen = config.options if task == config.task else None
        if options:
            chosen = TaskOptions(**(vars(chosen or TaskOptions()) | options))
        bound = TASKS[task](world, chosen)
        own = bound.options if chosen is not None else None
        build = BUILDERS.get(kind, model_for)
        known = inspect.signature(build).parameters
        open_to_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in known.values())
        sizes = {name: value for name, value in model.items() if open_to_all or name in known}
        named = {"architecture": kind} if "architecture" in known else {}
        built = build(task, world, options=own, seed=config.seed, **named, **sizes)
        config = replace(config, task=task, world=world, model=built, options=own)
    return overridden(config, world, training=dict(training or {}), model=model, options=options)
