"""Edge attribution patching: the effect of every edge at once, from gradients.

    1. EAP (Syed et al. 2023): s(u -> v) = sum over positions of (a_u corrupted - a_u clean) . dm/d(in_v) at clean.
    2. EAP-IG, inputs (Hanna et al. 2024): the same difference times the gradient averaged over M points between the
       corrupted and the clean embeddings, here the midpoints of M equal parts. (The EAP-IG repository takes ends of
       the parts, so that its scores at the same M are others.)

in_v is the reader's input before its norm. s predicts m(corrupted) - m(clean) when the edge alone is corrupted, so an
edge that helps has s < 0. As M grows, the scores of the edges out of the input sum to m(corrupted) - m(clean):
`incompleteness` says how far they are from it.

Where the model offers its fast pass, one plain forward and backward pass gives all of it: the query, key and value
inputs of a layer share a norm (`FastPass.head_gradients`). Else, and so with hooks standing on the model, gradients are
taken at hooks on every reader's input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import written
from interp.circuits.hooked import ends, input_gradients
from interp.circuits.pairs import Pairs
from interp.circuits.readout import Readout
from interp.circuits.standing import taken_apart
from interp.models.fast_pass import FastPass, spread
from interp.ranges import counted


@counted(pairs=1, batch_size=1)
def eap(model: Any, pairs: Pairs, *, batch_size: int = 128) -> np.ndarray:
    """EAP scores, float64 [reader, writer], summed over positions and averaged over pairs; 0 where there is no edge.

    Raises:
        ValueError: a model that `taken_apart` refuses.
    """
    return _scores(model, pairs, [1.0], batch_size=batch_size)


@counted(pairs=1, steps=1, batch_size=1)
def eap_ig(model: Any, pairs: Pairs, *, steps: int = 5, batch_size: int = 128) -> np.ndarray:
    """EAP-IG scores with gradients at `steps` midpoints, as `eap` returns them. One forward and backward pass a step.

    Raises:
        ValueError: `steps` is below 1, or a model that `taken_apart` refuses.
    """
    return _scores(model, pairs, midpoints(steps), batch_size=batch_size)


@counted(pairs=1, batch_size=1)
@torch.no_grad()
def incompleteness(model: Any, pairs: Pairs, scores: np.ndarray, *, batch_size: int = 128) -> float:
    """How far the scores of the edges out of the input are from summing to the gap, m(corrupted) - m(clean), as a share
    of its size: 0 in the limit of many steps. nan where there is no gap.

    On models with ReLUs it is not monotone in the steps; above a tenth, take more of them.
    """
    gaps = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[slice(start, start + batch_size)]
        before, after = (part.logit_difference(model(batch.tokens)) for batch in (part.clean, part.corrupted))
        gaps.append(after.double() - before.double())
    gap = float(torch.cat(gaps).mean())
    return abs(float(scores[:, 0].sum()) - gap) / abs(gap) if abs(gap) > 1e-6 else float("nan")


def midpoints(steps: int) -> list[float]:
    """The middles of `steps` equal parts of the way from the corrupted to the clean embedding. ValueError below 1."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [(step + 0.5) / steps for step in range(steps)]


@torch.inference_mode(False)  # gradients are needed, whatever mode it is called in
def _scores(model: Any, pairs: Pairs, fractions: list[float], *, batch_size: int) -> np.ndarray:
    """All points on the way of an example share a pass along the batch axis; `batch_size` counts these rows."""
    graph, fast = taken_apart(model), model.fast_pass()
    total = torch.zeros(graph.mask.shape, dtype=torch.float64)
    size = max(1, batch_size // len(fractions))
    for start in range(0, len(pairs), size):
        part = pairs[slice(start, start + size)]
        if fast is None:
            change = written(model, graph, part.corrupted.tokens)[0] - written(model, graph, part.clean.tokens)[0]
            gradient = len(fractions) * input_gradients(model, graph, part, fractions)
        else:
            readout = Readout.of(part)
            clean, corrupted = ends(model, part)
            with torch.no_grad():
                change = fast.written_difference(corrupted, clean, readout.positions)
            points = torch.stack([corrupted + fraction * (clean - corrupted) for fraction in fractions])
            gradient = _gradients(fast, points, readout)
        total += (gradient.flatten(1) @ change.flatten(1).T).double() / len(fractions)
    return (total / len(pairs)).numpy() * graph.mask


@torch.enable_grad()
def _gradients(fast: FastPass, points: Tensor, readout: Readout) -> Tensor:
    """dm/d(in_v) of every reader, m being summed over examples, [reader, n, pos, d_model].

    `points` are embeddings [point, n, pos, d_model]; gradients are summed over points, and examples do not mix.
    """
    steps, n_ctx = len(points), points.shape[2]
    positions = readout.positions.repeat(steps, 1)
    embedding = points.flatten(0, 1).detach().requires_grad_()
    layers, final = fast.layers(embedding, positions)
    m = readout.metric(fast.logits(final).unflatten(0, (steps, -1))).sum()
    wanted = [tensor for layer in layers for tensor in (layer.raw, layer.mlp_in)]
    found = torch.autograd.grad(m, [*wanted, final])
    parts = []
    with torch.no_grad():
        for number, (layer, raw, mlp) in enumerate(zip(layers, found[0::2], found[1::2], strict=False)):
            parts.append(fast.head_gradients(number, layer, raw, groups=steps))
            mlp = _over_points(mlp, steps)
            parts.append((spread(mlp, readout.positions, n_ctx) if layer is layers[-1] else mlp)[None])
        parts.append(spread(_over_points(found[-1], steps), readout.positions, n_ctx)[None])
    return torch.cat(parts)


def _over_points(x: Tensor, steps: int) -> Tensor:
    return x.unflatten(0, (steps, -1)).sum(0)
