"""What methods ask of a model: the axes and the layer of a hook, the residual stream, whether layers can be entered.

Models of this house declare these facts (`interp.models.facts`). A plain HookedRootModule declares none; for it, and
here alone, they are taken from TransformerLens's names: attention scores and patterns are [batch, head, query_pos,
key_pos], what heads read and write is [batch, pos, head, …], anything else is [batch, pos, …] without heads; layers
are `blocks.{l}.`; layers can be entered where there is a `blocks.0.hook_resid_pre`.
"""

from __future__ import annotations

import re
from typing import Any

import torch

_LAYER = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_OF_PAIRS = ("hook_attn_scores", "hook_pattern")
_OF_HEADS = (
    *("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k", "hook_z", "hook_result"),
    *("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input"),
)
_FIRST = "blocks.0.hook_resid_pre"


def axes_of(model: Any, hook: str) -> tuple[str, ...]:
    """Names of the axes of the activation at a hook; of a model that declares none, as far as names tell.

    Raises:
        ValueError: the model has no such hook.
    """
    require_hook(model, hook)
    if hasattr(model, "axes"):
        return model.axes(hook)
    if hook.endswith(_OF_PAIRS):
        return ("batch", "head", "query_pos", "key_pos")
    return ("batch", "pos", "head", "d_head") if hook.endswith(_OF_HEADS) else ("batch", "pos", "d_model")


def layer_of(model: Any, hook: str) -> int | None:
    """The layer that a hook belongs to, from 0; None outside the layers."""
    if hasattr(model, "layer_of"):
        return model.layer_of(hook)
    match = _LAYER.search(hook)
    return None if match is None else int(match[1])


def within_layer(hook: str) -> str:
    """A hook's name inside its layer: "attn.hook_z" of "blocks.1.attn.hook_z"; outside the layers the whole name."""
    match = _LAYER.search(hook)
    return hook if match is None else hook[match.end() :]


def residual_hooks(model: Any) -> tuple[str, ...]:
    """The residual stream before the first layer and after each; () where there is none."""
    if hasattr(model, "residual_hooks"):
        return model.residual_hooks()
    layers = range(n_layers(model) or 0)
    names = (_FIRST, *(f"blocks.{layer}.hook_resid_post" for layer in layers))
    return names if all(name in model.hook_dict for name in names) else ()


def stream_hooks(model: Any) -> tuple[str, ...]:
    """Where a model is swapped at first: its residual stream, or what each step of a loop hands to the next."""
    return residual_hooks(model) or (model.step_hooks() if hasattr(model, "step_hooks") else ())


def can_enter_layers(model: Any) -> bool:
    """Whether forward takes start_at_layer and stop_at_layer."""
    if hasattr(model, "can_enter_layers"):
        return bool(model.can_enter_layers)
    return _FIRST in model.hook_dict


def n_layers(model: Any) -> int | None:
    """How many layers the model has; None where its configuration does not say."""
    return getattr(getattr(model, "cfg", None), "n_layers", None)


def device_of(model: Any) -> torch.device:
    """Where the model's parameters are; the CPU where it has none."""
    first = next(iter(model.parameters()), None)
    return torch.device("cpu") if first is None else first.device


def require_hook(model: Any, hook: str) -> None:
    """Raise ValueError unless the model has the hook."""
    if hook not in model.hook_dict:
        raise ValueError(f"the model has no hook {hook!r}")


def position_axis(axes: tuple[str, ...], hook: str) -> int:
    """The axis that positions are counted along: `pos`, or `query_pos` where there are two.

    Raises:
        ValueError: the activation has neither.
    """
    for axis, name in enumerate(axes):  # of one side of a model with two: prompt_pos, answer_query_pos
        if name.endswith("pos") and not name.endswith("key_pos"):
            return axis
    raise ValueError(f"the activation at {hook} has no axis of positions; its axes are {', '.join(axes)}")


def first_position(model: Any, hook: str) -> int:
    """The position of a record that the first entry of a hook's activation is about: 0, but on a further side."""
    return model.first_position(hook) if hasattr(model, "first_position") else 0


def head_axis(axes: tuple[str, ...], hook: str) -> int:
    """The axis of heads. Raises ValueError where the activation has none."""
    if "head" not in axes:
        raise ValueError(
            f"a head can be named where the activation has an axis of heads; at {hook} its axes are {', '.join(axes)}"
        )
    return axes.index("head")
