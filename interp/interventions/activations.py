"""Activations at named sites, read in batches: what probes are fitted on and what patches put in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.declared import (
    axes_of,
    can_enter_layers,
    first_position,
    head_axis,
    layer_of,
    n_layers,
    position_axis,
)
from interp.interventions.patching import Ablation, Patch, ablation_value, check_basis, patched, read_positions
from interp.ranges import counted
from interp.tasks import Batch, Task
from interp.tasks.sites import Site, resolve

Times = int | np.ndarray  # the executed step at which pointers are read, for all examples or one each


@counted(batch=1, batch_size=1)
@torch.no_grad()
def collect(
    model: Any,
    batch: Batch,
    sites: Sequence[Site],
    *,
    task: Task | None = None,
    position_names: Sequence[str] | None = None,
    at: Times = 0,
    batch_size: int = 256,
) -> dict[Site, Tensor]:
    """Activations at each site, from forward passes that stop after the last layer anybody asked for.

    Args:
        model: a hooked model; hooks that stand on it count.
        batch: examples.
        sites: where to read. Sites of one hook share its pass.
        task: names the positions, and reads what pointed slots point to.
        position_names: in place of a task, where no slot is pointed at.
        at: the executed step at which pointers are read, for all examples or one each.
        batch_size: examples a forward pass.

    Returns:
        For each site [n, k, d] with k positions; [n, k, head, d_head] at a hook with heads where the site names
        none; at attention patterns positions are queries, [n, k, head, key].

    Raises:
        ValueError: the model has no such hook, no such head there, or a position set cannot be resolved.
    """
    check_sites(model, sites)
    hooks = sorted({site.hook for site in sites})
    where = {
        name: positions_of(name, batch, task=task, position_names=position_names, at=at)
        for name in {site.positions for site in sites}
    }
    stop = stop_layer(model, hooks)
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(batch), batch_size):
        rows = slice(start, start + batch_size)
        cache: dict[str, Tensor] = {}
        axes: dict[str, tuple[str, ...]] = {}

        def keep(act: Tensor, hook: Any, name: str, cache: dict = cache, axes: dict = axes) -> None:
            cache[name], axes[name] = act, axes_of(model, name)  # under the name asked for: a hook may have several

        with model.hooks(fwd_hooks=[(name, partial(keep, name=name)) for name in hooks]):
            model(batch.tokens[rows], stop_at_layer=stop) if stop is not None else model(batch.tokens[rows])
        for site in sites:
            hook = site.hook
            positions = where[site.positions][rows]
            first = first_position(model, hook)
            here = read_positions(cache[hook], axes[hook], hook, positions=positions, head=site.head, first=first)
            parts[site].append(here)
    return {site: torch.cat(part) for site, part in parts.items()}


@counted(tokens=1, batch_size=1)
@torch.no_grad()
def collect_positions(
    model: Any, tokens: Tensor, hooks: Sequence[str], positions: Tensor, *, batch_size: int = 256
) -> dict[str, Tensor]:
    """Activations of several hooks at positions [n, k] of tokens [n, pos], by hook [n, k, …]."""
    parts: dict[str, list[Tensor]] = {hook: [] for hook in hooks}
    for some, where in zip(tokens.split(batch_size), positions.split(batch_size), strict=True):

        def keep(act: Tensor, hook: Any, where: Tensor = where) -> None:
            at = {"positions": where, "first": first_position(model, hook.name)}
            parts[hook.name].append(read_positions(act, axes_of(model, hook.name), hook.name, **at))

        with model.hooks(fwd_hooks=[(name, keep) for name in hooks]):
            model(some)
    return {hook: torch.cat(found) for hook, found in parts.items()}


def positions_of(
    name: str, batch: Batch, *, task: Task | None, position_names: Sequence[str] | None = None, at: Times = 0
) -> Tensor:
    """The token positions of a named set in each example, long [n, k].

    Raises:
        ValueError: as `Task.resolve`; or neither a task nor names are given, or a slot is pointed at without a task.
    """
    if task is not None:
        return task.resolve(name, batch, at)
    if position_names is None:
        raise ValueError("give the task, or the names of its positions, to find positions by name")

    def read(pointer: str) -> np.ndarray:
        raise ValueError(f"{name!r} is where {pointer} points to: give the task, which reads it")

    return resolve(position_names, name, len(batch), read)


def check_sites(model: Any, sites: Sequence[Site]) -> None:
    """Raise ValueError unless every site's hook exists in the model, has positions, and the head that is named."""
    for site in sites:
        if not isinstance(site, Site):
            raise ValueError(f"a place in the model is a Site(hook, positions), got {site!r}")
        axes = axes_of(model, site.hook)
        position_axis(axes, site.hook)
        if site.head is None:
            continue
        head_axis(axes, site.hook)
        n_heads = getattr(getattr(model, "cfg", None), "n_heads", None)
        if site.head < 0 or (n_heads is not None and site.head >= n_heads):
            raise ValueError(f"{site.hook}: head must be from 0 to {n_heads and n_heads - 1}, got {site.head}")


def stop_layer(model: Any, hooks: Sequence[str]) -> int | None:
    """The layer before which a forward pass may stop: one after the last hooked layer; None to run to the end."""
    layers, count = [layer_of(model, name) for name in hooks], n_layers(model)
    inside = [layer for layer in layers if layer is not None]
    if count is None or not can_enter_layers(model) or not layers or len(inside) < len(layers):
        return None
    stop = 1 + max(inside)
    return stop if stop < count else None


@torch.no_grad()
def patch_from(
    model: Any,
    base: Batch,
    source: Batch,
    site: Site,
    *,
    task: Task | None = None,
    position_names: Sequence[str] | None = None,
    at: Times = 0,
    source_at: Times | None = None,
    basis: Tensor | None = None,
) -> Tensor:
    """Activation patching: logits [n, pos, d_vocab] on base with the site's activation taken from source.

    Args:
        model: a hooked model; hooks that stand on it count.
        base: n examples.
        source: n examples.
        site: where to patch; positions are resolved apart in base and in source.
        task: as in `collect`, as are position_names.
        position_names: see task.
        at: the executed step of base at which pointers are read.
        source_at: that of source; `at` by default.
        basis: orthonormal rows [rank, d]: only the activation's part in that subspace is taken.

    Raises:
        ValueError: as `collect`; or a basis that is not finite orthonormal rows of the activation's size.
    """
    check_basis(basis, model)
    where: dict[str, Any] = {"task": task, "position_names": position_names}
    value = collect(model, source, [site], **where, at=at if source_at is None else source_at)[site]
    return _run(model, base, site, value, positions_of(site.positions, base, **where, at=at), basis=basis)


@torch.no_grad()
def ablate(
    model: Any,
    batch: Batch,
    site: Site,
    *,
    kind: Ablation,
    reference: Batch,
    task: Task | None = None,
    position_names: Sequence[str] | None = None,
    at: Times = 0,
    reference_at: Times | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Logits [n, pos, d_vocab] with the site set to zero, or to its mean or a resample over `reference`.

    Pointers are read at executed step `at` of the batch and `reference_at` of the reference, by default the same.
    """
    where: dict[str, Any] = {"task": task, "position_names": position_names}
    seen = collect(model, reference, [site], **where, at=at if reference_at is None else reference_at)[site]
    value = ablation_value(kind, seen, n=len(batch), generator=generator)
    return _run(model, batch, site, value, positions_of(site.positions, batch, **where, at=at))


def _run(
    model: Any, batch: Batch, site: Site, value: Tensor, positions: Tensor, *, basis: Tensor | None = None
) -> Tensor:
    with patched(model, [Patch(site.hook, positions, value, head=site.head, basis=basis)]):
        return model(batch.tokens)
