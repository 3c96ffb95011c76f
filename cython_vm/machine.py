"""One step of a batch of states, as it is or under an intervention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._isa import Op
from cython_vm._machine import STEP_NAMES, step_rows, step_rows_do
from cython_vm.arguments import check_kind, integers
from cython_vm.codec import encode
from cython_vm.declarations import declared
from cython_vm.packing import block_columns, root_column
from cython_vm.states import States

_STEP_INDEX = {name: index for index, name in enumerate(STEP_NAMES)}


@dataclass(frozen=True, eq=False)
class Transition:
    """What one step did to n states."""

    next: States  # S_{t+1}
    outcome: NDArray[np.uint8]  # [n], numbers of `Outcome`
    valid: NDArray[np.bool_]  # [n], False where `do` asks for a value that does not exist
    latents: dict[str, NDArray[np.int16]]  # name → [n], the variables of the step; −1 = undefined

    def tokens(self) -> NDArray[Any]:
        """S_{t+1} encoded, [n, state_length], with its outcome where the layout shows one."""
        return encode(self.next, self.outcome if self.next.spec.outcome_token else None)


def step(states: States, do: Mapping[str, ArrayLike] | None = None) -> Transition:
    """One step of every state.

    `do` maps variable names to one value or one a row ([n]) and replaces those variables' equations; what depends on
    them is recomputed, everything else keeps its value. Several variables may be set at once. A row where a value does
    not exist (a jump without a partner, RAN where the result does not fit, −1 given, a gap in the output) has
    `valid` False; its `next` is S_t, its latents are −1 and its outcome is 255, no `Outcome`.

    Raises ValueError on an unknown variable, one that cannot be set, and values out of range (naming variable and row).
    """
    check_kind("states", states, States)
    if do is not None:
        check_kind("do", do, Mapping)
    n = len(states)
    next_rows = np.empty_like(states.rows)
    outcome = np.empty(n, dtype=np.uint8)
    # An odd number of cache lines a row, so that the rows of the latents do not compete for the same cache sets.
    width = ((n // 32 + 1) | 1) * 32
    latents = np.empty((len(STEP_NAMES), width), dtype=np.int16)
    if not do:
        step_rows(states.spec, states.rows, next_rows, outcome, latents)
        valid = np.ones(n, dtype=bool)
    else:
        valid = _step_do(states, do, next_rows, outcome, latents)
    return Transition(
        States.wrap(states.spec, next_rows), outcome, valid, {name: latents[k, :n] for name, k in _STEP_INDEX.items()}
    )


def _step_do(
    states: States,
    do: Mapping[str, ArrayLike],
    next_rows: NDArray[np.uint8],
    outcome: NDArray[np.uint8],
    latents: NDArray[np.int16],
) -> NDArray[np.bool_]:
    """Roots are edited before the step, cells of S_{t+1} after it; the kernel sets the variables between them."""
    spec = states.spec
    values = {name: _do_values(states, name, given) for name, given in do.items()}
    roots = {name: given for name, given in values.items() if declared(spec, name).kind == "root"}
    slots = {name: given for name, given in values.items() if name.startswith("next_cell[")}
    inner = {name: given for name, given in values.items() if name not in roots and name not in slots}

    defined = np.ones(len(states), dtype=bool)
    for name, given in values.items():
        defined &= given >= 0
        if spec.padded:
            defined &= _fits(states, name, given)
    valid = defined.view(np.uint8)
    columns = np.array([root_column(spec, name)[0] for name in roots], dtype=np.intp)
    forbidden = np.array([op not in spec.ops or (op == Op.STOP and not spec.stops) for op in Op], dtype=np.uint8)
    numbers = tuple(_STEP_INDEX[name] for name in inner)
    step_rows_do(
        spec, states.rows, next_rows, outcome, latents, valid,
        columns, _table(roots, len(states)), forbidden, numbers, _table(inner, len(states)),
    )  # fmt: skip
    first_cell = block_columns(spec)["cells"].start
    for name, given in slots.items():
        column = first_cell + int(name[len("next_cell[") : -1])
        next_rows[:, column] = np.where(defined, given, next_rows[:, column])
    return defined


def _do_values(states: States, name: str, given: ArrayLike) -> NDArray[np.int16]:
    """The values of one intervention, int16 [n], checked."""
    target = declared(states.spec, name)
    if not target.settable:
        raise ValueError(f"{name} can be read but not set: it spans more than one step")
    values = integers(f"do({name})", given)
    if values.size and values.dtype.kind not in "iub":
        raise TypeError(f"do({name}) takes integers, got {values.dtype}")
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(states)):
        raise ValueError(f"do({name}) takes one value or one for each of {len(states)} rows, got {list(values.shape)}")
    limit = target.n_values(states.spec)
    if values.size and (values.min() < -1 or values.max() >= limit):
        row = int(np.argmax((values < -1) | (values >= limit)))
        value = int(values.flat[row])
        raise ValueError(f"do({name}) takes values from 0 to {limit - 1} (−1 = undefined), got {value} at row {row}")
    return np.ascontiguousarray(np.broadcast_to(values, len(states)), dtype=np.int16)


def _fits(states: States, name: str, values: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Whether a value, or the slot that it is for, lies within the row's own sizes: bool [n]."""
    sizes = states.sizes
    family, _, index = name.removesuffix("]").partition("[")
    if family in ("instruction_ptr", "next_instruction_ptr"):
        return values < sizes["n_instructions"]
    if family in ("array_ptr", "next_array_ptr"):
        return values < sizes["n_cells"]
    slots = {"instruction": "n_instructions", "cell": "n_cells", "next_cell": "n_cells"}.get(family)
    return int(index) < sizes[slots] if slots else np.ones(len(states), dtype=bool)


def _table(values: Mapping[str, NDArray[np.int16]], n: int) -> NDArray[np.int16]:
    """One row a variable, int16 [variables, n]."""
    return np.array(list(values.values()), dtype=np.int16).reshape(len(values), n)
