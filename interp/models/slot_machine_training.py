"""What a slot machine learns from: the plan slot by slot, the executed trace, the final answer, or any mix of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.architecture import Architecture
from interp.models.slot_machine import Plan, SlotMachine
from interp.models.slot_machine_config import SlotMachineConfig

_LEAST = 1e-6


def objective(model: Any, task: Any, batch: Any, generator: torch.Generator) -> Tensor:
    """The weighted sum of the losses that the configuration asks for, a scalar, in nats a field.

    The plan's loss needs no execution. The trace's is the cross-entropy of contents and counter after every step of
    the symbolic run; the answer's that of the task. Both run the controller's plan, or with `plan_given` the true one.
    """
    cfg: SlotMachineConfig = getattr(model, "module", model).cfg
    memory = task.memories(batch)  # long [batch, width]
    device = batch.tokens.device
    loss = torch.zeros((), device=device)
    if not cfg.trace_weight and not cfg.answer_weight:
        return cfg.plan_weight * plan_loss(model(batch.tokens, returned="plan"), memory.to(device))
    n_steps = min(cfg.max_steps, int(task.n_steps(batch).max()))
    detach = max(0, n_steps - cfg.backprop_steps) if cfg.backprop_steps else 0
    given = {"memory": memory.to(device)} if cfg.plan_given else {}
    run = model(batch.tokens, returned="run", n_steps=n_steps, detach_before=detach, **given)
    if cfg.plan_weight and run.plan is not None:
        loss = loss + cfg.plan_weight * plan_loss(run.plan, memory.to(device))
    if cfg.trace_weight:
        loss = loss + cfg.trace_weight * trace_loss(run.trace, task.trace(batch, n_steps).to(device), cfg)
    if cfg.answer_weight:
        held = F.pad(run.final.contents, (0, cfg.d_vocab - cfg.n_values))
        before = held.new_zeros(len(held), cfg.n_ctx - cfg.n_slots, cfg.d_vocab)
        logits = torch.cat([before, held.clamp(min=_LEAST).log()], dim=1)
        loss = loss + cfg.answer_weight * task.loss(logits.float(), batch)
    return loss


def plan_loss(plan: Plan, memory: Tensor) -> Tensor:
    """Mean cross-entropy of a plan's fields, the kind, content and three pointers of each slot, and of the free list.

    Args:
        plan: logits.
        memory: long [batch, 5 * slots + 3], the true one.
    """
    s = plan.kinds.shape[1]
    kinds, following, left, right, contents, registers = memory.split([s, s, s, s, s, 3], dim=1)
    losses = [
        F.cross_entropy(plan.kinds.flatten(0, 1).float(), kinds.flatten()),
        F.cross_entropy(plan.contents.flatten(0, 1).float(), contents.flatten()),
        F.cross_entropy(plan.free.float(), registers[:, 2]) / s,
        *(
            F.cross_entropy(plan.pointers[:, place].flatten(0, 1).float(), each.flatten())
            for place, each in enumerate((following, left, right))
        ),
    ]
    return torch.stack(losses).sum()


def trace_loss(trace: dict[str, Tensor], states: Tensor, cfg: SlotMachineConfig) -> Tensor:
    """Mean negative log-probability of the symbolic contents and counter, nats.

    Args:
        trace: of a run, [batch, step, …]: hook_memory's is after each step, hook_pc's before it.
        states: long [batch, steps + 1, width], the symbolic run.
        cfg: for its sizes.
    """
    s = cfg.n_slots
    contents, pc = states[:, 1:, 4 * s : 5 * s], states[:, :-1, 5 * s]
    held = trace["memory"][..., -cfg.n_values :].gather(-1, contents[..., None])[..., 0]
    at = trace["pc"].gather(-1, pc[..., None])[..., 0]
    return -((held + _LEAST).log().mean() + (at + _LEAST).log().mean())


def suits(task: Any) -> str | None:
    """Whether the task says what memory does it; the sentence that says why not, or None."""
    if getattr(task, "has_plan", False):
        return None
    return f"a slot machine is written a memory that does the task; the task {task.name} has none"


SLOT_MACHINE_ARCHITECTURE = Architecture(
    config=SlotMachineConfig,
    build=SlotMachine,
    words="A transformer that writes a program and its data into slots of memory, which a differentiable machine runs.",
    suits=suits,
    objective=objective,
)
