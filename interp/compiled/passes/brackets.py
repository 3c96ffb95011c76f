"""How a bracket finds its partner.

1. Depth: slot i attends evenly to the slots before it, and leaves the rest of its attention, so that the shares are
   always 1/n, on "{". What arrives is (WHILEs less ENDWs before i) / n, the machine's `loop_depth`.
2. Level: a WHILE opens a loop at level = depth, an ENDW closes one at level = depth - 1; partners share a level. Ramps
   relu(level - k) give it as a one-hot: the second difference of ramps is 1 at k alone.
3. Current level: fetched from the instruction under the pointer.
4. Partner: of the brackets of the other kind on that level, the nearest after a WHILE, the nearest before an ENDW. What
   is not looking for one attends to "{" and gets nothing.
"""

from __future__ import annotations

import numpy as np

from cython_vm import Op
from interp.compiled.components import Gate, Head, Move, Pass, Score, selects
from interp.compiled.form import BLOCKS, ROLES, Form

_INSTRUCTIONS, _START = BLOCKS.index("instructions"), ROLES.index("start")
_KINDS = {"opening": Op.WHILE, "closing": Op.ENDW}


def depth(form: Form, *, sharpness: float) -> Pass:
    """Layer 0, attention: subspace `depth`, a number at every instruction."""
    n, d_vocab = form.spec.n_instructions, form.spec.d_vocab
    rows = np.arange(n)
    before = np.zeros((form.n_indices, form.n_indices))  # [query slot, key slot]
    before[:n, :n] = np.where(rows[None, :] < rows[:, None], 0.0, -sharpness)
    rest = np.zeros((form.n_indices, len(ROLES)))
    rest[:n, _START] = np.log(n - rows)
    role = np.full((1, len(ROLES)), 0.0)
    role[0, [_INSTRUCTIONS, _START]] = 2 * sharpness  # over everything that is neither
    count = np.zeros((d_vocab, 1))
    count[form.spec.op_id(Op.WHILE)] = n
    count[form.spec.op_id(Op.ENDW)] = -n
    head = Head(
        name="depth",
        layer=0,
        scores=(Score("index", "index", before), Score("index", "role", rest), Score(None, "role", role)),
        moves=(Move("token", "depth", count),),
        keys="instructions+{",
        variable="loop_depth",
        role="attends evenly to the instructions before its own: open loops are the sum of WHILE and ENDW",
        holds_at="instructions[@instruction_ptr]",
    )
    return Pass(spaces={"depth": 1}, heads=(head,))


def level(form: Form, *, sharpness: float) -> Pass:
    """Layer 0, MLP, and layer 1, attention: levels of all brackets, and that of the bracket under the pointer.

    Subspaces `opening` and `closing` are one-hot at instructions that hold WHILE or ENDW, 0 elsewhere;
    `current_opening` and `current_closing` are those of the current instruction, at every position.
    """
    n, n_levels = form.spec.n_instructions, form.n_levels
    gates: list[Gate] = []
    for space, op in _KINDS.items():
        gates += _one_hot(form, space, form.token(op.name), offset=0 if op == Op.WHILE else 1)
    head = Head(
        name="current_level",
        layer=1,
        scores=(
            Score("instruction_ptr", "index", sharpness * np.eye(n, form.n_indices)),
            Score(None, "role", selects(len(ROLES), _INSTRUCTIONS, weight=sharpness)),
        ),
        moves=tuple(Move(space, f"current_{space}", np.eye(n_levels)) for space in _KINDS),
        keys="instructions[@instruction_ptr]",
        variable=None,
        role="attends to the current instruction and tells every position the level of its bracket",
    )
    spaces = dict.fromkeys([*_KINDS, *(f"current_{space}" for space in _KINDS)], n_levels)
    return Pass(spaces=spaces, heads=(head,), gates=tuple(gates))


def _one_hot(form: Form, space: str, bracket: tuple[str, int], *, offset: int) -> list[Gate]:
    """Gates that write depth - offset as a one-hot to `space`, where the token is `bracket`."""
    far = form.n_levels + 2.0  # pushes every ramp below 0 where the token is another
    gates = []
    for k in range(-1, form.n_levels + 1):
        second_difference = {(space, k + 1): 1.0, (space, k): -2.0, (space, k - 1): 1.0}
        gates.append(
            Gate(
                name=f"{space} ramp {k}",
                layer=0,
                reads={("depth", 0): 1.0, bracket: far},
                bias=-far - offset - k,
                writes={f: weight for f, weight in second_difference.items() if 0 <= f[1] < form.n_levels},
                at=frozenset(form.positions("instructions")),
            )
        )
    return gates


def partner(form: Form, *, sharpness: float) -> Pass:
    """Layer 2, attention: subspace `jump_target`, the slot after the partner of the current bracket, or 0."""
    return Pass(
        spaces={"jump_target": form.spec.n_instructions},
        heads=(
            _match(form, "current_opening", "closing", forward=True, sharpness=sharpness),
            _match(form, "current_closing", "opening", forward=False, sharpness=sharpness),
        ),
    )


def _match(form: Form, current: str, other: str, *, forward: bool, sharpness: float) -> Head:
    """Equal level outweighs any distance; between equals the nearest wins, by `sharpness` for two slots."""
    n = form.spec.n_instructions
    slope = sharpness / 2
    equal_level = slope * n + 2 * sharpness
    ahead = np.arange(n)[None, :] - np.arange(n)[:, None]  # [from the pointer, to a slot]
    distance = ahead if forward else -ahead
    nearness = np.zeros((n, form.n_indices))
    nearness[:, :n] = np.where(distance > 0, -slope * distance, -(equal_level + slope * n))
    in_block = equal_level + slope * n + sharpness  # no other position, whatever it holds, comes near
    role = selects(len(ROLES), _INSTRUCTIONS, weight=in_block)
    role[0, _START] = in_block + sharpness
    after = np.eye(form.n_indices, n, k=1)  # the slot after it
    here, there = ("a WHILE", "ENDW after") if forward else ("an ENDW", "WHILE before")
    return Head(
        name="match_forward" if forward else "match_backward",
        layer=2,
        scores=(
            Score(current, other, equal_level * np.eye(form.n_levels)),
            Score("instruction_ptr", "index", nearness),
            Score(None, "role", role),
        ),
        moves=(Move("index", "jump_target", after),),
        keys="instructions+{",
        variable="jump_target",
        role=f"from {here}, attends to the nearest {there} it of the same level and tells every position the slot "
        "after that; else attends to {",
    )
