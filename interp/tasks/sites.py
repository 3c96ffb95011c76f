"""Where to intervene: a hook, a named set of token positions, and perhaps one head.

A set of positions is written as one or more parts joined by "+":

    cells[3]                a slot
    array_ptr               a block, every slot of it, without its brackets
    cells[@array_ptr]       the slot of a block that a variable points to, in each state its own
    instruction_ptr.[       a bracket or brace, by its position name
    all                     every position

Pointed slots are resolved separately in the base and in the source of an interchange: the content of the cell under
the pointer then moves to the cell under the pointer, wherever the two pointers stand. A set has the same number of
positions in every state, in the same order, so that base and source correspond.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from cython_vm import States, variable

_SLOT = re.compile(r"(?P<block>.+)\[(?P<index>\d+)\]")
_POINTED = re.compile(r"(?P<block>[^@]+)\[@(?P<pointer>[^@]+)\]")


@dataclass(frozen=True, order=True)
class Site:
    """A place in the model: `hook` at the positions named `positions`, of `head` alone where one is given."""

    hook: str  # for example "blocks.1.hook_resid_post"
    positions: str = "all"
    head: int | None = None

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.hook}{head} at {self.positions}"


def resolve(position_names: Sequence[str], positions: str, states: States) -> Tensor:
    """The token positions of a named set in each state.

    Args:
        position_names: the name of every token position, `task.position_names`.
        positions: the set, as this module's docstring spells it.
        states: the states that pointed slots are read from.

    Returns:
        Long tensor [len(states), k]; k is the same for every state.

    Raises:
        ValueError: an unknown name, a pointer that leaves its block or is undefined, or parts that overlap.
    """
    columns = [_resolve_part(position_names, part.strip(), states) for part in positions.split("+")]
    resolved = np.concatenate(columns, axis=1)
    ordered = np.sort(resolved, axis=1)
    if (repeated := (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)).any():
        raise ValueError(f"the parts of the position set {positions!r} overlap in row {int(repeated.argmax())}")
    return torch.from_numpy(resolved)


def _resolve_part(names: Sequence[str], part: str, states: States) -> np.ndarray:
    n = len(states)
    if part == "all":
        return np.tile(np.arange(len(names)), (n, 1))
    if part in names:
        return np.full((n, 1), names.index(part))
    if match := _POINTED.fullmatch(part):
        return _pointed_slots(names, match["block"], match["pointer"], states)[:, None]
    slots = block_slots(names, part)
    if not len(slots):
        known = sorted({match["block"] for name in names if (match := _SLOT.fullmatch(name))})
        close = get_close_matches(part, [*known, *names, "all"], n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"no positions are named {part!r}: the blocks are {', '.join(known)}{hint}")
    return np.tile(slots, (n, 1))


def block_slots(position_names: Sequence[str], block: str) -> np.ndarray:
    """Token positions of a block's slots in order, int64 [k]; empty where there is no such block."""
    matches = ((position, _SLOT.fullmatch(name)) for position, name in enumerate(position_names))
    return np.array([position for position, match in matches if match and match["block"] == block], dtype=np.int64)


def _pointed_slots(names: Sequence[str], block: str, pointer: str, states: States) -> np.ndarray:
    slots = block_slots(names, block)
    if not len(slots):
        raise ValueError(f"'{block}[@{pointer}]' points into the block {block!r}, which has no slots here")
    values = np.asarray(variable(states.spec, pointer).read(states), dtype=np.int64)
    outside = (values < 0) | (values >= len(slots))
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"'{block}[@{pointer}]' needs {pointer} from 0 to {len(slots) - 1} in every state; "
            f"row {row} has {'no value' if values[row] < 0 else values[row]}"
        )
    return slots[values]
