"""Sampling, stepping and encoding in vectorised NumPy: what `tapelens bench machine` holds the kernels against.

The same distributions as `cython_vm.sample`, the same step, tokens and variables as the kernels. What makes it fast:
a state is held as its tokens, so that encoding costs nothing and the next state is a copy with a few tokens changed;
a slot of a program takes 12 random bits and one look-up, and more only where those bits leave two operations open (one
in 500); values take their shapes by masks. Batches of a few thousand rows stay in the caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cython_vm import MachineSpec, Op, Outcome

Bytes = NDArray[np.uint8]
_BITS = 12  # of a random word, that choose a slot of a program by look-up


@dataclass(frozen=True)
class TokenStates:
    """n states as tokens, beside what would else be searched for in them."""

    tokens: Bytes  # [n, state_length]
    instruction_ptr: NDArray[np.intp]  # [n]
    array_ptr: NDArray[np.intp]  # [n]
    input_length: NDArray[np.intp]  # [n]
    output_length: NDArray[np.intp]  # [n]


@dataclass(frozen=True)
class NumpyMachine:
    """The machine of `spec` in NumPy. Raises ValueError where its vocabulary passes 256 tokens (8 bits)."""

    spec: MachineSpec

    def __post_init__(self) -> None:
        if self.spec.d_vocab > 256:
            raise ValueError(f"spec must have at most 256 tokens, to be held in bytes; it has {self.spec.d_vocab}")

    def records(self, n: int, rng: np.random.Generator) -> tuple[Bytes, Bytes, dict[str, NDArray[np.int16]]]:
        """Tokens of n states and of their next states, uint8 [n, state_length] each, and all variables of the step."""
        before = self.sample(n, rng)
        after, latents = self.step(before)
        return before.tokens, after.tokens, latents

    # Sampling.

    def sample(self, n: int, rng: np.random.Generator) -> TokenStates:
        """n random states, distributed like those of `cython_vm.sample`."""
        spec, where, row = self.spec, self.spec.layout.slice, np.arange(n)
        words = rng.random((4, n))
        ip, ap = (words[0] * spec.n_instructions).astype(np.intp), (words[1] * spec.n_cells).astype(np.intp)
        tokens = np.empty((n, spec.state_length), np.uint8)
        tokens[:] = self._blank
        for block, pointer in (("instruction_ptr", ip), ("array_ptr", ap)):
            tokens.ravel()[row * spec.state_length + (where(block).start + pointer)] = spec.token_id("1")
        self._write_program(tokens[:, where("instructions")], rng)
        values = self._values(n, rng)
        values += np.uint8(spec.number_id(0))
        tokens[:, where("cells")] = values[:, : spec.n_cells]
        lengths, start = [], spec.n_cells
        for word, block, size, padding in zip(
            words[2:], ("input", "output"), (spec.n_input, spec.n_output), ("EOI", "EOO"), strict=True
        ):
            length = _lengths(word, size)
            held = np.arange(size) < np.arange(size + 1)[:, None]  # [length, slot]
            kept, filled = -held.view(np.int8).view(np.uint8), np.uint8(spec.token_id(padding)) * ~held
            slots = values[:, start : start + size] & kept.take(length, axis=0)
            np.bitwise_or(slots, filled.take(length, axis=0), out=tokens[:, where(block)])
            lengths.append(length)
            start += size
        return TokenStates(tokens, ip, ap, *lengths)

    @cached_property
    def _blank(self) -> Bytes:
        """The tokens of a state whose pointers are nowhere; slots of programs and values hold anything."""
        spec, layout = self.spec, self.spec.layout
        ends = (name.rpartition(".")[2] for name in layout.names)
        tokens = np.array([spec.token_id(end) if end in "{}[]" else 0 for end in ends], np.uint8)
        for block in ("instruction_ptr", "array_ptr"):
            tokens[layout.slice(block)] = spec.token_id("0")
        return tokens

    @cached_property
    def _programs(self) -> tuple[NDArray[np.float64], Bytes, Bytes, NDArray[np.intp]]:
        """How the next slot of a program is chosen, given the slots left (itself included) and the loops open.

        A completion fills the slots left and closes all loops; a valid program is uniform when each op has the share of
        completions that begin with it: plain · c(left − 1, depth), c(left − 1, depth + 1) for WHILE and
        c(left − 1, depth − 1) for ENDW. Returns cumulative shares [slots left, loops open, ops − 1]; the token that
        the first 12 bits of a uniform word decide, 0 where they leave more than one [slots left, loops open · 2^12];
        the tokens in the order of the shares; and 2^12 · the change of depth by token.
        """
        spec = self.spec
        plain = [op for op in spec.ops if op not in (Op.WHILE, Op.ENDW) and (spec.stops or op != Op.STOP)]
        depths = spec.n_instructions // 2 + 2
        shares = np.zeros((spec.n_instructions, depths, 2 + len(plain)))
        last = [1] + [0] * depths  # exact integers
        for left in range(1, spec.n_instructions):
            counts = []
            for depth in range(depths):
                opens, closes = (last[depth + 1], last[depth - 1] if depth else 0) if spec.loops else (0, 0)
                parts = [opens, closes, *[last[depth]] * len(plain)]
                counts.append(sum(parts))
                for k in range(len(parts)):
                    shares[left, depth, k] = sum(parts[: k + 1]) / max(1, sum(parts))
            last = [*counts, 0]
        shares = shares[..., :-1]
        tokens = np.array([spec.token_id(op.name) if op in spec.ops else 0 for op in (Op.WHILE, Op.ENDW, *plain)])
        edges = np.arange((1 << _BITS) + 1) / (1 << _BITS)
        guide = np.zeros((spec.n_instructions, depths, 1 << _BITS), np.uint8)
        for left, depth in np.ndindex(spec.n_instructions, depths):
            low = np.searchsorted(shares[left, depth], edges[:-1], side="right")
            high = np.searchsorted(shares[left, depth], edges[1:], side="left")
            guide[left, depth] = np.where(low == high, tokens[low], 0)
        change = np.zeros(256, np.intp)
        change[tokens[:2]] = np.array([1, -1]) << _BITS if spec.loops else 0
        return shares, guide.reshape(spec.n_instructions, -1), tokens.astype(np.uint8), change

    def _write_program(self, program: Bytes, rng: np.random.Generator) -> None:
        """Programs uniform over all valid ones, as tokens, into [n, n_instructions]."""
        shares, guide, tokens, change = self._programs
        n, free = len(program), self.spec.n_instructions - 1
        first_bits = rng.integers(0, 1 << _BITS, (free, n), np.uint16)
        depth = np.zeros(n, np.intp)  # loops open, times 2^12
        for slot, bits in enumerate(first_bits):
            left = free - slot
            chosen = guide[left].take(depth + bits)
            open_ones = np.flatnonzero(chosen == 0)
            words = (bits[open_ones] + rng.random(len(open_ones))) / (1 << _BITS)
            below = shares[left, depth[open_ones] >> _BITS] <= words[:, None]
            chosen[open_ones] = tokens[below.sum(axis=1)]
            program[:, slot] = chosen
            depth += change.take(chosen)
        program[:, free] = self.spec.token_id("STOP")

    def _values(self, n: int, rng: np.random.Generator) -> Bytes:
        """Values [n, all slots]: a block has uniform draws a, the smaller of a and b, the larger, or their mean."""
        spec = self.spec
        sizes = (spec.n_cells, spec.n_input, spec.n_output)
        drawn = rng.integers(0, 1 << 8, (2, n, sum(sizes)), np.uint8)
        up = drawn[0] >> np.uint8(7)  # a bit that no value uses: halves of the mean go up or down at random
        drawn &= np.uint8(spec.max_value)
        a, b = drawn
        kinds = (a, np.minimum(a, b), np.maximum(a, b), (a + b + up) >> np.uint8(1))
        shapes = rng.integers(0, 64, n, np.uint8).astype(np.intp)  # two bits a block
        shape_of = np.repeat(np.arange(64)[:, None] >> np.array([0, 2, 4]) & 3, sizes, axis=1)
        values = np.zeros_like(a)
        for kind, candidate in enumerate(kinds):
            mask = np.where(shape_of == kind, np.uint8(255), np.uint8(0)).take(shapes, axis=0)
            mask &= candidate
            values |= mask
        return values

    # Stepping.

    @cached_property
    def _op_of(self) -> Bytes:
        """The opcode of every token that is one, [256]."""
        table = np.zeros(256, np.uint8)
        for op in self.spec.ops:
            table[self.spec.op_id(op)] = op
        return table

    @cached_property
    def _outcomes(self) -> Bytes:
        """The outcome [9 · 64] of every op under every set of conditions, numbered bit by bit as in `step`."""
        freezes = (
            (Op.NEXT, Outcome.ARRAY_OVERFLOW),
            (Op.PREV, Outcome.ARRAY_UNDERFLOW),
            (Op.INC, Outcome.VALUE_OVERFLOW),
            (Op.DEC, Outcome.VALUE_UNDERFLOW),
            (Op.PUT, Outcome.OUTPUT_FULL),
            (Op.GET, Outcome.INPUT_EMPTY),
        )
        table = np.full((len(Op), 64), Outcome.RAN, np.uint8)
        for bit, (op, outcome) in enumerate(freezes):
            table[op, (np.arange(64) >> bit) & 1 == 1] = outcome
        table[Op.STOP] = Outcome.HALTED
        return table.ravel()

    def step(self, s: TokenStates) -> tuple[TokenStates, dict[str, NDArray[np.int16]]]:
        """The next states, and the variables of the step by name, int16 [n], −1 = undefined."""
        spec, n = self.spec, len(s.tokens)
        first = {block: spec.layout.slice(block).start for block in spec.layout.blocks}
        zero_token = np.uint8(spec.number_id(0))
        begin = np.arange(n) * spec.state_length
        flat = s.tokens.ravel()
        op = self._op_of.take(flat.take(begin + (first["instructions"] + s.instruction_ptr)))
        at_cell = begin + (first["cells"] + s.array_ptr)
        operand = flat.take(at_cell) - zero_token
        head = np.full(n, -1, np.int16)
        if spec.n_input:
            np.subtract(s.tokens[:, first["input"]], zero_token, out=head, dtype=np.int16)
            head[s.input_length == 0] = -1

        conditions = np.zeros(n, np.uint8)
        for bit, holds in enumerate(
            (
                s.array_ptr == spec.n_cells - 1,
                s.array_ptr == 0,
                operand == spec.max_value,
                operand == 0,
                s.output_length == spec.n_output,
                s.input_length == 0,
            )
        ):
            conditions |= holds.view(np.uint8) << np.uint8(bit)
        outcome = self._outcomes.take((op.astype(np.intp) << 6) + conditions)
        ran = outcome == Outcome.RAN

        loops = np.flatnonzero((op == Op.WHILE) | (op == Op.ENDW))
        opens = op[loops] == Op.WHILE
        jump_target, branch = np.full(n, -1, np.int16), np.full(n, -1, np.int16)
        jump_target[loops] = self._partners(s.tokens[loops], s.instruction_ptr[loops], opens) + 1
        branch[loops] = (operand[loops] == 0) == opens

        puts, gets = (np.flatnonzero(ran & (op == code)) for code in (Op.PUT, Op.GET))
        result = operand + (ran & (op == Op.INC)) - (ran & (op == Op.DEC)).view(np.uint8)
        result[gets] = head[gets]
        emitted = np.full(n, -1, np.int16)
        emitted[puts] = operand[puts]
        next_ip = s.instruction_ptr + ran
        jumps = loops[branch[loops] == 1]
        next_ip[jumps] = jump_target[jumps]
        next_ap = s.array_ptr + (ran & (op == Op.NEXT)) - (ran & (op == Op.PREV))

        tokens = s.tokens.copy()
        flat = tokens.ravel()
        for block, old, new in (("instruction_ptr", s.instruction_ptr, next_ip), ("array_ptr", s.array_ptr, next_ap)):
            moved = np.flatnonzero(old != new)
            origin = begin[moved] + first[block]
            flat[origin + old[moved]] = spec.token_id("0")
            flat[origin + new[moved]] = spec.token_id("1")
        flat[at_cell] = result + zero_token
        flat[begin[puts] + first["output"] + s.output_length[puts]] = operand[puts] + zero_token
        if len(gets):
            tokens[gets, first["input"] : first["input"] + spec.n_input - 1] = s.tokens[
                gets, first["input"] + 1 : first["input"] + spec.n_input
            ]
            tokens[gets, first["input"] + spec.n_input - 1] = spec.token_id("EOI")
        input_length, output_length = s.input_length.copy(), s.output_length.copy()
        input_length[gets] -= 1
        output_length[puts] += 1

        latents = {
            "instruction_ptr": s.instruction_ptr,
            "op": op,
            "array_ptr": s.array_ptr,
            "operand": operand,
            "jump_target": jump_target,
            "input_head": head,
            "output_length": s.output_length,
            "outcome": outcome,
            "branch_taken": branch,
            "result": result,
            "emitted": emitted,
            "next_instruction_ptr": next_ip,
            "next_array_ptr": next_ap,
        }
        after = TokenStates(tokens, next_ip, next_ap, input_length, output_length)
        return after, {name: values.astype(np.int16, copy=False) for name, values in latents.items()}

    def _partners(self, tokens: Bytes, at: NDArray[np.intp], opens: NDArray[np.bool_]) -> NDArray[np.intp]:
        """The slot of the bracket that matches the one in slot `at`, [n].

        The partner of WHILE is the first slot after it, that of ENDW the last before it, where as many loops are open
        as outside of the loop.
        """
        n, n_slots = len(tokens), self.spec.n_instructions
        program = self._op_of.take(tokens[:, self.spec.layout.slice("instructions")])
        inside = np.zeros((n, n_slots + 1), np.int16)  # loops open before each slot
        np.cumsum((program == Op.WHILE).view(np.int8) - (program == Op.ENDW).view(np.int8), axis=1, out=inside[:, 1:])
        level = inside == inside[np.arange(n), at + ~opens][:, None]
        slots, at = np.arange(n_slots), at[:, None]
        closing = (level[:, 1:] & (slots > at)).argmax(axis=1)
        opening = n_slots - 1 - (level[:, :-1] & (slots < at))[:, ::-1].argmax(axis=1)
        return np.where(opens, closing, opening)


def _lengths(words: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Buffer lengths from uniform words: uniform over 0 … n, geometric (1/2, cut at n), empty and full, 1/4 each."""
    geometric = 0.5 ** np.arange(1, n + 2)
    geometric[n] *= 2
    shares = (1 / (n + 1) + geometric) / 4
    shares[[0, n]] += 0.25
    if n == 0:
        return np.zeros(len(words), np.intp)
    lengths = np.zeros(len(words), np.uint8)
    for bound in np.cumsum(shares)[:-1]:
        lengths += words >= bound
    return lengths.astype(np.intp)
