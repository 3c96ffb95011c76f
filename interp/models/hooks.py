"""When a hook point is worth computing for."""

from __future__ import annotations

from torch import nn
from transformer_lens.hook_points import HookPoint


def live(*hook_points: nn.Module) -> bool:
    """Whether anything listens at one of these hook points (or modules), forward or backward, be it PyTorch's own hook.

    A fast fused kernel hides its intermediate values. It is used exactly when nobody listens to them.
    """
    for point in hook_points:  # a loop over dicts: asked some hundred times a pass, so it must cost next to nothing
        if point._forward_hooks or point._forward_pre_hooks or point._backward_hooks or point._backward_pre_hooks:
            return True
    return False


def only_read(hook_point: HookPoint) -> bool:
    """Whether all that listens at a hook point is of this package and changes nothing: caches (`reads_only`)."""
    handles = hook_point.fwd_hooks
    if len(handles) != len(hook_point._forward_hooks) or hook_point._forward_pre_hooks:
        return False
    return all(getattr(handle.user_hook, "reads_only", False) for handle in handles)


def live_backward(*hook_points: HookPoint) -> bool:
    """Whether anything listens to the gradients at one of these hook points."""
    return any(point._backward_hooks or point._backward_pre_hooks for point in hook_points)


def listened_to(model: nn.Module) -> bool:
    """Whether anything listens to a pass through the model, at a hook point or at any other module."""
    return live(*model.modules())
