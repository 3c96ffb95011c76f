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

A site needs no step of its own. Where shared weights run again and again, each step of the loop has hooks of its own,
and the name says which: "steps.2.hook_carry" is of the third step. Passes of denoising are chosen where they are run
(`denoise(…, fwd_hooks={2: …})`). Executed steps belong to the world's run and say where pointers are read (`at`,
`edit_time`, `source_time`); training steps belong to the weights (`checkpoint_step`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from interp.ranges import require_count

_SLOT = re.compile(r"(?P<block>.+)\[(?P<index>\d+)\]")
_PLUS = re.compile(r"\+(?!\d)")  # joins parts; the plus of "t+3.cells" belongs to a name
_POINTED = re.compile(r"(?P<block>[^@]+)\[@(?P<pointer>[^@]+)\]")


@dataclass(frozen=True, order=True)
class Site:
    """A place in the model: `hook` at the positions named `positions`, of `head` alone where one is given."""

    hook: str  # for example "blocks.1.hook_resid_post", or of one step of a loop "steps.2.hook_carry"
    positions: str = "all"
    head: int | None = None

    def __post_init__(self) -> None:
        for name in ("hook", "positions"):
            if not isinstance(value := getattr(self, name), str) or not value:
                raise ValueError(f"the {name} of a site must be a name, got {value!r}")
        if self.head is not None:
            require_count("head", self.head, least=0)

    def __str__(self) -> str:
        head = "" if self.head is None else f" head {self.head}"
        return f"{self.hook}{head} at {self.positions}"


def resolve(position_names: Sequence[str], positions: str, n: int, read: Callable[[str], np.ndarray]) -> Tensor:
    """The token positions of a named set in each of `n` examples.

    Args:
        position_names: the name of every token position, `task.position_names`.
        positions: the set, as this module's docstring spells it.
        n: how many examples.
        read: a variable's value in each, int64 [n], for pointed slots.

    Returns:
        Long tensor [n, k]; k is the same for every example.

    Raises:
        ValueError: an unknown name, a pointer that leaves its block or is undefined, or parts that overlap.
    """
    columns = [_resolve_part(position_names, part.strip(), n, read) for part in _PLUS.split(positions)]
    resolved = np.concatenate(columns, axis=1)
    check_disjoint(resolved, positions)
    return torch.from_numpy(resolved)


def check_disjoint(resolved: np.ndarray, positions: str) -> None:
    """Raise ValueError where the parts of a set, resolved to positions [n, k], overlap in an example."""
    ordered = np.sort(resolved, axis=1)
    if (repeated := (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)).any():
        raise ValueError(f"the parts of the position set {positions!r} overlap in row {int(repeated.argmax())}")


def _resolve_part(names: Sequence[str], part: str, n: int, read: Callable[[str], np.ndarray]) -> np.ndarray:
    if part == "all":
        return np.tile(np.arange(len(names)), (n, 1))
    if part in names:
        return np.full((n, 1), names.index(part))
    if match := _POINTED.fullmatch(part):
        return _pointed_slots(names, match["block"], match["pointer"], read)[:, None]
    slots = block_slots(names, part)
    if not len(slots):
        known = sorted(block_names(names))
        close = get_close_matches(part, [*known, *names, "all"], n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"no positions are named {part!r}: the blocks are {', '.join(known)}{hint}")
    return np.tile(slots, (n, 1))


def block_slots(position_names: Sequence[str], block: str) -> np.ndarray:
    """Token positions of a block's slots in order, int64 [k]; empty where there is no such block."""
    matches = ((position, _SLOT.fullmatch(name)) for position, name in enumerate(position_names))
    return np.array([position for position, match in matches if match and match["block"] == block], dtype=np.int64)


def is_slot(name: str) -> bool:
    """Whether a position is a slot of a block, not punctuation."""
    return _SLOT.fullmatch(name) is not None


def block_names(position_names: Sequence[str]) -> tuple[str, ...]:
    """The blocks of slots that positions are named by, in order."""
    matches = (_SLOT.fullmatch(name) for name in position_names)
    return tuple(dict.fromkeys(match["block"] for match in matches if match))


def _pointed_slots(names: Sequence[str], block: str, pointer: str, read: Callable[[str], np.ndarray]) -> np.ndarray:
    slots = block_slots(names, block)
    if not len(slots):
        raise ValueError(f"'{block}[@{pointer}]' points into the block {block!r}, which has no slots here")
    values = np.asarray(read(pointer), dtype=np.int64)
    outside = (values < 0) | (values >= len(slots))
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(
            f"'{block}[@{pointer}]' needs {pointer} from 0 to {len(slots) - 1} in every example; "
            f"row {row} has {'no value' if values[row] < 0 else values[row]}"
        )
    return slots[values]
