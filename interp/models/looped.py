"""The looped transformer: a prelude, a core of shared blocks run again and again, a coda.

    e = prelude(embed(tokens));  h_0 = 0 (injection none: e)
    h_t = core(h_{t-1} with e injected, and the step's vector);  logits = unembed(coda(h_T))

The Universal Transformer (Dehghani et al. 2019) is the case without prelude and coda, with step vectors and injection
"none"; "concatenate" with a carry head and halting at a fixed point is the iterative-thinking model.

Hook points, `{t}` a step from 0, `{l}` a block from 0; `blocks` have all hook points of a transformer's, apart
for every step over one set of weights, so that a cache keeps every step and a patch at step 3 touches step 3 alone:

    hook_embed, hook_pos_embed          [batch, pos, d_model]
    prelude.blocks.{l}.…                once
    hook_input                          [batch, pos, d_model], e, which enters every step
    steps.{t}.blocks.{l}.…              t < max_loops
    steps.{t}.hook_carry                [batch, pos, d_model], h_{t+1}
    hook_carry                          [batch, step, pos, d_model], the same of all steps, fired once
    hook_halt_logit                     [batch, step], with a halting head
    coda.blocks.{l}.…                   once
    ln_final.…

An edit at the stacked `hook_carry` propagates: elements that differ from what the hook was given are set, and later
steps run again from there, past their own hook points. With backward hooks there, the gradient is a carry's whole
effect.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.base import HookedModel
from interp.models.block import TransformerBlock
from interp.models.embed import POSITIONS, Embed, Unembed
from interp.models.halting import step_weights
from interp.models.hooks import listened_to, live, live_backward
from interp.models.initial_weights import draw_weights
from interp.models.looped_config import LoopedConfig
from interp.models.looped_facts import LoopedFacts
from interp.models.norms import make_norm
from interp.models.propagation import Edit, ask
from interp.models.transformer import Transformer


class Thoughts(NamedTuple):
    """What every step would answer, and when each row halts."""

    answer: Tensor  # [batch, pos, d_vocab], logits of the carries as the halting rule weighs them
    logits: Tensor  # [batch, step, pos, d_vocab]
    halt_logits: Tensor | None  # [batch, step]
    carries: Tensor  # [batch, step, pos, d_model]
    weights: Tensor  # [batch, step], of each step's carry in the answer; rows sum to 1


class LoopStep(nn.Module):
    """One step's hook points over the core's weights. It holds no weights of its own: its state dict is empty."""

    def __init__(self, core: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(view(block) for block in core)
        self.hook_carry = HookPoint()  # [batch, pos, d_model]

    def state_dict(self, *args: Any, destination: Any = None, **options: Any) -> Any:
        """Nothing: the weights are the core's."""
        return {} if destination is None else destination


def view(module: nn.Module) -> nn.Module:
    """A module with the same parameters and buffers, and hook points of its own."""
    if isinstance(module, HookPoint):
        return HookPoint()
    other = copy.copy(module)
    other._parameters, other._buffers = module._parameters, module._buffers  # the very same: a move moves both
    other._modules = {name: None if child is None else view(child) for name, child in module._modules.items()}
    return other


class Stack(nn.Module):
    """Blocks that are run once."""

    def __init__(self, cfg: LoopedConfig, n: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(cfg, layer=layer) for layer in range(n))

    def forward(self, resid: Tensor) -> Tensor:
        """Residual stream [batch, pos, d_model] in and out."""
        for block in self.blocks:
            resid = block(resid)
        return resid


class Looped(LoopedFacts, HookedModel):
    """The model of this module's docstring; `build_model(cfg)` makes one with initial weights from `cfg.seed`."""

    switches = Transformer.switches
    set_use_attn_result = Transformer.set_use_attn_result
    set_use_split_qkv_input = Transformer.set_use_split_qkv_input
    set_use_attn_in = Transformer.set_use_attn_in
    set_use_hook_mlp_in = Transformer.set_use_hook_mlp_in
    _switch = Transformer._switch
    _embed = Transformer._embed

    def __init__(self, cfg: LoopedConfig) -> None:
        super().__init__()
        cfg = cfg.as_written
        self.cfg = cfg
        self.embed = Embed(cfg)
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.pos_embed = None
        if cfg.positional_embedding_type in POSITIONS:
            self.pos_embed = POSITIONS[cfg.positional_embedding_type](cfg)
            self.hook_pos_embed = HookPoint()  # [batch, pos, d_model]
        self.prelude = Stack(cfg, cfg.n_prelude)
        self.hook_input = HookPoint()  # [batch, pos, d_model]
        core = nn.ModuleList(TransformerBlock(cfg, layer=layer) for layer in range(cfg.n_layers))
        self.core = core  # the weights; its own hook points are left out below, each step has others
        self.embed_steps = nn.Parameter(torch.empty(cfg.most_loops, cfg.d_model)) if cfg.step_embedding else None
        joined = cfg.injection == "concatenate"
        self.join = nn.Linear(2 * cfg.d_model, cfg.d_model, bias=False) if joined else None
        self.carry_head = nn.Linear(cfg.d_model, cfg.d_model, bias=False) if cfg.carry_head else None
        norm = {"eps": cfg.eps, "bias": cfg.use_bias}
        self.carry_norm = make_norm(cfg.d_model, kind=cfg.normalization_type if cfg.carry_norm else None, **norm)
        self.steps = nn.ModuleList(LoopStep(core) for _ in range(cfg.most_loops))
        self.hook_carry = HookPoint()  # [batch, step, pos, d_model]
        if cfg.has_halting_head:
            self.halt_weight = nn.Parameter(torch.empty(cfg.d_model))
            self.halt_bias = nn.Parameter(torch.empty(1))
            self.hook_halt_logit = HookPoint()  # [batch, step]
        self.coda = Stack(cfg, cfg.n_coda)
        self.ln_final = make_norm(cfg.d_model, kind=cfg.normalization_type, **norm)
        self.unembed = Unembed(cfg, embed=self.embed)
        self.loop_steps: int | None = None  # how many are forced, see `looping`
        self.reset_parameters()
        self.to(getattr(torch, cfg.dtype))
        self.register_load_state_dict_post_hook(_forget_steps)
        self.setup()
        for name in list(self.hook_dict):
            if name.startswith("core.") or ".carry_norm." in f".{name}":
                del self.hook_dict[name], self.mod_dict[name]
            elif name.endswith(("_input", "hook_attn_in")) and ".attn." in name:
                self.add_alias(name.replace(".attn.", "."), name)

    def reset_parameters(self) -> None:
        """Draw every weight anew from `cfg.seed`, as the transformer does; a halting head begins at 0, its bias too."""
        depth = self.cfg.n_prelude + self.cfg.n_layers * self.cfg.n_loops + self.cfg.n_coda
        draw_weights(self, depth=depth, zeros=("halt_weight",))

    @contextmanager
    def looping(self, steps: int | None) -> Iterator[None]:
        """Inside, every pass runs exactly so many steps and halts nowhere; None: as the configuration says.

        Raises:
            ValueError: not from 1 to max_loops.
        """
        before, self.loop_steps = self.loop_steps, self._checked(steps)
        try:
            yield
        finally:
            self.loop_steps = before

    def _checked(self, steps: int | None) -> int | None:
        if steps is not None and not 1 <= steps <= self.cfg.most_loops:
            raise ValueError(f"loop_steps must be from 1 to max_loops = {self.cfg.most_loops}; got {steps}")
        return steps

    def compute(
        self, tokens: Tensor, *, loop_steps: int | None = None, detach_before: int = 0, thoughts: bool = False
    ) -> Any:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos].

        Args:
            tokens: integers [batch, pos], pos <= n_ctx.
            loop_steps: run exactly so many steps and halt nowhere; None: n_loops, or until each row halts.
            detach_before: no gradient flows through the carry that enters the step of this number, nor before it.
            thoughts: return what every step would answer, a `Thoughts`, whose weights halt within loop_steps too.

        Raises:
            ValueError: tokens that do not fit, or loop_steps out of range.
        """
        forced = self._checked(loop_steps if loop_steps is not None else self.loop_steps)
        n_steps = self.cfg.n_loops if forced is None else forced
        halting = self.cfg.halting if forced is None or thoughts else "none"
        resid = self.with_gradient(self._embed(tokens))
        injected = self.hook_input(self.prelude(resid))
        early = halting != "none" and not thoughts and not torch.is_grad_enabled() and not listened_to(self)
        edit: Edit | None = None
        if live_backward(self.hook_carry):  # the gradient is to be the whole effect: first what is carried, quietly
            with torch.no_grad():
                given = self._run(injected, n_steps, quiet=True)
            edit = ask(self.hook_carry, given.requires_grad_())
        stopping = halting if early else None
        carries = self._run(injected, n_steps, edit=edit, detach_before=detach_before, halting=stopping)
        if edit is None and live(self.hook_carry):
            edit = ask(self.hook_carry, carries)
            carries = edit.returned if edit.empty else self._run(injected, n_steps, edit=edit, quiet=True)
        halt_logits = self._halt_logits(carries)
        weights = step_weights(
            halting, carries, halt_logits, threshold=self.cfg.halt_threshold, periods=self.cfg.halt_periods
        )
        final = carries[:, -1] if halting == "none" else torch.einsum("bt,btpd->bpd", weights, carries)
        answer = self._answer_from(final)
        if not thoughts:
            return answer
        every = self._answer_from(carries.flatten(0, 1)).unflatten(0, carries.shape[:2])
        return Thoughts(answer, every, halt_logits, carries, weights)

    def _run(
        self,
        injected: Tensor,
        n_steps: int,
        *,
        edit: Edit | None = None,
        quiet: bool = False,
        detach_before: int = 0,
        halting: str | None = None,
    ) -> Tensor:
        """The carries [batch, step, pos, d_model]; `quiet` past the steps' hook points; fewer where all rows halt."""
        carry = injected if self.cfg.injection == "none" else torch.zeros_like(injected)
        sets = None if edit is None else edit.steps()
        carries = []
        for t in range(n_steps):
            if t and t == detach_before:
                carry = carry.detach()
            step = cast(LoopStep, self.steps[t])
            resid = self._entered(carry, injected, t)
            for block in self.core if quiet else step.blocks:
                resid = block(resid)
            carry = self.carry_norm(resid if self.carry_head is None else self.carry_head(resid))
            if not quiet:
                carry = step.hook_carry(carry)
            if sets is not None:
                carry = sets[t](carry)
            carries.append(carry)
            if halting is not None and t + 1 < n_steps and self._all_halted(torch.stack(carries, dim=1), halting):
                break
        return torch.stack(carries, dim=1)

    def _entered(self, carry: Tensor, injected: Tensor, t: int) -> Tensor:
        """What enters the core at step t."""
        if self.join is not None:
            resid = self.join(torch.cat([injected, carry], dim=-1))
        else:
            resid = carry if self.cfg.injection == "none" else carry + injected
        return resid if self.embed_steps is None else resid + self.embed_steps[t]

    def _halt_logits(self, carries: Tensor) -> Tensor | None:
        """One number a row and step, from the mean over positions; None without a halting head."""
        if not self.cfg.has_halting_head:
            return None
        return self.hook_halt_logit(carries.mean(2) @ self.halt_weight + self.halt_bias)

    def _all_halted(self, carries: Tensor, halting: str) -> bool:
        """Whether no row needs another step: each has put all its weight on steps that are done."""
        logits = self._halt_logits(carries)
        further = torch.cat([carries, carries[:, -1:]], dim=1)  # a step more, which would take what is left
        if logits is not None:
            logits = torch.cat([logits, logits[:, -1:]], dim=1)
        elif halting == "fixed_point":
            further = torch.cat([carries, torch.full_like(carries[:, -1:], 1e6)], dim=1)
        weights = step_weights(
            halting, further, logits, threshold=self.cfg.halt_threshold, periods=self.cfg.halt_periods
        )
        return bool((weights[:, -1] == 0).all())

    def _answer_from(self, carry: Tensor) -> Tensor:
        return self.unembed(self.ln_final(self.coda(carry)))


def _forget_steps(module: nn.Module, incompatible: Any) -> None:
    """Steps hold no weights of their own, so none are missing."""
    missing = incompatible.missing_keys
    missing[:] = [name for name in missing if not name.startswith("steps.")]
