"""The transformer taken apart layer by layer, computed only where the metric reads.

The metric of `Pairs` compares logits at a few slots of each pair. So the last layer needs keys and values everywhere,
but queries, its MLP and the logits at those slots alone. Everything here is the model's own arithmetic, from its own
modules; hook points between them do not fire.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.circuits.pairs import Pairs


@dataclass(frozen=True)
class Readout:
    """Where the metric of n pairs reads, and what it compares there; k is the largest number of slots of a pair."""

    positions: Tensor  # long [n, k], token positions; those that a pair does not need have weight 0
    choices: Tensor  # long [n, k, 2], the clean and the corrupted token
    weights: Tensor  # float [n, k]

    @classmethod
    def of(cls, pairs: Pairs) -> Readout:
        """The slots of `pairs.logit_difference`."""
        k = max(1, int((pairs.weights > 0).sum(dim=1).max()))
        weights, slots = pairs.weights.topk(k, dim=1)
        every = torch.arange(pairs.clean.tokens.shape[1])[None, :, None]
        positions = pairs.task.next_state_logits(every)[0, :, 0]  # of each slot of the answer
        answers = torch.stack([pairs.clean_answer, pairs.corrupted_answer], dim=-1)
        return cls(positions[slots], take(answers, slots), weights)

    def metric(self, logits: Tensor) -> Tensor:
        """`Pairs.logit_difference` from logits [..., n, k, d_vocab] at `positions`: [..., n]."""
        values = logits.gather(-1, self.choices.expand(*logits.shape[:-1], 2))
        return ((values[..., 0] - values[..., 1]) * self.weights).sum(-1)


def take(x: Tensor, positions: Tensor) -> Tensor:
    """x [batch, pos, ...] at positions [batch, k]: [batch, k, ...]."""
    index = positions.reshape(*positions.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(*positions.shape, *x.shape[2:]))


def spread(x: Tensor, positions: Tensor, n_ctx: int) -> Tensor:
    """The adjoint of `take`: x [batch, k, d] added up at its positions, zeros elsewhere, [batch, n_ctx, d]."""
    out = x.new_zeros(len(x), n_ctx, x.shape[-1])
    return out.scatter_add_(1, positions[..., None].expand_as(x), x)


def heads(attn: Any, raw: Tensor, *, queries: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """What attention compares and moves, [batch, pos, head, d_head] each, from `attn.qkv` of the normalised stream.

    Queries are those at positions `queries` [batch, k] alone, where given.
    """
    q, k, v = raw.unflatten(-1, (3, attn.n_heads, attn.d_head)).unbind(2)
    q, k = attn.q_norm(q if queries is None else take(q, queries)), attn.k_norm(k)
    return (q, k, v) if attn.rotary is None else (attn.rotary(q, positions=queries), attn.rotary(k), v)


def attended(attn: Any, q: Tensor, k: Tensor, v: Tensor, *, positions: Tensor | None = None) -> Tensor:
    """z [batch, query, head, d_head] of queries at `positions` [batch, query] (None: all), keys and values of all."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if positions is None:
        return attn._fused(q, k, v).transpose(1, 2)
    mask = None
    if attn.causal:
        n_keys = k.shape[2]
        mask = attn._visible(n_keys, n_keys, device=k.device)[positions][:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


@dataclass(frozen=True)
class LayerPass:
    """One layer of a pass; in the last layer all but the first two are at the read positions alone."""

    resid_pre: Tensor  # [batch, pos, d_model]
    raw: Tensor  # [batch, pos, 3 * head * d_head], queries, keys and values before qk-norm and rotation
    z: Tensor  # [batch, pos, head, d_head]
    resid_mid: Tensor  # [batch, pos, d_model]
    mlp_in: Tensor  # the same numbers, as the MLP alone reads them: its gradient leaves the skip out
    mlp_out: Tensor  # [batch, pos, d_model]


def layer_passes(model: Any, embedding: Tensor, positions: Tensor) -> tuple[list[LayerPass], Tensor]:
    """Every layer from the embedding [batch, pos, d_model], and the final stream [batch, k, d_model] at `positions`."""
    resid, found = embedding, []
    for block in model.blocks:
        here = positions if len(found) == len(model.blocks) - 1 else None
        resid_pre, raw = resid, block.attn.qkv(block.ln1(resid))
        q, k, v = heads(block.attn, raw, queries=here)
        if here is not None:
            resid = take(resid, here)
        z = attended(block.attn, q, k, v, positions=here)
        resid_mid = resid + block.attn.out(z.flatten(2))
        mlp_in = resid_mid.view_as(resid_mid)
        mlp_out = block.mlp(block.ln2(mlp_in))
        resid = resid_mid + mlp_out
        found.append(LayerPass(resid_pre, raw, z, resid_mid, mlp_in, mlp_out))
    return found, resid


def written_difference(model: Any, first: Tensor, second: Tensor, readout: Readout) -> Tensor:
    """What each writer writes from the embeddings `first` less from `second`, [n, pos, d_model] each.

    Returns:
        [writer, n, pos, d_model]; the last layer's writers at the read positions alone, where the logits need them.
    """
    n, n_ctx = first.shape[:2]
    layers, _ = layer_passes(model, torch.cat([first, second]), readout.positions.repeat(2, 1))
    parts = [(first - second)[None]]
    for block, layer in zip(model.blocks, layers, strict=True):
        z, mlp = (out[:n] - out[n:] for out in (layer.z, layer.mlp_out))
        new = torch.cat([torch.einsum("bphe,hed->hbpd", z, block.attn.W_O), mlp[None]])
        if layer is layers[-1]:
            new = torch.stack([spread(each, readout.positions, n_ctx) for each in new])
        parts.append(new)
    return torch.cat(parts)


def finish(model: Any, resid: Tensor, *, layer: int, positions: Tensor) -> Tensor:
    """Logits [batch, k, d_vocab] at positions [batch, k], from the residual stream before `layer`."""
    last = model.cfg.n_layers - 1
    if layer > last:
        return read_logits(model, take(resid, positions))
    resid = model(resid, start_at_layer=layer, stop_at_layer=last)
    block = model.blocks[last]
    q, k, v = heads(block.attn, block.attn.qkv(block.ln1(resid)), queries=positions)
    z = attended(block.attn, q, k, v, positions=positions)
    return read_logits(model, through_mlp(block, take(resid, positions) + block.attn.out(z.flatten(2))))


def through_mlp(block: Any, resid_mid: Tensor) -> Tensor:
    """The stream after a layer's MLP, from the stream before it."""
    return resid_mid + block.mlp(block.ln2(resid_mid))


def read_logits(model: Any, resid: Tensor) -> Tensor:
    """Logits of the final residual stream [..., d_model]."""
    return model.unembed(model.ln_final(resid))
