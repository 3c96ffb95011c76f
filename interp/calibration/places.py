"""What the answer key says of the places that sweeps visit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.compiled.key import AnswerKey, Carrier
from interp.tasks import Batch
from interp.tasks.machine_task import NextStateTask
from interp.tasks.sites import block_slots

Cell = tuple[str, str, str]  # variable, hook, position


@dataclass(frozen=True)
class Place:
    """What the answer key says of a cell."""

    live: bool
    in_window: bool
    basis: Tensor | None  # of the true subspace, where live


def true_places(key: AnswerKey, task: NextStateTask, variables: Sequence[str], batch: Batch) -> dict[Cell, Place]:
    """What is known of every cell of the default sweep; cells that are neither live nor not are absent."""
    residual = [hook for hook in key.hooks if not hook.endswith("resid_mid")]
    found: dict[Cell, Place] = {}
    for name in variables:
        carriers = key.variables[name].carriers if name in key.variables else ()
        read = [carrier for carrier in carriers if carrier.last >= carrier.first]
        for hook in residual:
            point = key.hooks.index(hook)
            window = bool(read) and min(c.first for c in read) <= point <= max(c.last for c in read)
            here = [carrier for carrier in read if carrier.first <= point <= carrier.last]
            for position in task.probe_places():
                at = task.resolve(position, batch)[:, 0]
                shares = [_held(carrier, at, task, batch) for carrier in here]
                if any(share == 1.0 for share in shares):
                    carrier = here[shares.index(1.0)]
                    found[name, hook, position] = Place(True, window, key.basis(carrier.place))
                elif not any(shares):
                    found[name, hook, position] = Place(False, window, None)
    return found


def _held(carrier: Carrier, at: Tensor, task: NextStateTask, batch: Batch) -> float:
    """Share of states in which this position holds the variable; one half where it holds it with others only."""
    rows = standing(task, carrier.place.positions, batch)
    at = at[torch.from_numpy(rows)]
    held = task.resolve(carrier.place.positions, batch[rows])
    share = float((held == at[:, None]).any(1).float().mean())
    together = carrier.place.space in ("token", "answer") and held.shape[1] > 1
    return 0.5 if together and share else share


def standing(task: NextStateTask, positions: str, batch: Batch) -> np.ndarray:
    """The rows in which every slot that the set points to exists; a full output has no first empty slot."""
    keep = np.ones(len(batch), dtype=bool)
    for block, pointer in re.findall(r"(\w+)\[@(\w+)\]", positions):
        values = task.world.read(batch.examples, pointer)
        keep &= (values >= 0) & (values < len(block_slots(task.position_names, block)))
    return np.flatnonzero(keep)
