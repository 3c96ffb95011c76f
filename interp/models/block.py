"""One pre-norm block: attention and an MLP, each adding to the residual stream what it writes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.attention import Attention
from interp.models.config import TransformerConfig
from interp.models.hooks import live
from interp.models.kv_cache import KeyValueCache
from interp.models.mlp import MLP, GatedMLP
from interp.models.norms import make_norm


class TransformerBlock(nn.Module):
    """`resid_mid = resid_pre + attn(ln1(resid_pre))`, then `resid_post = resid_mid + mlp(ln2(resid_mid))`."""

    hook_out_is_single_residual_stream = True  # what TransformerLens's logit lens asks

    def __init__(self, cfg: TransformerConfig, *, layer: int = 0) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()  # [batch, pos, d_model]
        self.ln1 = make_norm(cfg.d_model, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.attn = Attention(cfg, layer=layer)
        self.hook_attn_out = HookPoint()  # [batch, pos, d_model]
        self.mlp = None
        if not cfg.attn_only:
            self.hook_resid_mid = HookPoint()  # [batch, pos, d_model]
            self.hook_mlp_in = HookPoint()  # [batch, pos, d_model]
            self.ln2 = make_norm(cfg.d_model, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
            self.mlp = GatedMLP(cfg) if cfg.gated_mlp else MLP(cfg)
            self.hook_mlp_out = HookPoint()  # [batch, pos, d_model]
        self.hook_resid_post = HookPoint()  # [batch, pos, d_model]

    def forward(self, resid: Tensor, *, past: KeyValueCache | None = None) -> Tensor:
        """Residual stream [batch, pos, d_model] in and out; `past` holds what the block has read before it."""
        resid = self.hook_resid_pre(resid)
        resid = resid + self.hook_attn_out(self_attend(self.attn, self.ln1, resid, past=past))
        if self.mlp is not None:
            resid = self.hook_resid_mid(resid)
            mlp_in = self.hook_mlp_in(resid.clone()) if live(self.hook_mlp_in) else resid
            resid = resid + self.hook_mlp_out(self.mlp(self.ln2(mlp_in)))
        return self.hook_resid_post(resid)

    def input_axis(self) -> str | None:
        """The axis that the input of attention has while one of the split inputs is listened to, else None."""
        return input_axis(self.attn)


def input_axis(attn: Attention) -> str | None:
    """The further axis that the input of self-attention has while one of its split inputs is listened to, else None.

    `reader` for the heads' queries, keys, then values (3 * n_heads), `head` where only hook_attn_in is.
    """
    if live(attn.hook_q_input, attn.hook_k_input, attn.hook_v_input):
        return "reader"
    return "head" if live(attn.hook_attn_in) else None


def self_attend(attn: Attention, norm: nn.Module, resid: Tensor, *, past: KeyValueCache | None = None) -> Tensor:
    """What attention writes, [batch, pos, d_model], from the residual stream before its norm.

    While a split input is listened to each head reads a stream of its own, and the norm fires once on all of them.
    """
    axis = input_axis(attn)
    if axis is None:
        return attn(norm(resid), past=past)
    copies = resid.unsqueeze(2).expand(-1, -1, attn.n_heads, -1)  # [batch, pos, head, d_model]
    if live(attn.hook_attn_in):
        copies = attn.hook_attn_in(copies.clone())
    if axis == "reader":
        points = (attn.hook_q_input, attn.hook_k_input, attn.hook_v_input)
        normalized = norm(torch.cat([point(copies.clone()) for point in points], dim=2))
    else:
        normalized = norm(copies).repeat(1, 1, 3, 1)  # the same input for query, key and value
    return attn(normalized, past=past)  # [batch, pos, 3 * head, d_model] in
