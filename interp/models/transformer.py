"""The transformer: pre-norm blocks on a residual stream, hooked as TransformerLens users know it.

Hook points, `{l}` a layer from 0:

    hook_embed, hook_pos_embed                                                    [batch, pos, d_model]
    blocks.{l}.hook_resid_pre, hook_resid_mid, hook_resid_post                    [batch, pos, d_model]
    blocks.{l}.hook_attn_out, hook_mlp_out                                        [batch, pos, d_model]
    blocks.{l}.ln1.hook_scale, ln2.hook_scale, ln_final.hook_scale                [batch, pos, 1]
    blocks.{l}.ln1.hook_normalized, ln2.…, ln_final.hook_normalized               [batch, pos, d_model]
    blocks.{l}.attn.hook_q, hook_k, hook_v, hook_z                                [batch, pos, head, d_head]
    blocks.{l}.attn.hook_rot_q, hook_rot_k (rotary positions: after the rotation) [batch, pos, head, d_head]
    blocks.{l}.attn.hook_w (PaTH positions; of unit length)                       [batch, pos, head, d_head]
    blocks.{l}.attn.hook_beta (PaTH positions; from 0 to 2)                       [batch, pos, head]
    blocks.{l}.attn.hook_attn_scores, hook_pattern                                [batch, head, query_pos, key_pos]
    blocks.{l}.attn.q_norm.hook_scale, hook_normalized, k_norm.…                  [batch, pos, head, 1 or d_head]
    blocks.{l}.mlp.hook_pre, hook_post, and hook_pre_linear where gated_mlp       [batch, pos, d_mlp]

and behind switches, because they cost memory:

    set_use_attn_result(True)      blocks.{l}.attn.hook_result                    [batch, pos, head, d_model]
    set_use_split_qkv_input(True)  blocks.{l}.attn.hook_q_input, hook_k_input, …  [batch, pos, head, d_model]
    set_use_attn_in(True)          blocks.{l}.attn.hook_attn_in                   [batch, pos, head, d_model]
    set_use_hook_mlp_in(True)      blocks.{l}.hook_mlp_in                         [batch, pos, d_model]

These inputs are the residual stream before the norm, a copy for each reader: each head then normalises its own. While
one of the split inputs is listened to, ln1 fires once on all of them, [batch, pos, 3 * head, …]: queries, then keys,
then values (under set_use_attn_in [batch, pos, head, …]); PaTH's w and beta read what the keys read. As in
TransformerLens 4, the attention inputs also answer to names without "attn.", such as `blocks.{l}.hook_q_input`. The
reader of the logits is `blocks.{n_layers - 1}.hook_resid_post`, the residual stream before ln_final.

With a KeyValueCache, `pos` counts the new tokens alone, and `key_pos` all that have been read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.typed_module_list import TypedModuleList

from interp.models.base import HookedModel
from interp.models.block import TransformerBlock
from interp.models.config import TransformerConfig
from interp.models.embed import POSITIONS, Embed, Unembed
from interp.models.hooks import live
from interp.models.initial_weights import draw_weights
from interp.models.kv_cache import KeyValueCache
from interp.models.norms import make_norm
from interp.models.switches import Switches
from interp.models.transformer_facts import TransformerFacts
from interp.models.weights import TransformerWeights


class Transformer(TransformerWeights, Switches, TransformerFacts, HookedModel):
    """The transformer of this module's docstring; `build_model(cfg)` makes one with initial weights from `cfg.seed`.

    Raises:
        ValueError: `tokens` are no integers [batch, pos], are too long, or hold an id outside the vocabulary.
    """

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        cfg = cfg.as_written  # of another model's cfg: without its state
        self.cfg = cfg
        self.embed = self.make_embed(cfg)
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.pos_embed = None
        if cfg.positional_embedding_type in POSITIONS:
            self.pos_embed = POSITIONS[cfg.positional_embedding_type](cfg)
            self.hook_pos_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = TypedModuleList[TransformerBlock](
            TransformerBlock(cfg, layer=layer) for layer in range(cfg.n_layers)
        )
        self.ln_final = make_norm(cfg.d_model, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.unembed = Unembed(cfg, embed=self.embed)
        self.reset_parameters()
        self.to(getattr(torch, cfg.dtype))
        self.setup()
        for name in list(self.hook_dict):
            if name.endswith(("_input", "hook_attn_in")):
                self.add_alias(name.replace(".attn.", "."), name)

    def make_embed(self, cfg: TransformerConfig) -> Embed:
        """The token embedding; a subclass may have another."""
        return Embed(cfg)

    def reset_parameters(self) -> None:
        """Draw every weight anew from `cfg.seed`, see `draw_weights`."""
        draw_weights(self, depth=self.cfg.n_layers)

    def compute(
        self,
        tokens: Tensor,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos].

        Args:
            tokens: integers [batch, pos], pos <= n_ctx; with `start_at_layer`, a residual stream instead,
                [batch, pos, d_model], which enters that block as its resid_pre.
            start_at_layer: the first block to run; n_layers runs only the unembedding. Negative counts from the end.
            stop_at_layer: the first block not to run; the residual stream before it is returned in place of logits,
                neither normalised nor unembedded. Negative counts from the end.
            past_kv_cache: the keys and values of earlier tokens, which `tokens` follow; theirs are added to it. Causal
                models only, all layers, without gradients.
        """
        n_layers = self.cfg.n_layers
        start = layer_number("start_at_layer", start_at_layer, default=0, n_layers=n_layers)
        stop = layer_number("stop_at_layer", stop_at_layer, default=n_layers, n_layers=n_layers)
        if start > stop:
            raise ValueError(f"start_at_layer must not be past stop_at_layer; got {start_at_layer} and {stop_at_layer}")
        if past_kv_cache is not None:
            if start_at_layer is not None or stop_at_layer is not None:
                raise ValueError("past_kv_cache goes through every layer: no start_at_layer or stop_at_layer with it")
            past_kv_cache.require_room(self.cfg, tokens)
        if start_at_layer is None:
            resid = self._embed(tokens, start=0 if past_kv_cache is None else past_kv_cache.length)
        else:
            resid = tokens
            if resid.ndim != 3 or resid.shape[-1] != self.cfg.d_model or not resid.is_floating_point():
                raise ValueError(
                    f"with start_at_layer the input must be a residual stream [batch, pos, {self.cfg.d_model}]; "
                    f"got {resid.dtype} {list(resid.shape)}"
                )
        resid = self.with_gradient(resid)
        for block in self.blocks[start:stop]:
            resid = block(resid, past=past_kv_cache)
        if past_kv_cache is not None:
            past_kv_cache.length += tokens.shape[1]
        return resid if stop_at_layer is not None else self.unembed(self.ln_final(resid))

    def _embed(self, tokens: Tensor, *, start: int = 0) -> Tensor:
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"tokens must be int64 [batch, pos]; got {tokens.dtype} {list(tokens.shape)}")
        if tokens.shape[1] > self.cfg.n_ctx:
            raise ValueError(f"tokens must be at most n_ctx = {self.cfg.n_ctx} long; got {tokens.shape[1]}")
        try:
            resid = self.hook_embed(self.with_gradient(self.embed(tokens)))
        except IndexError:
            raise ValueError(
                f"tokens must be from 0 to {self.cfg.d_vocab - 1}; got {int(tokens.min())} to {int(tokens.max())}"
            ) from None
        if self.pos_embed is None:
            return resid
        positions = self.pos_embed(tokens, start=start)
        if live(self.hook_pos_embed):  # with a batch dimension, for hooks and ActivationCache
            positions = self.hook_pos_embed(self.with_gradient(positions.expand_as(resid).clone()))
        return resid + positions

    @property
    def fixed_point(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Greedy answers to prompts in a few passes (`fixed_point_decode`); None where a hook would see the passes."""
        from interp.models.decoding import fixed_point_decode, is_plain  # it imports this module

        return partial(fixed_point_decode, self) if is_plain(self) else None


def layer_number(name: str, layer: int | None, *, default: int, n_layers: int) -> int:
    """A layer from 0 to n_layers; negative ones count from the end. ValueError, with the option's name, outside."""
    if layer is None:
        return default
    if not -n_layers <= layer <= n_layers:
        raise ValueError(f"{name} must be from {-n_layers} to {n_layers}; got {layer}")
    return layer + n_layers if layer < 0 else layer
