"""Parts of a model that can be ablated, and how much each instruction loses with each unit of them.

Three levels, finer and finer. A part is a set of units of one level:

    node       a head (its z) or an MLP (what it writes)
    neuron     one coordinate of blocks.{l}.mlp.hook_post
    subspace   one direction of what a layer's attention or MLP writes to the residual stream

Ablating a part replaces its units' values at every position by zero, by their mean over held-out states (position by
position), or by what they are on the corrupted input of the pair (resample). The loss is a share of the model's gap,

    loss = (m(clean) - m(ablated)) / (m(clean) - m(corrupted)):  0 = spared, 1 = gone; unbounded.

Nodes are ablated one by one. For neurons and directions the loss of each is estimated: with g the gradient of m at the
activation, averaged over midpoints between the corrupted and the clean embeddings as in EAP-IG, and d = ablated minus
clean, the estimate along a unit direction r is r' A r, A = -mean over pairs of sum over positions of (d g' + g d') / 2,
over the gap. Neurons are the diagonal of A; directions of a level are eigenvectors of combinations of such matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.attribution import midpoints
from interp.circuits.hooked import ends, gradients_at, streams
from interp.circuits.pairs import Pairs
from interp.models.graph import Graph
from interp.stage_options import Ablation, Level


@dataclass(frozen=True, eq=False)
class Part:
    """Units of one level: at each hook either indices (heads, neurons, or all of it) or directions [rank, d]."""

    units: Mapping[str, Tensor | None]  # hook -> long [k], float [rank, d], or None for the whole activation

    @property
    def size(self) -> int:
        """How many units."""
        return sum(1 if where is None else len(where) for where in self.units.values())

    @property
    def first_layer(self) -> int:
        """The first layer that it changes."""
        return min((int(hook.split(".")[1]) for hook in self.units), default=0)

    def names(self) -> list[str]:
        """Its units: "a1.h3", "m1", "m1.n17"; directions are counted, "attn 1: 3 directions"."""
        found = []
        for hook, where in self.units.items():
            layer = hook.split(".")[1]
            if where is None:
                found.append(f"m{layer}")
            elif where.is_floating_point():
                found.append(f"{'attn' if 'attn' in hook else 'mlp'} {layer}: {len(where)} directions")
            else:
                stem = f"a{layer}.h" if hook.endswith("hook_z") else f"m{layer}.n"
                found += [f"{stem}{index}" for index in where.tolist()]
        return found


def level_hooks(model: Any, level: Level) -> list[str]:
    """The hooks at which units of a level live, in the order in which they fire.

    Raises:
        ValueError: a model of two residual streams.
    """
    if not Graph.of(model).one_stream:
        raise ValueError(f"parts are of one residual stream; {model.cfg.architecture!r} has two")
    ends = {
        "node": ("attn.hook_z", "hook_mlp_out"),
        "neuron": ("mlp.hook_post",),
        "subspace": ("hook_attn_out", "hook_mlp_out"),
    }[level]
    return [f"blocks.{layer}.{end}" for layer in range(model.cfg.n_layers) for end in ends]


def part_of(model: Any, level: Level, units: Sequence[int]) -> Part:
    """The part of numbered nodes or neurons: layer by layer, heads before their MLP.

    Raises:
        ValueError: directions have no numbers, or the model has no such unit.
    """
    width = model.cfg.n_heads + 1 if level == "node" else model.cfg.d_mlp
    n_units = model.cfg.n_layers * width
    if level == "subspace":
        raise ValueError("a subspace's directions have no numbers; make a Part of them")
    if wrong := [unit for unit in units if not 0 <= unit < n_units]:
        raise ValueError(f"the model has {n_units} units of level {level}, got {wrong[0]}")
    found: dict[str, list[int]] = {}
    whole: dict[str, None] = {}
    for layer, index in (divmod(int(unit), width) for unit in sorted(units)):
        if level == "neuron":
            found.setdefault(f"blocks.{layer}.mlp.hook_post", []).append(index)
        elif index < model.cfg.n_heads:
            found.setdefault(f"blocks.{layer}.attn.hook_z", []).append(index)
        else:
            whole[f"blocks.{layer}.hook_mlp_out"] = None
    return Part({**{hook: torch.tensor(some) for hook, some in found.items()}, **whole})


def random_part(model: Any, level: Level, size: int, *, rng: np.random.Generator) -> Part:
    """A part of `size` units drawn uniformly from the level; directions uniform on the sphere, orthonormal at a hook.

    Raises:
        ValueError: the level has fewer units.
    """
    hooks, cfg = level_hooks(model, level), model.cfg
    per_layer = {"node": cfg.n_heads + 1, "neuron": cfg.d_mlp, "subspace": 2 * cfg.d_model}
    n_units = cfg.n_layers * per_layer[level]
    if not 0 < size <= n_units:
        raise ValueError(f"a part of level {level} has 1 to {n_units} units, got {size}")
    chosen = rng.choice(n_units, size=size, replace=False)
    if level != "subspace":
        return part_of(model, level, chosen.tolist())
    counts = np.bincount(chosen // cfg.d_model, minlength=len(hooks))
    units = {}
    for hook, rank in zip(hooks, counts, strict=True):
        if rank:
            basis = np.linalg.qr(rng.normal(size=(cfg.d_model, rank)))[0].T
            units[hook] = torch.from_numpy(np.ascontiguousarray(basis)).to(model.W_U.dtype)
    return Part(units)


class Ablator:
    """Runs of pairs with parts ablated; what is shared by all parts is computed once."""

    def __init__(
        self,
        model: Any,
        pairs: Pairs,
        hooks: Sequence[str],
        *,
        ablation: Ablation,
        means: Mapping[str, Tensor] | None = None,
    ):
        """`means` are what "mean" puts in, from `mean_activations`."""
        if ablation not in ("resample", "mean", "zero"):
            raise ValueError(f"ablation must be resample, mean or zero; got {ablation!r}")
        if ablation == "mean" and means is None:
            raise ValueError("mean ablation needs mean activations, got none")
        self.model, self.pairs = model, pairs
        with torch.no_grad():  # before hooks on the stream, which fire when a pass enters there
            self.streams = streams(model, pairs.clean.tokens)
            logits = model(self.streams[-1], start_at_layer=model.cfg.n_layers)
        self.m_clean = pairs.logit_difference(logits).double().numpy()
        self.right = pairs.exact(logits).numpy()
        other, corrupted = activations(model, pairs.corrupted.tokens, hooks)
        self.m_corrupted = pairs.logit_difference(other).double().numpy()
        if ablation == "resample":
            self.values = corrupted
        elif ablation == "zero":
            self.values = {name: torch.zeros_like(value[:1]) for name, value in corrupted.items()}
        else:
            assert means is not None
            self.values = {name: means[name] for name in hooks}

    @property
    def gap(self) -> float:
        """m(clean) - m(corrupted), the mean over pairs."""
        return float((self.m_clean - self.m_corrupted).mean())

    @torch.no_grad()
    def run(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """(m, whether the whole clean answer came out) of each pair with the part ablated."""
        first = part.first_layer
        with self.ablated(part):
            logits = self.model(self.streams[first], start_at_layer=first)
        return self.pairs.logit_difference(logits).double().numpy(), self.pairs.exact(logits).numpy()

    @contextmanager
    def ablated(self, part: Part) -> Iterator[Any]:
        """The model with the part ablated in every pass over all of the pairs."""
        hooks = [(name, partial(_replace, value=self.values[name], where=where)) for name, where in part.units.items()]
        with self.model.hooks(fwd_hooks=hooks):
            yield self.model


def _replace(activation: Tensor, hook: Any, *, value: Tensor, where: Tensor | None) -> Tensor:
    """`activation` [batch, pos, ...] with `value` at the units `where` of a part."""
    value = value.expand_as(activation)
    if where is None:
        return value
    if where.is_floating_point():
        return activation + (value - activation) @ where.T @ where
    changed = activation.clone()
    changed[:, :, where] = value[:, :, where]  # the head axis of z, or the neurons of post
    return changed


@torch.no_grad()
def activations(model: Any, tokens: Tensor, hooks: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the activation at each hook."""
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation.detach().clone()

    with model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
        logits = model(tokens)
    return logits, kept


def mean_activations(model: Any, tokens: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """The mean over examples of the activation at each hook, [1, pos, ...]."""
    return {name: value.mean(0, keepdim=True) for name, value in activations(model, tokens, hooks)[1].items()}


def node_losses(ablator: Ablator) -> np.ndarray:
    """Loss of each node when it alone is ablated, [n_layers * (n_heads + 1)]."""
    cfg = ablator.model.cfg
    n_nodes = cfg.n_layers * (cfg.n_heads + 1)
    m = np.stack([ablator.run(part_of(ablator.model, "node", [unit]))[0] for unit in range(n_nodes)])
    return (ablator.m_clean - m).mean(1) / _safe(ablator.gap)


@torch.inference_mode(False)  # gradients are needed, whatever mode it is called in
def attribution_matrices(ablator: Ablator, hooks: Sequence[str], *, steps: int) -> dict[str, Tensor]:
    """For each hook the matrix A [d, d] of the module's docstring: r' A r estimates the loss along r, |r| = 1."""
    model, pairs = ablator.model, ablator.pairs
    embedded, corrupted = ends(model, pairs)
    clean = activations(model, pairs.clean.tokens, hooks)[1]
    gradients = {name: torch.zeros_like(value) for name, value in clean.items()}
    for fraction in midpoints(steps):
        embedding = corrupted + fraction * (embedded - corrupted)
        found = gradients_at(
            model,
            hooks,
            lambda embedding=embedding: pairs.logit_difference(model(embedding, start_at_layer=0)).sum(),
        )
        for name, gradient in zip(hooks, found, strict=True):
            gradients[name] += gradient / steps
    matrices = {}
    for name in hooks:
        change = (ablator.values[name] - clean[name]).flatten(0, 1)
        product = change.T @ gradients[name].flatten(0, 1) / len(pairs)
        matrices[name] = -(product + product.T) / 2 / _safe(ablator.gap)
    return matrices


def _safe(gap: float) -> float:
    """The gap to divide by; one too small to explain anything becomes nan."""
    return gap if abs(gap) > 1e-6 else float("nan")
