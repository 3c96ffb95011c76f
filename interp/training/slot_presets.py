"""The named runs of the slot machine: a controller that learns to write plans, and an ALU that learns from answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.configuration import config_dict
from interp.models.slot_machine_config import SlotMachineConfig
from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.tasks import TASKS
from interp.training.presets import transformer_for
from interp.worlds.slots import SlotWorld

# Indices of an array's slots are scattered over so many in training, so that those of longer arrays are learned.
_TABLE = 64
_TRAINING = TrainingConfig(
    steps=2000,
    batch_size=64,
    muon_lr=0.01,
    eval_every=250,
    eval_states=500,
    ema_decay=0.998,
    steps_along=0,
    balance="natural",
    threads=1,
    validation=True,
)


def slot_machine_for(world: SlotWorld, *, seed: int = 0, scattered: bool = True, **changes: Any) -> SlotMachineConfig:
    """The slot machine that suits a world: as many slots and steps as its program has. `changes`: its other fields."""
    sizes: dict[str, Any] = {"n_layers": 3, "n_heads": 4, "d_model": 48}
    sizes |= {name: changes.pop(name) for name in ("n_layers", "n_heads", "d_model", "d_mlp") if name in changes}
    like = transformer_for("slots", world, seed=seed, **sizes)
    if scattered:
        like = replace(like, index_table_size=_TABLE, rotary_dim=0)  # positions in the sequence say nothing
    own = {
        "architecture": "slot_machine",
        "n_slots": world.spec.n_slots,
        "base": world.spec.base,
        "n_values": world.spec.n_values,
        "max_steps": world.longest_run,
    }
    return SlotMachineConfig(**(config_dict(like) | own | changes))


def resized_for(cfg: SlotMachineConfig, world: SlotWorld) -> SlotMachineConfig:
    """The same machine for a world of another size: its memory, its positions and its steps."""
    task = TASKS["slots"](world)
    return replace(
        cfg.as_written,
        n_ctx=task.n_ctx,
        position_roles=task.position_roles,
        position_indices=task.position_indices,
        n_slots=world.spec.n_slots,
        max_steps=world.longest_run,
    )


def _planned(program: str, size: int, *, form: str = "looped", steps: int = 2000, **model: Any) -> RunConfig:
    """A controller that learns the plan of a program, slot by slot."""
    world = SlotWorld(program=program, size=size, form=form)
    return RunConfig("slots", world, slot_machine_for(world, **model), replace(_TRAINING, steps=steps))


SLOTS_ADD = _planned("add", 5)
SLOTS_ADD_STRAIGHT = _planned("add", 5, form="straight")
# Elements that point to the one before them need pointers that know what "the one before" is: of four values, two lie
# between the first and the last, from which "the one before" could as well be "the other one".
SLOTS_SORT = _planned("sort", 4, steps=400, pointer_reach=1)
SLOTS_SEARCH = _planned("search", 8, steps=600)
SLOTS_STRINGS = _planned("reverse", 8, steps=400, pointer_reach=1)


def _alu() -> RunConfig:
    """The plan is given; the operators on contents are learned from final answers alone, by soft execution."""
    world = SlotWorld(program="add", size=2, form="straight")
    learned = {
        "alu": "learned",
        "d_alu": 512,
        "execution": "soft",
        "plan_given": True,
        "plan_weight": 0.0,
        "answer_weight": 1.0,
    }
    model = slot_machine_for(world, n_layers=1, n_heads=1, d_model=8, **learned)
    training = replace(_TRAINING, steps=2000, optimizer="adamw", adamw_lr=3e-3, weight_decay=0.0)
    return RunConfig("slots", world, model, training)


SLOTS_ALU = _alu()
