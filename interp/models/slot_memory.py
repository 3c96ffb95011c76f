"""The slot machine's state as distributions, and one step of it, differentiable in every entry.

Of one-hots a step is exactly the symbolic one (`cython_vm/slots_reference.py`), freezes included: products and sums of
zeros and ones. Of anything softer it is the mixture in which operator, addresses, contents and registers are drawn
apart from each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.worlds.slots_tables import ARITHMETIC, CARRYING, KINDS, arithmetic_tables, mode_bits

N_KINDS, N_POINTERS = len(KINDS), 3
Seen = Callable[[str, Tensor], Tensor]


class State(NamedTuple):
    """A batch of memories and registers; each last axis is a distribution."""

    kinds: Tensor  # [batch, slot, kind]
    pointers: Tensor  # [batch, 3, slot, address]: next, left, right
    contents: Tensor  # [batch, slot, value]
    pc: Tensor  # [batch, address]
    carry: Tensor  # [batch, 2]
    free: Tensor  # [batch, address]

    def memory(self) -> Tensor:
        """All slots in one, [batch, slot, kind + 3 addresses + value]."""
        return torch.cat([self.kinds, *self.pointers.unbind(1), self.contents], dim=-1)

    def with_memory(self, memory: Tensor) -> State:
        """The same registers beside another memory, laid out as `memory` says."""
        s, v = self.pc.shape[-1], self.contents.shape[-1]
        kinds, *pointers, contents = memory.split([N_KINDS, s, s, s, v], dim=-1)
        return self._replace(kinds=kinds, pointers=torch.stack(pointers, dim=1), contents=contents)

    def registers(self) -> Tensor:
        """Carry and free, [batch, 2 + address]."""
        return torch.cat([self.carry, self.free], dim=-1)

    def with_registers(self, registers: Tensor) -> State:
        """The same memory beside other registers, laid out as `registers` says."""
        return self._replace(carry=registers[..., :2], free=registers[..., 2:])


class _StraightThrough(torch.autograd.Function):
    """The one-hot of the likeliest entry along the last axis; the gradient passes as if nothing had been chosen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.one_hot(x.argmax(dim=-1), x.shape[-1]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def harden(x: Tensor) -> Tensor:
    """One-hots of the likeliest entries along the last axis, with a straight-through gradient."""
    return _StraightThrough.apply(x)  # type: ignore[return-value]


def sharpen(x: Tensor, temperature: float) -> Tensor:
    """A distribution to the power of 1 / temperature, with the mass that it had; at 1 itself."""
    if temperature == 1.0:
        return x
    mass = x.sum(dim=-1, keepdim=True)
    return mass * F.softmax(x.clamp(min=1e-30).log() / temperature, dim=-1)


class TableALU(nn.Module):
    """The operators on contents as exact tables; nothing is learned."""

    results: Tensor  # [x * y * carry, operator, value]; no mass where the operator freezes
    carries: Tensor  # [x * y * carry, operator, 2]

    def __init__(self, base: int, n_values: int) -> None:
        super().__init__()
        written, carried = (torch.from_numpy(each).long() for each in arithmetic_tables(base, n_values))
        for name, table, n in (("results", written, n_values), ("carries", carried, 2)):
            onehots = F.one_hot(table.clamp(min=0), n) * (table >= 0)[..., None]
            self.register_buffer(name, onehots.flatten(1, 3).transpose(0, 1).float(), persistent=False)

    def forward(self, x: Tensor, y: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """What each operator writes, [batch, operator, value], and carries, [batch, operator, 2].

        Args:
            x, y: [batch, value].
            carry: [batch, 2].
        """
        cases = torch.einsum("bx,by,bc->bxyc", x, y, carry).flatten(1)
        results, carries = self.results.to(x.dtype), self.carries.to(x.dtype)
        return torch.einsum("bi,iov->bov", cases, results), torch.einsum("bi,ioc->boc", cases, carries)


class LearnedALU(nn.Module):
    """The operators on contents as a network of one hidden layer, over (operator, x, y, carry); it never freezes."""

    def __init__(self, n_values: int, d_alu: int) -> None:
        super().__init__()
        self.n_values = n_values
        self.fc_in = nn.Linear(len(ARITHMETIC) + 2 * n_values + 2, d_alu)
        self.fc_out = nn.Linear(d_alu, n_values + 2)

    def forward(self, x: Tensor, y: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """As TableALU."""
        n = len(ARITHMETIC)
        operators = torch.eye(n, dtype=x.dtype, device=x.device).expand(len(x), n, n)
        given = torch.cat([x, y, carry], dim=-1)[:, None].expand(len(x), n, -1)
        out = self.fc_out(torch.relu(self.fc_in(torch.cat([operators, given], dim=-1))))
        written, carried = out.split([self.n_values, 2], dim=-1)
        return F.softmax(written, dim=-1), F.softmax(carried, dim=-1)


def modes(n_values: int) -> Tensor:
    """Of every content, which operands are reached through a pointer, [value, 3]."""
    return torch.from_numpy(mode_bits(n_values)).float()


def step(state: State, alu: nn.Module, bits: Tensor, *, hard: bool, temperature: float, seen: Seen) -> State:
    """One step. What is met on the way goes through `seen(name, value)`, which may replace it.

    Names: pc [batch, address], op [batch, kind], read_weights [batch, 2, address], write_weights [batch, address],
    alu_in [batch, 2 * value + 2] (x, y, carry), alu_out [batch, value + 2] (what is written, what is carried).
    """

    def choose(x: Tensor) -> Tensor:
        return harden(x) if hard else sharpen(x, temperature)

    kinds, pointers, contents = state.kinds, state.pointers, state.contents
    n_values, following = contents.shape[-1], pointers[:, 0]
    pc = seen("pc", state.pc)
    # Fetch: the operator, and where its operands are, followed once more as far as the instruction's bits say so.
    op = seen("op", torch.einsum("bs,bsk->bk", pc, kinds))
    mode = torch.einsum("bs,bsv,vk->bk", pc, contents, bits.to(pc.dtype))[..., None]
    named = torch.einsum("bs,bksa->bka", pc, pointers)
    address = choose((1 - mode) * named + mode * torch.einsum("bks,bsa->bka", named, following))
    first, second = seen("read_weights", address[:, :2]).unbind(1)
    target = seen("write_weights", address[:, 2])
    # Contents: what the operators make of them.
    x, y = (torch.einsum("bs,bsv->bv", each, contents) for each in (first, second))
    x, y, carry = seen("alu_in", torch.cat([x, y, state.carry], dim=-1)).split([n_values, n_values, 2], dim=-1)
    results, carries = alu(x, y, carry)
    computing = op[:, [KINDS[name] for name in ARITHMETIC]]
    written = torch.einsum("bo,bov->bv", computing, results)
    setting = [ARITHMETIC.index(name) for name in CARRYING]
    carried = torch.einsum("bo,boc->bc", computing[:, setting], carries[:, setting])
    ordered = op[:, KINDS["ORDER"], None] * _order(*(torch.einsum("bs,bsa->ba", e, following) for e in (first, second)))
    written = written + F.pad(ordered, (0, n_values - 3))
    if hard:  # with the mass that there is: none where nothing is written
        written, carried = (harden(each) * each.sum(-1, keepdim=True) for each in (written, carried))
    else:
        written, carried = sharpen(written, temperature), sharpen(carried, temperature)
    written, carried = seen("alu_out", torch.cat([written, carried], dim=-1)).split([n_values, 2], dim=-1)
    # Pointers: nothing is written where a step would lead out of memory, or nothing is free.
    somewhere = state.free * _not_nil(state.free)
    aimed = op[:, KINDS["POINT"], None] * first + op[:, KINDS["STEP"], None] * _shifted(first)
    for place, name in enumerate(("NEXT", "LEFT", "RIGHT")):
        aimed = aimed + op[:, KINDS[name], None] * torch.einsum("bs,bsa->ba", first, pointers[:, place])
    aimed = aimed + op[:, KINDS["NEW"], None] * somewhere
    dropped = op[:, KINDS["DROP"], None] * first * kinds[..., KINDS["DATA"]] * _not_nil(first)
    # The counter: it steps, jumps or stays; nothing happens where it would leave the memory.
    equal = op[:, KINDS["JUMP"]] * (x * y).sum(-1)
    passing = op[:, KINDS["JUMP"]] - equal
    inside = (1 - pc[:, -1])[:, None]
    moving = (written.sum(-1) + aimed.sum(-1) + dropped.sum(-1) + passing)[:, None]
    frozen = 1 - equal[:, None] - moving * inside
    after = choose(moving * _shifted(pc) + equal[:, None] * target + frozen * pc)
    written, carried, aimed, dropped = (inside * each for each in (written, carried, aimed, dropped))
    fresh = inside * op[:, KINDS["NEW"], None] * somewhere
    # Write: what is allocated is emptied, what is freed heads the free list, then the destination.
    free = state.free * (1 - fresh.sum(-1, keepdim=True)) + torch.einsum("bs,bsa->ba", fresh, following)
    free = free * (1 - dropped.sum(-1, keepdim=True)) + dropped
    kinds = _set(_set(kinds, fresh, _unit(kinds, KINDS["DATA"])), dropped, _unit(kinds, KINDS["FREE"]))
    contents = _set(contents, fresh, _unit(contents, 0))
    contents = contents * (1 - target * written.sum(-1, keepdim=True))[..., None] + target[..., None] * written[:, None]
    nexts, *others = (_set(each, fresh, _unit(each, 0)) for each in pointers.unbind(1))
    nexts = nexts * (1 - dropped)[..., None] + dropped[..., None] * state.free[:, None]
    nexts = nexts * (1 - target * aimed.sum(-1, keepdim=True))[..., None] + target[..., None] * aimed[:, None]
    carry = carry * (1 - carried.sum(-1, keepdim=True)) + carried
    return State(kinds, torch.stack([nexts, *others], dim=1), contents, after, carry, free)


def _order(p: Tensor, q: Tensor) -> Tensor:
    """How two addresses compare, [batch, 3]: equal, less, greater."""
    equal = (p * q).sum(-1)
    less = (p * (q.flip(-1).cumsum(-1).flip(-1) - q)).sum(-1)  # of each p, the mass of q above it
    greater = (p * (q.cumsum(-1) - q)).sum(-1)
    return torch.stack([equal, less, greater], dim=-1)


def _shifted(x: Tensor) -> Tensor:
    """Every address one further; what stood at the last is gone."""
    return F.pad(x[..., :-1], (1, 0))


def _not_nil(x: Tensor) -> Tensor:
    """1 at every address but 0."""
    return (torch.arange(x.shape[-1], device=x.device) > 0).to(x.dtype)


def _unit(x: Tensor, index: int) -> Tensor:
    """The one-hot of an index of the last axis."""
    return F.one_hot(torch.tensor(index, device=x.device), x.shape[-1]).to(x.dtype)


def _set(field: Tensor, where: Tensor, value: Tensor) -> Tensor:
    """A field [batch, slot, value] set to a value [value] as far as `where` [batch, slot] says so."""
    return field * (1 - where)[..., None] + where[..., None] * value
