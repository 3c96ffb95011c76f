"""The memory of a slot machine step by step, the world's and the model's, and both with one content set by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app import examples_view
from app.run_access import LoadedModel

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Setting:
    """A content set to a value before a step, from 0."""

    step: int
    slot: int
    value: int


@dataclass(frozen=True, eq=False)
class Memories:
    """One run: memories as `cython_vm.slots` lays them out."""

    true: Ints  # [step + 1, width], the world's, before the first step and after each
    model: Ints  # [step + 1, width], the model's likeliest
    p: NDArray[np.float64]  # [step + 1, slot], of the model's likeliest kind, pointers and content together
    answer: tuple[int, ...]  # the model's
    truth: tuple[int, ...]  # the world's


@dataclass(frozen=True)
class Changed:
    """The answers after a setting."""

    model: tuple[int, ...]
    truth: tuple[int, ...]  # the world's, whose memory was set so too; () where its run then never halts


def answer_of(task: Any, row: Ints) -> tuple[int, ...]:
    """What the answer's slots hold in a memory."""
    return tuple(int(each) for each in task.world.program.contents(row[None])[0])


@st.cache_data(show_spinner=False, max_entries=32)
def memories(_loaded: LoadedModel, key: str, number: int) -> Memories:
    """Example `number`, run as it is."""
    import torch

    task, model = _loaded.run.task, _loaded.run.model
    batch = examples_view.shown_example(task, _loaded.run, number).batch
    n = min(int(task.n_steps(batch)[0]), model.cfg.max_steps)
    true = task.trace(batch, n)[0].numpy()
    kept: dict[str, torch.Tensor] = {}

    def keep(value: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = value.detach()[0]

    hooks = [(name, keep) for name in ("hook_pc", "hook_registers", "hook_memory")]
    with _loaded.lock, torch.no_grad():
        start = _started(model, task, batch)
        executed = model.run_with_hooks(
            batch.tokens, memory=_given(model, task, batch), returned="run", n_steps=n, fwd_hooks=hooks
        )
    slots = model.cfg.n_slots
    parts = kept["hook_memory"].split([len(_kinds()), slots, slots, slots, model.cfg.n_values], dim=-1)
    tops = [part.max(dim=-1) for part in parts]  # of kind, next, left, right, content, [step, slot]
    fields = torch.cat([top.indices for top in tops], dim=-1)
    carry, free = (part.argmax(-1) for part in kept["hook_registers"].split([2, slots], dim=-1))
    pc = torch.cat([kept["hook_pc"].argmax(-1)[1:], executed.final.pc[0].argmax(-1)[None]])
    after = torch.cat([fields, torch.stack([pc, carry, free], dim=-1)], dim=-1).numpy()
    p = torch.stack([top.values for top in tops]).prod(0).double().numpy()
    said = _said(model, task, batch)
    first, sure = start
    return Memories(
        true, np.concatenate([first[None], after]), np.concatenate([sure[None], p]), said, answer_of(task, true[-1])
    )


@st.cache_data(show_spinner=False, max_entries=32)
def changed(_loaded: LoadedModel, key: str, number: int, setting: Setting) -> Changed:
    """The answers of world and model with one content set before a step; both go on from there."""
    import torch

    from cython_vm import slots as machine
    from interp.models.slot_memory import N_KINDS

    task, model = _loaded.run.task, _loaded.run.model
    batch = examples_view.shown_example(task, _loaded.run, number).batch
    spec, world, column = task.world.spec, task.world, task.world.spec.column("content", setting.slot)
    row = task.trace(batch, setting.step)[0, -1].numpy().copy()
    row[column] = setting.value
    ended = machine.run(spec, row[None], world.limit)
    truth = answer_of(task, ended.final[0]) if int(ended.n_steps[0]) < world.limit else ()
    first = N_KINDS + 3 * model.cfg.n_slots

    def put(value: torch.Tensor, hook: Any) -> torch.Tensor:
        value = value.clone()
        value[:, setting.step - 1, setting.slot, first:] = 0
        value[:, setting.step - 1, setting.slot, first + setting.value] = 1
        return value

    with _loaded.lock, torch.no_grad():
        if setting.step:
            said = _said(model, task, batch, hooks=[("hook_memory", put)])
        else:
            memory, _ = _started(model, task, batch)
            memory[column] = setting.value
            said = _said(model, task, batch, memory=torch.from_numpy(memory)[None])
    return Changed(said, truth)


def _kinds() -> tuple[str, ...]:
    from interp.worlds.slots_tables import KINDS

    return tuple(KINDS)


def _given(model: Any, task: Any, batch: Any) -> Any:
    """The memory that a model which is given its plan runs; None where it plans."""
    return task.memories(batch) if model.cfg.plan_given else None


def _started(model: Any, task: Any, batch: Any) -> tuple[Ints, NDArray[np.float64]]:
    """The memory before the first step, the likeliest of what is planned, and how likely each slot is."""
    import torch

    if model.cfg.plan_given:
        return task.memories(batch)[0].numpy(), np.ones(model.cfg.n_slots)
    plan = model(batch.tokens, returned="plan")
    kinds, contents, free = (each[0].softmax(-1).max(-1) for each in (plan.kinds, plan.contents, plan.free))
    pointers = plan.pointers[0].softmax(-1).max(-1)
    row = torch.cat(
        [kinds.indices, pointers.indices.flatten(), contents.indices, torch.tensor([1, 0, int(free.indices)])]
    )
    p = kinds.values * contents.values * pointers.values.prod(0)
    return row.numpy().astype(np.int64), p.double().numpy()


def _said(model: Any, task: Any, batch: Any, *, memory: Any = None, hooks: Any = ()) -> tuple[int, ...]:
    """The model's answer, from its own run."""
    given = _given(model, task, batch) if memory is None else memory
    logits = model.run_with_hooks(batch.tokens, memory=given, fwd_hooks=list(hooks))
    return tuple(int(each) for each in logits[0, task.answer_positions].argmax(-1))
