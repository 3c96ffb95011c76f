"""What the answer key says of the places that sweeps visit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cython_vm import States, variable
from interp.compiled.key import AnswerKey, Carrier
from interp.interventions import resolve
from interp.probing import default_positions, residual_hooks
from interp.tasks import Task

Cell = tuple[str, str, str]  # variable, hook, position


@dataclass(frozen=True)
class Place:
    """What the answer key says of a cell."""

    live: bool
    in_window: bool
    basis: Tensor | None  # of the true subspace, where live


def true_places(key: AnswerKey, task: Task, variables: Sequence[str], states: States) -> dict[Cell, Place]:
    """What is known of every cell of the default sweep; cells that are neither live nor not are absent."""
    names = task.position_names
    found: dict[Cell, Place] = {}
    for name in variables:
        carriers = key.variables[name].carriers if name in key.variables else ()
        read = [carrier for carrier in carriers if carrier.last >= carrier.first]
        for hook in residual_hooks(key.n_layers):
            point = key.hooks.index(hook)
            window = bool(read) and min(c.first for c in read) <= point <= max(c.last for c in read)
            here = [carrier for carrier in read if carrier.first <= point <= carrier.last]
            for position in default_positions(task.spec):
                at = resolve(names, position, states)[:, 0]
                shares = [_held(carrier, at, task, states) for carrier in here]
                if any(share == 1.0 for share in shares):
                    carrier = here[shares.index(1.0)]
                    found[name, hook, position] = Place(True, window, key.basis(carrier.place))
                elif not any(shares):
                    found[name, hook, position] = Place(False, window, None)
    return found


def _held(carrier: Carrier, at: Tensor, task: Task, states: States) -> float:
    """Share of states in which this position holds the variable; one half where it holds it with others only."""
    rows = standing(carrier.place.positions, states)
    at, states = at[torch.from_numpy(rows)], states[rows]
    held = resolve(task.position_names, carrier.place.positions, states)
    share = float((held == at[:, None]).any(1).float().mean())
    together = carrier.place.space in ("token", "answer") and held.shape[1] > 1
    return 0.5 if together and share else share


def standing(positions: str, states: States) -> np.ndarray:
    """The rows in which every slot that the set points to exists; a full output has no first empty slot."""
    keep = np.ones(len(states), dtype=bool)
    for block, pointer in re.findall(r"(\w+)\[@(\w+)\]", positions):
        slots = states.spec.layout.slice(block)
        values = variable(states.spec, pointer).read(states)
        keep &= (values >= 0) & (values < slots.stop - slots.start)
    return np.flatnonzero(keep)
