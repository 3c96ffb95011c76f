"""A differentiable computer: a transformer writes a memory of slots, and a machine runs it without the transformer.

    1. Plan. The last n_slots positions of the sequence are the slots of memory. From the residual stream at its
       position the controller gives each slot a distribution over kinds, over contents and, for each of its three
       pointers, over addresses, by attention from the slot to all slots. Slot 0 also says where the free list begins.
       With `pointer_reach`, keys of near addresses also say how far off they are (Shaw et al. 2018): "the one before".
    2. Execution. The counter starts at slot 1; `slot_memory.step` is applied max_steps times. A run that has halted
       stays as it is.
    3. Answer. Logits at a slot's position are the logarithms of what its content is in the end; those at positions
       before the memory are the controller's own.

The machine is LlamaCPU's idea (compile a task into slots, execute them by a counter through a neural ALU) with the
gradient through the whole trace, as in the neural Turing machine (Graves et al. 2014) and TerpreT (Gaunt et al. 2016).
Hard execution takes the likeliest everywhere, with a straight-through gradient (Bengio et al. 2013): its tensors are
the one-hots of the symbolic machine. Soft execution comes to it as the temperature falls.

Hook points besides the transformer's, each fired once, stacked over steps:

    hook_plan           [batch, slot, planned], logits of the plan: kind, content, then next, left, right and free
    hook_pc             [batch, step, address], of the slot that the step executes
    hook_op             [batch, step, kind]
    hook_read_weights   [batch, step, argument, address]
    hook_write_weights  [batch, step, address], where the destination is
    hook_alu_in         [batch, step, alu_in], the two contents that are read, and the carry
    hook_alu_out        [batch, step, alu_out], the content that is written, and the carry; no mass where nothing is
    hook_registers      [batch, step, register], carry and first free slot after the step
    hook_memory         [batch, step, slot, held], kind, next, left, right and content after the step

An edit at any of them is made in the run itself: all later steps go on from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.hooks import live, live_backward
from interp.models.initial_weights import draw_weights
from interp.models.propagation import ask
from interp.models.scattered_positions import ScatteredPositions
from interp.models.slot_machine_config import SlotMachineConfig
from interp.models.slot_memory import (
    N_KINDS,
    N_POINTERS,
    LearnedALU,
    State,
    TableALU,
    harden,
    modes,
    step,
)
from interp.models.transformer import Transformer

MACHINE_HOOKS = ("pc", "op", "read_weights", "alu_in", "alu_out", "write_weights", "registers", "memory")
_LEAST = 1e-6  # probability below which the logarithm is cut off


class Plan(NamedTuple):
    """Logits of a memory; `free` is where the free list begins."""

    kinds: Tensor  # [batch, slot, kind]
    contents: Tensor  # [batch, slot, value]
    pointers: Tensor  # [batch, 3, slot, address]
    free: Tensor  # [batch, address]


class Executed(NamedTuple):
    """What a run of the machine was."""

    plan: Plan | None  # None where the memory was given
    trace: dict[str, Tensor]  # by MACHINE_HOOKS, [batch, step, …]
    final: State


class SlotMachine(Transformer):
    """The model of this module's docstring; `build_model(cfg)` makes one with initial weights from `cfg.seed`."""

    cfg: SlotMachineConfig  # type: ignore[assignment]
    bits: Tensor

    declared_axes = {  # noqa: RUF012  # a constant of the class
        **Transformer.declared_axes,
        "hook_plan": ("batch", "slot", "planned"),
        "hook_pc": ("batch", "step", "address"),
        "hook_op": ("batch", "step", "kind"),
        "hook_read_weights": ("batch", "step", "argument", "address"),
        "hook_write_weights": ("batch", "step", "address"),
        "hook_alu_in": ("batch", "step", "alu_in"),
        "hook_alu_out": ("batch", "step", "alu_out"),
        "hook_registers": ("batch", "step", "register"),
        "hook_memory": ("batch", "step", "slot", "held"),
    }

    def __init__(self, cfg: SlotMachineConfig) -> None:
        super().__init__(cfg)
        cfg = self.cfg.as_written
        if cfg.index_table_size:
            self.pos_embed = ScatteredPositions(cfg)
        d, n_pointers = cfg.d_model, N_POINTERS + 1  # and one for the free list
        self.unembed_kind, self.unembed_content = nn.Linear(d, N_KINDS), nn.Linear(d, cfg.n_values)
        self.pointer_queries = nn.Linear(d, n_pointers * cfg.d_head, bias=False)
        self.pointer_keys = nn.Linear(d, n_pointers * cfg.d_head, bias=False)
        if cfg.pointer_reach:
            self.near_keys = nn.Parameter(torch.empty(2 * cfg.pointer_reach + 1, n_pointers * cfg.d_head))
        learned = cfg.alu == "learned"
        self.alu = LearnedALU(cfg.n_values, cfg.d_alu) if learned else TableALU(cfg.base, cfg.n_values)
        self.register_buffer("bits", modes(cfg.n_values), persistent=False)
        self.hook_plan = HookPoint()  # [batch, slot, field]
        for name in MACHINE_HOOKS:
            self.add_module(f"hook_{name}", HookPoint())  # [batch, step, …]
        draw_weights(self, depth=cfg.n_layers)
        self.to(getattr(torch, cfg.dtype))
        self.setup()
        for name in list(self.hook_dict):
            if name.endswith(("_input", "hook_attn_in")):
                self.add_alias(name.replace(".attn.", "."), name)

    def reset_parameters(self) -> None:
        """Draw every weight anew from `cfg.seed`, see `draw_weights`."""
        draw_weights(self, depth=self.cfg.n_layers)

    def compute(  # type: ignore[override]
        self,
        tokens: Tensor,
        *,
        memory: Tensor | None = None,
        n_steps: int | None = None,
        returned: Literal["logits", "plan", "run"] = "logits",
        detach_before: int = 0,
    ) -> Any:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]: prompt, then a blank for each slot of memory.

        Args:
            tokens: integers [batch, n_ctx].
            memory: run this one in place of the controller's, integers [batch, 5 * slots + 3]; see `given_state`.
            n_steps: how many at most; None: max_steps.
            returned: "plan": the plan alone, nothing is executed; "run": an Executed.
            detach_before: no gradient flows through the state that enters the step of this number, nor before it.

        Raises:
            ValueError: tokens that are no whole sequence, or a value out of range.
        """
        cfg = self.cfg
        steps = cfg.max_steps if n_steps is None else n_steps
        if not 1 <= steps <= cfg.max_steps:
            raise ValueError(f"n_steps must be from 1 to max_steps = {cfg.max_steps}; got {n_steps}")
        resid = self.with_gradient(self._embed(tokens))
        if tokens.shape[1] != cfg.n_ctx:
            raise ValueError(
                f"tokens must be a prompt and {cfg.n_slots} slots, {cfg.n_ctx} in all; got {tokens.shape[1]}"
            )
        for block in self.blocks:
            resid = block(resid)
        resid = self.ln_final(resid)
        plan = None
        if memory is None:
            plan = self._plan(resid[:, -cfg.n_slots :])
            if returned == "plan":
                return plan
            state = self.planned_state(plan)
        else:
            state = self.given_state(memory)
        executed = self._execute(state, steps, detach_before)
        if returned == "run":
            return executed._replace(plan=plan)
        held = F.pad(executed.final.contents, (0, cfg.d_vocab - cfg.n_values))
        return torch.cat([self.unembed(resid[:, : -cfg.n_slots]), held.clamp(min=_LEAST).log()], dim=1)

    def answer(self, task: Any, batch: Any) -> Any:
        """What the answer's slots hold in the end: of the controller's plan, or with `plan_given` of the true one."""
        if not self.cfg.plan_given:
            return super().answer(task, batch)
        memory = task.memories(batch).to(batch.tokens.device)
        return task.answer(lambda tokens: self(tokens, memory=memory), batch)

    # The plan.

    def _plan(self, resid: Tensor) -> Plan:
        """What the controller writes, from the normalised stream at the slots, [batch, slot, d_model]."""
        n, d_head = N_POINTERS + 1, self.cfg.d_head
        query, key = (layer(resid).unflatten(-1, (n, d_head)) for layer in (self.pointer_queries, self.pointer_keys))
        pointers = torch.einsum("bskd,btkd->bskt", query, key) / d_head**0.5  # [batch, slot, pointer, address]
        if self.cfg.pointer_reach:
            pointers = pointers + self._nearness(query)
        parts = [self.unembed_kind(resid), self.unembed_content(resid), pointers.flatten(2)]
        plan = self.hook_plan(torch.cat(parts, dim=-1))
        kinds, contents, flat = plan.split([N_KINDS, self.cfg.n_values, n * self.cfg.n_slots], dim=-1)
        pointers = flat.unflatten(-1, (n, self.cfg.n_slots)).transpose(1, 2)  # [batch, pointer, slot, address]
        return Plan(kinds, contents, pointers[:, :N_POINTERS], pointers[:, N_POINTERS, 0])

    def _nearness(self, query: Tensor) -> Tensor:
        """What queries [batch, slot, pointer, d_head] make of how far off an address is, 0 beyond `pointer_reach`."""
        reach, slots = self.cfg.pointer_reach, torch.arange(query.shape[1], device=query.device)
        score = torch.einsum("bskd,rkd->bskr", query, self.near_keys.unflatten(-1, (-1, self.cfg.d_head)))
        score = F.pad(score, (0, 1)) / self.cfg.d_head**0.5  # the last: too far off
        off = slots[None, :] - slots[:, None] + reach  # [slot, address]
        off = torch.where((off >= 0) & (off <= 2 * reach), off, 2 * reach + 1)
        return score.gather(-1, off[None, :, None, :].expand(len(query), -1, query.shape[2], -1))

    def planned_state(self, plan: Plan) -> State:
        """The state before the first step that a plan's logits say: distributions, one-hots in hard execution."""
        kinds, contents, pointers, free = (F.softmax(each / self.cfg.temperature, dim=-1) for each in plan)
        if self.cfg.execution == "hard":
            kinds, contents, pointers, free = (harden(each) for each in (kinds, contents, pointers, free))
        return self._started(State(kinds, pointers, contents, free, free, free))

    def _started(self, state: State) -> State:
        """A state with the registers as they are before the first step: the counter at slot 1, nothing carried."""
        pc = F.one_hot(torch.ones(len(state.free), dtype=torch.long, device=state.free.device), self.cfg.n_slots)
        carry = F.one_hot(torch.zeros(len(state.free), dtype=torch.long, device=state.free.device), 2)
        return state._replace(pc=pc.to(state.free.dtype), carry=carry.to(state.free.dtype))

    def given_state(self, memory: Tensor) -> State:
        """The one-hots of a memory before its first step.

        Args:
            memory: integers [batch, 5 * slots + 3] as `cython_vm.slots` lays them out; its counter and carry too are
                taken from there.

        Raises:
            ValueError: of another width.
        """
        s, v, dtype = self.cfg.n_slots, self.cfg.n_values, self.dtype
        if memory.ndim != 2 or memory.shape[1] != 5 * s + 3:
            raise ValueError(f"memory must be integers [batch, {5 * s + 3}]; got {list(memory.shape)}")
        kinds, following, left, right, contents, registers = memory.long().split([s, s, s, s, s, 3], dim=1)
        pointers = torch.stack([F.one_hot(each, s) for each in (following, left, right)], dim=1)
        pc, carry, free = registers.unbind(1)
        state = State(
            F.one_hot(kinds, N_KINDS), pointers, F.one_hot(contents, v), F.one_hot(pc, s), F.one_hot(carry, 2),
            F.one_hot(free, s),
        )  # fmt: skip
        return State(*(each.to(dtype) for each in state))

    # The execution.

    def _execute(self, state: State, n_steps: int, detach_before: int) -> Executed:
        """Run, with every edit that hooks make; hooks fire in the order of MACHINE_HOOKS, each once."""
        points = {name: cast(HookPoint, self.get_submodule(f"hook_{name}")) for name in MACHINE_HOOKS}
        listening = [name for name in MACHINE_HOOKS if live(points[name])]
        sets: dict[str, list[Callable[[Tensor], Tensor]]] = {}
        trace: dict[str, Tensor] | None = None
        for name in listening:
            backward = live_backward(points[name])
            with torch.set_grad_enabled(torch.is_grad_enabled() and not backward):
                if trace is None or backward:
                    trace, _ = self._run(state, n_steps, sets, detach_before, keep=True)
            given = trace[name].detach().requires_grad_() if backward else trace[name]
            edit = ask(points[name], given)
            if backward or not edit.empty:
                sets[name], trace = edit.steps(), None
        trace, final = self._run(state, n_steps, sets, detach_before, keep=bool(listening) or torch.is_grad_enabled())
        return Executed(None, trace, final)

    def _run(
        self,
        state: State,
        n_steps: int,
        sets: dict[str, list[Callable[[Tensor], Tensor]]],
        detach_before: int,
        *,
        keep: bool,
    ) -> tuple[dict[str, Tensor], State]:
        """What was met at every step, [batch, step, …] by MACHINE_HOOKS ({} unless kept), and the last state."""
        hard, kept = self.cfg.execution == "hard", {name: [] for name in MACHINE_HOOKS}
        for t in range(n_steps):
            if t and t == detach_before:
                state = State(*(each.detach() for each in state))

            def seen(name: str, value: Tensor, t: int = t) -> Tensor:
                value = sets[name][t](value) if name in sets else value
                if keep:
                    kept[name].append(value)
                return value

            before = state
            state = step(state, self.alu, self.bits, hard=hard, temperature=self.cfg.temperature, seen=seen)
            if keep or sets:
                state = state.with_registers(seen("registers", state.registers()))
                state = state.with_memory(seen("memory", state.memory()))
            if not keep and not sets and hard and all(torch.equal(a, b) for a, b in zip(before, state, strict=True)):
                break  # every row stands still
        return {name: torch.stack(each, dim=1) for name, each in kept.items() if each}, state

    # Facts.

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Those of the blocks, of the pointers' queries and keys, and of a learned ALU."""
        inside = ("blocks.", "pointer_", "alu.")
        return [p for name, p in self.named_parameters() if name.startswith(inside) and p.ndim == 2]

    @property
    def can_enter_layers(self) -> bool:
        """False: the machine behind the layers is no layer."""
        return False

    @property
    def has_residual_parts(self) -> bool:
        """False: the answer is no sum of what is written to the stream."""
        return False

    def graph(self) -> None:
        """None: between the controller and the answer lies the execution."""

    def fast_pass(self) -> None:
        """None: nothing is read off the stream."""

    @property
    def fixed_point(self) -> None:
        """None: an answer is not written from left to right."""
