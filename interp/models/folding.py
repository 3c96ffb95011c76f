"""Weights rewritten so that they say more while the model computes the same, as in TransformerLens's process_weights.

1. Gains and biases of the norms go into the matrices that read from them (fold_ln).
2. What is written to the residual stream loses its mean over d_model, and what reads loses it too, where every reader
   is a LayerNorm, which subtracts the mean anyway (center_writing_weights).
3. The logits lose their mean over the vocabulary, which the softmax ignores (center_unembed).
4. Biases of the values go into b_O, since each row of the pattern sums to 1 (fold_value_biases).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from interp.models.mlp import GatedMLP
from interp.models.norms import HookedNorm

if TYPE_CHECKING:
    from interp.models.transformer import Transformer


@torch.no_grad()
def fold_norms(model: Transformer) -> None:
    """Step 1: every norm's gain becomes 1 and its bias 0; a tied unembedding keeps the final norm as it is."""
    for block in model.blocks:
        path = block.attn.path
        _fold(block.ln1, block.attn.qkv, *([] if path is None else [path.w, path.beta]))
        if block.mlp is not None:
            readers = [block.mlp.fc_in, *([block.mlp.fc_gate] if isinstance(block.mlp, GatedMLP) else [])]
            _fold(block.ln2, *readers)
    if not model.cfg.tie_word_embeddings:
        _fold(model.ln_final, model.unembed)


def _fold(norm: nn.Module, *readers: nn.Module) -> None:
    if not isinstance(norm, HookedNorm):
        return
    for reader in readers:
        weight, bias = reader.get_parameter("weight"), getattr(reader, "bias", None)  # [out, d_model], [out]
        if norm.b is not None and bias is not None:  # a norm has biases where its readers have
            bias += weight @ norm.b
        weight *= norm.w
    norm.w.fill_(1.0)
    if norm.b is not None:
        norm.b.zero_()


@torch.no_grad()
def center_stream(model: Transformer) -> None:
    """Step 2, for LayerNorm. Fixed positions, and a tied embedding under a norm not folded, are left as they are."""
    for table in _writing(model):  # [..., d_model]
        table -= table.mean(-1, keepdim=True)
    for block in model.blocks:
        for weight in _columns(block):  # [d_model, in]: each input's write
            weight -= weight.mean(0, keepdim=True)


def _writing(model: Transformer) -> Iterator[Tensor]:
    if not model.cfg.tie_word_embeddings:
        yield model.embed.W_E
    if model.pos_embed is not None:
        yield from model.pos_embed.parameters()  # parts of one sum: each may lose its mean
    for block in model.blocks:
        for layer in (block.attn.out, *([] if block.mlp is None else [block.mlp.fc_out])):
            if layer.bias is not None:
                yield layer.bias


def _columns(block: nn.Module) -> Iterator[Tensor]:
    for name in ("attn.out.weight", "mlp.fc_out.weight"):
        if name in dict(block.named_parameters()):
            yield block.get_parameter(name)


@torch.no_grad()
def center_logits(model: Transformer) -> None:
    """Step 3; not for a tied unembedding, whose matrix is also read as the embedding."""
    weight, bias = model.unembed.matrix, model.unembed.bias  # [d_vocab, d_model], [d_vocab]
    weight -= weight.mean(0, keepdim=True)
    if bias is not None:
        bias -= bias.mean()


@torch.no_grad()
def fold_value_biases(model: Transformer) -> None:
    """Step 4: b_V becomes 0."""
    for block in model.blocks:
        if block.attn.out.bias is not None:
            block.attn.b_O.add_(torch.einsum("hd,hdm->m", block.attn.b_V, block.attn.W_O))
            block.attn.b_V.zero_()
