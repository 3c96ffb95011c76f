"""Sharing a run: which of its files go to a hub of models, the card that stands there, and sending them."""

from interp.sharing.plan import PushPlan, SharedFile, plan_push
from interp.sharing.push import push

__all__ = ["PushPlan", "SharedFile", "plan_push", "push"]
