"""When a hook point is worth computing for."""

from __future__ import annotations

from transformer_lens.hook_points import HookPoint


def live(*hook_points: HookPoint) -> bool:
    """Whether anything listens at one of these hook points, forward or backward.

    A fast fused kernel hides its intermediate values. It is used exactly when nobody listens to them.
    """
    return any(point.fwd_hooks or point.bwd_hooks for point in hook_points)
