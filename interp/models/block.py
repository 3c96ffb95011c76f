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
        self.n_heads = cfg.n_heads
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
        attn_out = self._attend_split(resid, past) if self.input_axis() else self.attn(self.ln1(resid), past=past)
        resid = resid + self.hook_attn_out(attn_out)
        if self.mlp is not None:
            resid = self.hook_resid_mid(resid)
            mlp_in = self.hook_mlp_in(resid.clone()) if live(self.hook_mlp_in) else resid
            resid = resid + self.hook_mlp_out(self.mlp(self.ln2(mlp_in)))
        return self.hook_resid_post(resid)

    def input_axis(self) -> str | None:
        """The axis that the input of attention has while one of the split inputs is listened to, else None.

        `reader` for the heads' queries, keys, then values (3 * n_heads), `head` where only hook_attn_in is.
        """
        attn = self.attn
        if live(attn.hook_q_input, attn.hook_k_input, attn.hook_v_input):
            return "reader"
        return "head" if live(attn.hook_attn_in) else None

    def _attend_split(self, resid: Tensor, past: KeyValueCache | None) -> Tensor:
        """Attention where each head reads a residual stream of its own, and ln1 fires once on all of them."""
        copies = resid.unsqueeze(2).expand(-1, -1, self.n_heads, -1)  # [batch, pos, head, d_model]
        if live(self.attn.hook_attn_in):
            copies = self.attn.hook_attn_in(copies.clone())
        if self.input_axis() == "reader":
            points = (self.attn.hook_q_input, self.attn.hook_k_input, self.attn.hook_v_input)
            normalized = self.ln1(torch.cat([point(copies.clone()) for point in points], dim=2))
        else:
            normalized = self.ln1(copies).repeat(1, 1, 3, 1)  # the same input for query, key and value
        return self.attn(normalized, past=past)  # [batch, pos, 3 * head, d_model] in
