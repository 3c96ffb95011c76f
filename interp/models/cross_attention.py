"""Cross-attention: queries from one residual stream, keys and values from another; and the block that has it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.attention import Attention
from interp.models.block import input_axis, self_attend
from interp.models.config import TransformerConfig
from interp.models.hooks import live
from interp.models.kv_cache import KeyValueCache
from interp.models.mlp import MLP, GatedMLP
from interp.models.norms import make_norm
from interp.models.rotary import Rotary


class CrossAttention(Attention):
    """Attention from the answer's positions to the prompt's. Everything but where it reads is Attention's."""

    def __init__(self, answer: TransformerConfig, prompt: TransformerConfig, *, layer: int = 0) -> None:
        super().__init__(answer, layer=layer)
        self.causal, self.distance_bias = False, None
        self.prompt_rotary = Rotary(prompt) if prompt.rotary else None
        del self.hook_attn_in  # queries and keys have no input in common

    def cross(self, x: Tensor, memory: Tensor) -> Tensor:
        """From what queries read and what keys and values read to the block's write [batch, answer_pos, d_model].

        Args:
            x: normalised, [batch, answer_pos, d_model]; or each head's own, [batch, answer_pos, head, d_model].
            memory: normalised, [batch, prompt_pos, d_model]; or each head's key input, then value input,
                [batch, prompt_pos, 2 * head, d_model].
        """
        return self.attend(self._queries(x), *self.remembered(memory), memory)

    def remembered(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompt, [batch, prompt_pos, head, d_head] each, before any hook."""
        width = self.n_heads * self.d_head
        bias = None if self.qkv.bias is None else self.qkv.bias[width:]
        if memory.ndim == 3:
            both = F.linear(memory, self.qkv.weight[width:], bias).unflatten(-1, (2 * self.n_heads, self.d_head))
        else:
            weight = self.qkv.weight[width:].unflatten(0, (2 * self.n_heads, self.d_head))
            both = torch.einsum("bphm,hdm->bphd", memory, weight)
            both = both if bias is None else both + bias.view(2 * self.n_heads, self.d_head)
        k, v = both.chunk(2, dim=2)
        return k, v

    def _queries(self, x: Tensor) -> Tensor:
        width = self.n_heads * self.d_head
        bias = None if self.qkv.bias is None else self.qkv.bias[:width]
        if x.ndim == 3:
            return F.linear(x, self.qkv.weight[:width], bias).unflatten(-1, (self.n_heads, self.d_head))
        q = torch.einsum("bphm,hdm->bphd", x, self.qkv.weight[:width].unflatten(0, (self.n_heads, self.d_head)))
        return q if bias is None else q + bias.view(self.n_heads, self.d_head)

    def turned(self, q: Tensor, k: Tensor, *, start: int) -> tuple[Tensor, Tensor]:
        """See Attention; the keys stand on the prompt's side."""
        assert self.rotary is not None and self.prompt_rotary is not None
        return self.rotary(q, start=self.first), self.prompt_rotary(k)

    first: int = 0  # the answer position of the first query, when an answer is written token by token

    def fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """z [batch, head, query_pos, d_head] without the pattern; every query sees the whole prompt."""
        return F.scaled_dot_product_attention(q, k, v)


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention to the prompt and an MLP, each adding what it writes.

    The prompt's residual stream has a norm of this block's own, `ln_memory`, before its keys and values are made.
    """

    def __init__(self, answer: TransformerConfig, prompt: TransformerConfig, *, layer: int = 0) -> None:
        super().__init__()
        norm = {"kind": answer.normalization_type, "eps": answer.eps, "bias": answer.use_bias}
        self.hook_resid_pre = HookPoint()  # [batch, answer_pos, d_model]
        self.ln1 = make_norm(answer.d_model, **norm)
        self.self_attn = Attention(answer, layer=layer)
        self.hook_attn_out = HookPoint()  # [batch, answer_pos, d_model]
        self.hook_resid_mid = HookPoint()  # [batch, answer_pos, d_model]
        self.hook_cross_attn_in = HookPoint()  # [batch, answer_pos, d_model], what queries are made of
        self.ln2 = make_norm(answer.d_model, **norm)
        self.ln_memory = make_norm(answer.d_model, **norm)
        self.cross_attn = CrossAttention(answer, prompt, layer=layer)
        self.hook_cross_attn_out = HookPoint()  # [batch, answer_pos, d_model]
        self.hook_resid_mid2 = HookPoint()  # [batch, answer_pos, d_model]
        self.hook_mlp_in = HookPoint()  # [batch, answer_pos, d_model]
        self.ln3 = make_norm(answer.d_model, **norm)
        self.mlp = GatedMLP(answer) if answer.gated_mlp else MLP(answer)
        self.hook_mlp_out = HookPoint()  # [batch, answer_pos, d_model]
        self.hook_resid_post = HookPoint()  # [batch, answer_pos, d_model]

    def forward(self, resid: Tensor, prompt: Tensor, *, past: KeyValueCache | None = None) -> Tensor:
        """The answer's residual stream [batch, answer_pos, d_model] in and out.

        Args:
            resid: as above; with `past` of new positions alone.
            prompt: the prompt's residual stream, [batch, prompt_pos, d_model], before any norm.
            past: keys and values of the answer's earlier positions.
        """
        resid = self.hook_resid_pre(resid)
        resid = resid + self.hook_attn_out(self_attend(self.self_attn, self.ln1, resid, past=past))
        resid = self.hook_resid_mid(resid)
        self.cross_attn.first = 0 if past is None else past.length
        resid = resid + self.hook_cross_attn_out(self._cross(resid, prompt))
        resid = self.hook_resid_mid2(resid)
        mlp_in = self.hook_mlp_in(resid.clone()) if live(self.hook_mlp_in) else resid
        resid = resid + self.hook_mlp_out(self.mlp(self.ln3(mlp_in)))
        return self.hook_resid_post(resid)

    def input_axes(self) -> dict[str, str]:
        """By norm the further axis that its input has while a split input is listened to, as `axes` names it."""
        cross = {"ln2": "head", "ln_memory": "memory_reader"} if self._split else {}
        own = input_axis(self.self_attn)
        return cross if own is None else cross | {"ln1": own}

    @property
    def _split(self) -> bool:
        cross = self.cross_attn
        return live(cross.hook_q_input, cross.hook_k_input, cross.hook_v_input)

    def _cross(self, resid: Tensor, prompt: Tensor) -> Tensor:
        attn = self.cross_attn
        if live(self.hook_cross_attn_in):
            resid = self.hook_cross_attn_in(resid.clone())
        if not self._split:
            return attn.cross(self.ln2(resid), self.ln_memory(prompt))
        # Each head reads streams of its own: [batch, pos, head, d_model] for queries, keys and values.
        q, k, v = (each.unsqueeze(2).expand(-1, -1, attn.n_heads, -1).clone() for each in (resid, prompt, prompt))
        memory = torch.cat([attn.hook_k_input(k), attn.hook_v_input(v)], dim=2)
        return attn.cross(self.ln2(attn.hook_q_input(q)), self.ln_memory(memory))
