"""Two recurrent interpreters of `trace` with weights written by hand: they hold the tape that a stream never shows.

    absolute   a counter keeps the pointer; each cell has a place of its own, and gates open at the one pointed to
    relative   no pointer at all: the tape is shifted as the pointer moves, so that each place is an offset from it

Both are LSTMs of the class that is trained, right on every valid stream. What each part of their state holds is known,
so every method that asks whether a tape is addressed absolutely or relatively can be held against them first.

A cell of value v is held as the number v * STEP in one LSTM cell, so small that tanh leaves it as it is to a few parts
in a million, and read back by the nearest value. Gates are sigmoids driven to 0 or 1. The value behind GET and PUT is
written to the cell: behind PUT it is the one that the cell has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from interp.models import build_model
from interp.models.recurrent import LSTMConfig
from interp.tasks.trace import Trace
from interp.worlds.machine import Op
from interp.worlds.machine.relative import relative_name

Addressing = Literal["absolute", "relative"]
STEP = 2.0**-12  # what one unit of a value is in an LSTM cell
_SURE = 60.0  # half of it is where a gate stands: a sigmoid of 30 is 1 in float32
_NEAR = 10.0  # logit by which the nearest value is ahead, times two
_ASKED = 1e4  # logit of the tokens that an instruction may be answered with
_FEATURES = (
    "NEXT",
    "PREV",
    "INC",
    "DEC",
    "PUT",
    "WHILE",
    "ENDW",
    "NUM",
    "amount",
    "pointer",
    "value",
    "zero_w",
    "zero_e",
)


@dataclass(frozen=True, eq=False)
class HeldTape:
    """An interpreter, and which part of its carrier holds which variable."""

    addressing: Addressing
    task: Trace
    model: Any
    held: dict[str, Tensor]  # variable -> bool [carrier size]: the state laid side by side, layer by layer


def compile_held_tape(task: Trace, addressing: Addressing) -> HeldTape:
    """Write the weights.

    Raises:
        ValueError: another addressing.
    """
    if addressing not in ("absolute", "relative"):
        raise ValueError(f"addressing must be 'absolute' or 'relative', got {addressing!r}")
    writer = _Writer(task, addressing)
    held = writer.absolute() if addressing == "absolute" else writer.relative()
    return HeldTape(addressing, task, writer.model, held)


class _Writer:
    """Writes embedding, layers and unembedding of one model."""

    def __init__(self, task: Trace, addressing: Addressing) -> None:
        n = self.n = task.spec.n_cells
        self.task, absolute = task, addressing == "absolute"
        self.width = n if absolute else 2 * (2 * n - 1) + 1
        names = [*_FEATURES, *(f"at{i}" for i in range(n if absolute else 0))]
        self.place = {name: index for index, name in enumerate(names)}
        cfg = LSTMConfig(
            d_vocab=len(task.vocab),
            n_ctx=task.n_ctx,
            n_layers=2 if absolute else 1,
            # a hidden size of its own: what is read out passes through W_O
            d_model=len(names) + (len(names) == self.width),
            d_hidden=self.width,
            d_mlp=n + 2,
            act_fn="relu",
            normalization_type=None,
        )
        self.model: Any = build_model(cfg).eval()
        self.model.requires_grad_(False)
        for parameter in self.model.parameters():
            parameter.zero_()
        self._embed()
        self._answer(self.model.blocks[-1].mlp)

    def _embed(self) -> None:
        W_E, spec = self.model.embed.W_E, self.task.spec
        for op in spec.ops:
            if op.name in self.place:
                W_E[spec.op_id(op), self.place[op.name]] = 1.0
        for op, amount in ((Op.INC, 1.0), (Op.DEC, -1.0)):
            if op in spec.ops:
                W_E[spec.op_id(op), self.place["amount"]] = amount
        for value in range(spec.max_value + 1):
            W_E[spec.number_id(value), self.place["NUM"]] = 1.0
            W_E[spec.number_id(value), self.place["amount"]] = float(value)

    def _answer(self, mlp: Any) -> None:
        """From the value under the pointer to logits: the nearest number at PUT, a comparison with 0 at brackets."""
        spec, place, model = self.task.spec, self.place, self.model
        for neuron, (op, zero) in enumerate((("WHILE", "zero_w"), ("ENDW", "zero_e"))):
            # relu(1 - value) at the bracket, 0 elsewhere
            self._set(mlp.fc_in.weight[neuron], {"value": -1.0, op: _SURE})
            mlp.fc_in.bias[neuron] = 1.0 - _SURE
            mlp.fc_out.weight[place[zero], neuron] = 1.0
        weight, bias = model.unembed.weight, model.unembed.bias
        for value in range(spec.max_value + 1):
            self._set(weight[spec.number_id(value)], {"value": _NEAR * value, "PUT": _ASKED})
            bias[spec.number_id(value)] = -_NEAR * value**2 / 2
        for branch, sign in (("0", -1.0), ("1", 1.0)):
            # WHILE jumps where the value is 0, ENDW where it is not
            signs = {"zero_w": 2.0, "WHILE": -1.0, "zero_e": -2.0, "ENDW": 1.0}
            row = {name: sign * _NEAR * each for name, each in signs.items()}
            row = {name: each + _ASKED * (name in ("WHILE", "ENDW")) for name, each in row.items()}
            self._set(weight[spec.token_id(branch)], row)

    def _set(self, row: Tensor, values: dict[str, float]) -> None:
        for name, value in values.items():
            row[self.place[name]] = value

    def _gate(self, layer: Any, gate: str, unit: int, weights: dict[str, float], bias: float) -> None:
        """A gate that is open where the weighted features, plus bias, are above 0."""
        self._set(getattr(layer, f"W_i{gate}")[unit], {name: _SURE * value for name, value in weights.items()})
        getattr(layer, f"b_{gate}")[unit] = _SURE * bias

    def absolute(self) -> dict[str, Tensor]:
        """Layer 0 counts the pointer and its MLP says which cell that is; layer 1 holds the cells."""
        pointer, tape = (block.recurrence for block in self.model.blocks)
        place, n = self.place, self.n
        self._gate(pointer, "f", 0, {}, 0.5)
        self._gate(pointer, "o", 0, {}, 0.5)
        self._gate(pointer, "i", 0, {"NEXT": 1.0, "PREV": 1.0}, -0.5)
        self._set(pointer.W_ig[0], {"NEXT": STEP, "PREV": -STEP})
        pointer.W_O[place["pointer"], 0] = 1 / STEP
        for unit in range(1, n):  # closed: nothing is written
            self._gate(pointer, "i", unit, {}, -0.5)
        mlp = self.model.blocks[0].mlp
        for corner in range(-1, n + 1):  # a hat over each place: relu(p - i + 1) - 2 relu(p - i) + relu(p - i - 1)
            mlp.fc_in.weight[corner + 1, place["pointer"]] = 1.0
            mlp.fc_in.bias[corner + 1] = -float(corner)
        for cell in range(n):
            for corner, height in ((cell - 1, 1.0), (cell, -2.0), (cell + 1, 1.0)):
                mlp.fc_out.weight[place[f"at{cell}"], corner + 1] = height
            here = f"at{cell}"
            self._gate(tape, "f", cell, {"NUM": -1.0, here: -1.0}, 1.5)
            self._gate(tape, "i", cell, {"INC": 1.0, "DEC": 1.0, "NUM": 1.0, here: 1.0}, -1.5)
            self._gate(tape, "o", cell, {here: 1.0}, -0.5)
            tape.W_ig[cell, place["amount"]] = STEP
            tape.W_O[place["value"], cell] = 1 / STEP
        held = {f"cell[{cell}]": self._units(1, [cell]) for cell in range(n)}
        return held | {"array_ptr": self._units(0, [0])}

    def relative(self) -> dict[str, Tensor]:
        """Two places an offset, whose sum is the cell: one takes from behind at NEXT, one from before at PREV.

        A third at the pointer takes what INC, DEC and told values add.
        """
        (tape,) = (block.recurrence for block in self.model.blocks)
        n, place = self.n, self.place
        offsets = range(-(n - 1), n)
        units = {offset: [2 * index, 2 * index + 1] for index, offset in enumerate(offsets)}
        added = 2 * len(units)
        units[0] = [*units[0], added]
        for offset in offsets:
            overwritten = {"NUM": -1.0} if offset == 0 else {}
            for unit, move, of in ((units[offset][0], "NEXT", offset + 1), (units[offset][1], "PREV", offset - 1)):
                self._gate(tape, "f", unit, {"NEXT": -1.0, "PREV": -1.0, **overwritten}, 0.5)
                self._gate(tape, "i", unit, {move: 1.0}, -0.5)
                tape.W_hg[unit, units.get(of, [])] = 1.0
        self._gate(tape, "f", added, {"NEXT": -1.0, "PREV": -1.0, "NUM": -1.0}, 0.5)
        self._gate(tape, "i", added, {"INC": 1.0, "DEC": 1.0, "NUM": 1.0}, -0.5)
        tape.W_ig[added, place["amount"]] = STEP
        for unit in range(self.width):
            self._gate(tape, "o", unit, {}, 0.5)
        tape.W_O[place["value"], units[0]] = 1 / STEP
        return {relative_name(offset): self._units(0, units[offset]) for offset in offsets}

    def _units(self, layer: int, units: Iterable[int] | Sequence[int]) -> Tensor:
        """The coordinates of some units of a layer in the carrier: of each its state and its cell."""
        mask = torch.zeros(len(self.model.blocks), 2, self.width, dtype=torch.bool)
        mask[layer, :, list(units)] = True
        return mask.flatten()
