"""Edge attribution patching: the effect of every edge at once, from gradients.

    1. EAP (Syed et al. 2023): s(u -> v) = sum over positions of (a_u corrupted - a_u clean) . dm/d(in_v) at clean.
    2. EAP-IG, inputs (Hanna et al. 2024): the same difference times the gradient averaged over M points between the
       corrupted and the clean embeddings, here the midpoints of M equal parts.

in_v is the reader's input before its norm. s predicts m(corrupted) - m(clean) when the edge alone is corrupted, so an
edge that helps has s < 0. As M grows, the scores of the edges out of the input sum to m(corrupted) - m(clean).

One plain forward and backward pass gives all of it. The 3 H query, key and value inputs of a layer are one stream x and
one norm, y = w x / s + b with s the root mean square of x (LN: of x less its mean). With g = W_v^T dm/do_v, o_v what
reader v projects y to, its gradient is

    dm/d(in_v) = w g / s - x (o_v . dm/do_v) / (d_model s^2)        (o_v less its biases; LN: then less its mean)

so that the d_head numbers dm/do_v are all that the pass has to keep of a reader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.graph import Graph
from interp.circuits.pairs import Pairs
from interp.circuits.passes import LayerPass, Readout, layer_passes, read_logits, spread, written_difference


def eap(model: Any, pairs: Pairs, *, batch_size: int = 128) -> np.ndarray:
    """EAP scores, float64 [reader, writer], summed over positions and averaged over pairs; 0 where there is no edge."""
    return _scores(model, pairs, [1.0], batch_size=batch_size)


def eap_ig(model: Any, pairs: Pairs, *, steps: int = 5, batch_size: int = 128) -> np.ndarray:
    """EAP-IG scores with gradients at `steps` midpoints, as `eap` returns them. One forward and backward pass a step.

    Raises:
        ValueError: `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return _scores(model, pairs, [(step + 0.5) / steps for step in range(steps)], batch_size=batch_size)


def _scores(model: Any, pairs: Pairs, fractions: list[float], *, batch_size: int) -> np.ndarray:
    """All points on the way of an example share a pass along the batch axis; `batch_size` counts these rows."""
    graph = Graph.of(model)
    total = torch.zeros(graph.mask.shape, dtype=torch.float64)
    size = max(1, batch_size // len(fractions))
    for start in range(0, len(pairs), size):
        part = pairs[slice(start, start + size)]
        readout = Readout.of(part)
        with torch.no_grad():
            clean, corrupted = (model(batch.tokens, stop_at_layer=0) for batch in (part.clean, part.corrupted))
            difference = written_difference(model, corrupted, clean, readout)
        points = torch.stack([corrupted + fraction * (clean - corrupted) for fraction in fractions])
        gradient = _gradients(model, points, readout)
        total += (gradient.flatten(1) @ difference.flatten(1).T).double() / len(fractions)
    return (total / len(pairs)).numpy() * graph.mask


@torch.enable_grad()
def _gradients(model: Any, points: Tensor, readout: Readout) -> Tensor:
    """dm/d(in_v) of every reader, m being summed over examples, [reader, n, pos, d_model].

    `points` are embeddings [point, n, pos, d_model]; gradients are summed over points, and examples do not mix.
    """
    steps, n_ctx = len(points), points.shape[2]
    positions = readout.positions.repeat(steps, 1)
    embedding = points.flatten(0, 1).detach().requires_grad_()
    layers, final = layer_passes(model, embedding, positions)
    m = readout.metric(read_logits(model, final).unflatten(0, (steps, -1))).sum()
    wanted = [tensor for layer in layers for tensor in (layer.raw, layer.mlp_in)]
    found = torch.autograd.grad(m, [*wanted, final])
    parts = []
    with torch.no_grad():
        for block, layer, raw, mlp in zip(model.blocks, layers, found[0::2], found[1::2], strict=False):
            parts.append(_head_inputs(block, layer, raw, steps=steps))
            mlp = _over_points(mlp, steps)
            parts.append((spread(mlp, readout.positions, n_ctx) if layer is layers[-1] else mlp)[None])
        parts.append(spread(_over_points(found[-1], steps), readout.positions, n_ctx)[None])
    return torch.cat(parts)


def _head_inputs(block: Any, layer: LayerPass, gradient: Tensor, *, steps: int) -> Tensor:
    """dm/d(in_v) of a layer's q, k and v inputs, summed over points, [3 * head, n, pos, d_model].

    `gradient` is dm/d(layer.raw), [point * n, pos, 3 * head * d_head].
    """
    attn, norm = block.attn, block.ln1
    shape = (3 * attn.n_heads, attn.d_head)
    weight = attn.qkv.weight.unflatten(0, shape)  # [reader, d_head, d_model]
    own = gradient.unflatten(-1, shape)  # [point * n, pos, reader, d_head]
    if isinstance(norm, torch.nn.Identity):
        return torch.einsum("bphe,hed->hbpd", _over_points(own, steps), weight)
    x = layer.resid_pre.detach()
    centred = norm.kind == "LN"
    x = x - x.mean(-1, keepdim=True) if centred else x
    square = x.square().mean(-1, keepdim=True) + norm.eps  # [point * n, pos, 1]
    constant = torch.zeros_like(layer.raw[0, 0]) if attn.qkv.bias is None else attn.qkv.bias
    constant = constant if norm.b is None else constant + attn.qkv.weight @ norm.b
    along = ((layer.raw.detach() - constant) * gradient).unflatten(-1, shape).sum(-1) / (square * x.shape[-1])
    scaled = _over_points(own / square.sqrt()[..., None], steps)
    found = torch.einsum("bphe,hed->hbpd", scaled, weight * norm.w)
    found -= torch.einsum("sbph,sbpd->hbpd", along.unflatten(0, (steps, -1)), x.unflatten(0, (steps, -1)))
    return found - found.mean(-1, keepdim=True) if centred else found


def _over_points(x: Tensor, steps: int) -> Tensor:
    return x.unflatten(0, (steps, -1)).sum(0)
