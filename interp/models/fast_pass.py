"""The transformer's arithmetic layer by layer, for methods that need the last layer at a few positions alone.

A metric that compares logits at a few positions of each example needs keys and values of the last layer everywhere, but
its queries, its MLP and the logits at those positions alone. Everything here is the model's own arithmetic, from its
own modules; hook points between them do not fire. A model offers its pass (`ModelFacts.fast_pass`) only while nobody
listens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from interp.models.block import TransformerBlock
    from interp.models.transformer import Transformer

Heads = tuple[Tensor, Tensor, Tensor]  # queries, keys and values, [batch, pos, head, d_head] each


def take(x: Tensor, positions: Tensor) -> Tensor:
    """x [batch, pos, ...] at positions [batch, k]: [batch, k, ...]."""
    index = positions.reshape(*positions.shape, *[1] * (x.ndim - 2))
    return x.gather(1, index.expand(*positions.shape, *x.shape[2:]))


def spread(x: Tensor, positions: Tensor, n_ctx: int) -> Tensor:
    """The adjoint of `take`: x [batch, k, d] added up at its positions, zeros elsewhere, [batch, n_ctx, d]."""
    out = x.new_zeros(len(x), n_ctx, x.shape[-1])
    return out.scatter_add_(1, positions[..., None].expand_as(x), x)


@dataclass(frozen=True)
class LayerPass:
    """One layer of a pass; in the last layer all but the first two are at the read positions alone."""

    resid_pre: Tensor  # [batch, pos, d_model]
    raw: Tensor  # [batch, pos, 3 * head * d_head], queries, keys and values before qk-norm and rotation
    z: Tensor  # [batch, pos, head, d_head]
    resid_mid: Tensor  # [batch, pos, d_model]
    mlp_in: Tensor  # the same numbers, as the MLP alone reads them: its gradient leaves the skip out
    mlp_out: Tensor  # [batch, pos, d_model]


class FastPass:
    """Passes through a transformer with an MLP in every layer; positions are long [batch, k]."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self.n_layers = model.cfg.n_layers

    def layers(self, embedding: Tensor, positions: Tensor) -> tuple[list[LayerPass], Tensor]:
        """Every layer from the embedding [batch, pos, d_model], and the final stream [batch, k, d_model]."""
        resid, found = embedding, []
        for layer, block in enumerate(self._model.blocks):
            here = positions if layer == self.n_layers - 1 else None
            resid_pre, raw = resid, self.project(layer, resid)
            q, k, v = self.heads(layer, raw, queries=here)
            if here is not None:
                resid = take(resid, here)
            z = self.attended(layer, q, k, v, positions=here)
            resid_mid = resid + block.attn.out(z.flatten(2))
            mlp_in = resid_mid.view_as(resid_mid)
            mlp_out = _mlp(block, mlp_in)
            resid = resid_mid + mlp_out
            found.append(LayerPass(resid_pre, raw, z, resid_mid, mlp_in, mlp_out))
        return found, resid

    def project(self, layer: int, resid: Tensor) -> Tensor:
        """`LayerPass.raw` from the stream before the layer."""
        block = self._model.blocks[layer]
        return block.attn.qkv(block.ln1(resid))

    def heads(self, layer: int, raw: Tensor, *, queries: Tensor | None = None) -> Heads:
        """What attention compares and moves, from `raw`; queries at positions `queries` alone, where given."""
        attn = self._model.blocks[layer].attn
        q, k, v = raw.unflatten(-1, (3, attn.n_heads, attn.d_head)).unbind(2)
        q, k = attn.q_norm(q if queries is None else take(q, queries)), attn.k_norm(k)
        return (q, k, v) if attn.rotary is None else (attn.rotary(q, positions=queries), attn.rotary(k), v)

    def attended(self, layer: int, q: Tensor, k: Tensor, v: Tensor, *, positions: Tensor | None = None) -> Tensor:
        """z [batch, query, head, d_head] of queries at `positions` (None: all), keys and values of all."""
        attn = self._model.blocks[layer].attn
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if positions is None:
            return attn.fused(q, k, v).transpose(1, 2)
        mask, n_keys = None, k.shape[2]
        if attn.distance_bias is not None:
            mask = attn.falling(n_keys, n_keys)[:, positions].transpose(0, 1).to(q.dtype)
        elif attn.causal:
            mask = attn.visible(n_keys, n_keys, device=k.device)[positions][:, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)

    def head_out(self, layer: int, head: int, z: Tensor) -> Tensor:
        """What one head writes, [batch, pos, d_model], from its z [batch, pos, d_head]."""
        return z @ self._model.blocks[layer].attn.W_O[head]

    def after_mlp(self, layer: int, resid_mid: Tensor, *, moved: Tensor | None = None) -> Tensor:
        """The stream after a layer's MLP, from the stream before it; the MLP reads `moved` besides."""
        mlp_in = resid_mid if moved is None else resid_mid + moved
        return resid_mid + _mlp(self._model.blocks[layer], mlp_in)

    def logits(self, resid: Tensor) -> Tensor:
        """Logits of the final stream [..., d_model]."""
        return self._model.unembed(self._model.ln_final(resid))

    def finish(self, resid: Tensor, *, layer: int, positions: Tensor) -> Tensor:
        """Logits [batch, k, d_vocab] at positions, from the stream before `layer`; n_layers: the final stream."""
        last = self.n_layers - 1
        if layer > last:
            return self.logits(take(resid, positions))
        resid = self._model(resid, start_at_layer=layer, stop_at_layer=last)
        q, k, v = self.heads(last, self.project(last, resid), queries=positions)
        z = self.attended(last, q, k, v, positions=positions)
        attn_out = self._model.blocks[last].attn.out(z.flatten(2))
        return self.logits(self.after_mlp(last, take(resid, positions) + attn_out))

    def written_difference(self, first: Tensor, second: Tensor, positions: Tensor) -> Tensor:
        """What each writer of `model.graph()` writes from the embeddings `first` less from `second`.

        Args:
            first: [n, pos, d_model].
            second: [n, pos, d_model].
            positions: where the logits are read.

        Returns:
            [writer, n, pos, d_model]; the last layer's writers at `positions` alone, where the logits need them.
        """
        n, n_ctx = first.shape[:2]
        layers, _ = self.layers(torch.cat([first, second]), positions.repeat(2, 1))
        parts = [(first - second)[None]]
        for block, layer in zip(self._model.blocks, layers, strict=True):
            z, mlp = (out[:n] - out[n:] for out in (layer.z, layer.mlp_out))
            new = torch.cat([torch.einsum("bphe,hed->hbpd", z, block.attn.W_O), mlp[None]])
            if layer is layers[-1]:
                new = torch.stack([spread(each, positions, n_ctx) for each in new])
            parts.append(new)
        return torch.cat(parts)

    def head_gradients(self, layer: int, layer_pass: LayerPass, gradient: Tensor, *, groups: int = 1) -> Tensor:
        """d/d(in) of each of the layer's 3 H query, key and value inputs, before the norm that they share.

        They are one stream x and one norm, y = w x / s + b with s the root mean square of x (LN: of x less its mean).
        With o what a reader projects y to, of weight W and gradient g,

            d/d(in) = w (W g) / s - x ((o less its biases) . g) / (d_model s^2)        (LN: then less its mean)

        so that the d_head numbers g are all that a backward pass has to keep of a reader.

        Args:
            layer: which.
            layer_pass: of the pass that `gradient` is of.
            gradient: d/d(layer_pass.raw), [group * n, pos, 3 * head * d_head].
            groups: rows are as many groups of the same n examples, which are summed over.

        Returns:
            [3 * head, n, pos, d_model], queries first, then keys, then values.
        """
        block = self._model.blocks[layer]
        attn, norm = block.attn, block.ln1
        shape = (3 * attn.n_heads, attn.d_head)
        # Rows of qkv are the readers' in turn: queries of every head, keys of every head, values of every head.
        weight = attn.qkv.weight.unflatten(0, shape)  # [reader, d_head, d_model]
        own = gradient.unflatten(-1, shape)  # [group * n, pos, reader, d_head]
        if isinstance(norm, torch.nn.Identity):
            return torch.einsum("bphe,hed->hbpd", own.unflatten(0, (groups, -1)).sum(0), weight)
        x = layer_pass.resid_pre.detach()
        centred = norm.kind == "LN"
        x = x - x.mean(-1, keepdim=True) if centred else x
        square = x.square().mean(-1, keepdim=True) + norm.eps  # s^2, [group * n, pos, 1]
        # What `raw` holds that no scale of x changes: the projection's bias, and the norm's bias projected.
        constant = torch.zeros_like(layer_pass.raw[0, 0]) if attn.qkv.bias is None else attn.qkv.bias
        constant = constant if norm.b is None else constant + attn.qkv.weight @ norm.b
        # (o less its biases) . g / (d_model s^2), [group * n, pos, reader]
        along = ((layer_pass.raw.detach() - constant) * gradient).unflatten(-1, shape).sum(-1)
        along = along / (square * x.shape[-1])
        # First term: g / s of every group summed before W is applied, since W and w are the same for all.
        scaled = (own / square.sqrt()[..., None]).unflatten(0, (groups, -1)).sum(0)  # [n, pos, reader, d_head]
        found = torch.einsum("bphe,hed->hbpd", scaled, weight * norm.w)
        # Second term: x differs between groups, so the sum over groups is part of the product.
        found -= torch.einsum("sbph,sbpd->hbpd", along.unflatten(0, (groups, -1)), x.unflatten(0, (groups, -1)))
        return found - found.mean(-1, keepdim=True) if centred else found


def _mlp(block: TransformerBlock, x: Tensor) -> Tensor:
    assert block.mlp is not None  # a model without MLPs offers no pass
    return block.mlp(block.ln2(x))
