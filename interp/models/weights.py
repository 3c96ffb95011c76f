"""A transformer's weights by the names that TransformerLens gives them, stacked over layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn
from transformer_lens import FactoredMatrix
from transformer_lens.utilities.matrix import composition_scores
from transformer_lens.utilities.typed_module_list import TypedModuleList

from interp.models.block import TransformerBlock
from interp.models.config import TransformerConfig
from interp.models.embed import EndWeights, PositionEmbedding
from interp.models.mlp import MLP, GatedMLP

if TYPE_CHECKING:
    from interp.models.transformer import Transformer


class TransformerWeights(EndWeights):
    """Names for a Transformer's weights; W_E, W_U, b_U are the weights themselves, stacks are copies."""

    cfg: TransformerConfig
    pos_embed: PositionEmbedding | None
    blocks: TypedModuleList[TransformerBlock]
    ln_final: nn.Module

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> Tensor:
        """Sum of the biases b_O and b_out written by the blocks before `layer`, [d_model].

        Args:
            layer: 0 to n_layers.
            mlp_input: also b_O of block `layer`: the biases in the input of its MLP.
            include_mlp_biases: False leaves every b_out out.
        """
        total = self.embed.W_E.new_zeros(self.cfg.d_model)
        for block in self.blocks[: layer + mlp_input]:
            total = total + block.attn.b_O
        if include_mlp_biases:
            for block in self.blocks[:layer]:
                total = total if block.mlp is None else total + block.mlp.b_out
        return total

    def logit_bias(self) -> Tensor:
        """The part of the logits that no component of the residual stream writes, [d_vocab]."""
        b = getattr(self.ln_final, "b", None)
        return self.b_U if b is None else self.b_U + b @ self.W_U

    @property
    def W_pos(self) -> Tensor:
        """[n_ctx, d_model], as in eval mode; zeros where positions are not added to the residual stream."""
        if self.pos_embed is None:
            return self.W_E.new_zeros(self.cfg.n_ctx, self.cfg.d_model)
        return self.pos_embed.W_pos

    @property
    def W_E_pos(self) -> Tensor:
        """W_E above W_pos, all that embedding can write, [d_vocab + n_ctx, d_model], a copy."""
        return torch.cat([self.W_E, self.W_pos])

    def tl_parameters(self) -> dict[str, Tensor]:
        """Every weight by TransformerLens's full name for it, `blocks.0.attn.W_V`; views, detached."""
        named = {"embed.W_E": self.W_E, "unembed.W_U": self.W_U, "unembed.b_U": self.b_U}
        if self.pos_embed is not None:
            named["pos_embed.W_pos"] = self.W_pos
        for l, block in enumerate(self.blocks):
            attn = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O")
            gate = ("W_gate", "b_gate") if self.cfg.gated_mlp else ()
            named |= {f"blocks.{l}.attn.{name}": getattr(block.attn, name) for name in attn}
            if block.mlp is not None:
                mlp = ("W_in", "W_out", "b_in", "b_out", *gate)
                named |= {f"blocks.{l}.mlp.{name}": getattr(block.mlp, name) for name in mlp}
        model = cast(nn.Module, self)
        named |= {name: weight for name, weight in model.named_parameters() if name.endswith((".w", ".b"))}  # norms
        return {name: weight.detach() for name, weight in named.items()}

    def process_weights(
        self,
        *,
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = True,
        fold_value_biases: bool = True,
    ) -> None:
        """Rewrite the weights in place so that the same is computed, see folding.py; for a copy, `copy.deepcopy` first.

        Logits stay what they are up to float error; with `center_unembed` log-probabilities do. A step that the model
        does not admit is left out: centring without LayerNorm, and what would change a tied embedding.
        """
        from interp.models import folding

        model = cast("Transformer", self)
        if fold_ln:
            folding.fold_norms(model)
        if center_writing_weights and self.cfg.normalization_type == "LN":
            folding.center_stream(model)
        if center_unembed and not self.cfg.tie_word_embeddings:
            folding.center_logits(model)
        if fold_value_biases:
            folding.fold_value_biases(model)

    @property
    def all_head_labels(self) -> list[str]:
        """L0H0, L0H1, …, layer by layer."""
        return [f"L{layer}H{head}" for layer in range(self.cfg.n_layers) for head in range(self.cfg.n_heads)]

    def all_composition_scores(self, mode: Literal["Q", "K", "V"]) -> Tensor:
        """How strongly each head's OV feeds each later head's QK or OV, [layer, head, later layer, later head].

        `||OV @ right|| / (||OV|| ||right||)` in Frobenius norms, 0 where the reader is not in a later layer (Elhage et
        al. 2021). Norms, and qk_norm, are left out; after `process_weights` their gains are inside.

        Raises:
            ValueError: the mode is not Q, K or V.
        """
        if mode not in ("Q", "K", "V"):
            raise ValueError(f"mode must be 'Q', 'K' or 'V'; got {mode!r}")
        right = {"Q": self.QK, "K": self.QK.T, "V": self.OV}[mode]
        scores = composition_scores(self.OV, right, broadcast_dims=True)
        layer = torch.arange(self.cfg.n_layers, device=scores.device)
        return scores * (layer[:, None, None, None] < layer[None, None, :, None])

    def _stack(self, read: Callable[[TransformerBlock], Tensor]) -> Tensor:
        return torch.stack([read(block) for block in self.blocks])

    def _stack_mlp(self, read: Callable[[MLP], Tensor]) -> Tensor:
        if self.cfg.attn_only:
            raise AttributeError("the model has no MLPs: attn_only is set")
        return self._stack(lambda block: read(cast(MLP, block.mlp)))

    def _stack_gate(self, read: Callable[[GatedMLP], Tensor]) -> Tensor:
        if not self.cfg.gated_mlp:
            raise AttributeError("the model's MLPs have no gate: gated_mlp is not set")
        return self._stack_mlp(lambda mlp: read(cast(GatedMLP, mlp)))

    @property
    def W_Q(self) -> Tensor:
        """[n_layers, n_heads, d_model, d_head], a copy, as are all the stacks below."""
        return self._stack(lambda block: block.attn.W_Q)

    @property
    def W_K(self) -> Tensor:
        """[n_layers, n_heads, d_model, d_head]."""
        return self._stack(lambda block: block.attn.W_K)

    @property
    def W_V(self) -> Tensor:
        """[n_layers, n_heads, d_model, d_head]."""
        return self._stack(lambda block: block.attn.W_V)

    @property
    def W_O(self) -> Tensor:
        """[n_layers, n_heads, d_head, d_model]."""
        return self._stack(lambda block: block.attn.W_O)

    @property
    def b_Q(self) -> Tensor:
        """[n_layers, n_heads, d_head]."""
        return self._stack(lambda block: block.attn.b_Q)

    @property
    def b_K(self) -> Tensor:
        """[n_layers, n_heads, d_head]."""
        return self._stack(lambda block: block.attn.b_K)

    @property
    def b_V(self) -> Tensor:
        """[n_layers, n_heads, d_head]."""
        return self._stack(lambda block: block.attn.b_V)

    @property
    def b_O(self) -> Tensor:
        """[n_layers, d_model]."""
        return self._stack(lambda block: block.attn.b_O)

    @property
    def W_gate(self) -> Tensor:
        """[n_layers, d_model, d_mlp]; AttributeError where the MLPs are not gated, as for b_gate."""
        return self._stack_gate(lambda mlp: mlp.W_gate)

    @property
    def b_gate(self) -> Tensor:
        """[n_layers, d_mlp]."""
        return self._stack_gate(lambda mlp: mlp.b_gate)

    @property
    def W_in(self) -> Tensor:
        """[n_layers, d_model, d_mlp]."""
        return self._stack_mlp(lambda mlp: mlp.W_in)

    @property
    def W_out(self) -> Tensor:
        """[n_layers, d_mlp, d_model]."""
        return self._stack_mlp(lambda mlp: mlp.W_out)

    @property
    def b_in(self) -> Tensor:
        """[n_layers, d_mlp]."""
        return self._stack_mlp(lambda mlp: mlp.b_in)

    @property
    def b_out(self) -> Tensor:
        """[n_layers, d_model]."""
        return self._stack_mlp(lambda mlp: mlp.b_out)

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q @ W_K.T of every head, [n_layers, n_heads, d_model, d_model]; leaves qk_norm out."""
        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> FactoredMatrix:
        """W_V @ W_O of every head, [n_layers, n_heads, d_model, d_model]."""
        return FactoredMatrix(self.W_V, self.W_O)
