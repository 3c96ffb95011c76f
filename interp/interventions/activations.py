"""Activations at named sites, read in batches: what probes are fitted on and what patches put in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from interp.interventions.patching import Ablation, Patch, ablation_value, patched, read_positions
from interp.tasks import Batch
from interp.tasks.sites import Site, resolve

_BLOCK = re.compile(r"blocks\.(\d+)\.")


@torch.no_grad()
def collect(
    model: Any, batch: Batch, sites: Sequence[Site], *, position_names: Sequence[str], batch_size: int = 256
) -> dict[Site, Tensor]:
    """Activations at each site, from forward passes that stop after the last layer anybody asked for.

    Args:
        model: a hooked model.
        batch: examples; pointed slots are read from `batch.examples`.
        sites: where to read. Sites of one hook share its pass.
        position_names: `task.position_names`.
        batch_size: examples a forward pass.

    Returns:
        For each site [n, k, d] with k positions; [n, k, head, d_head] at a hook with heads where the site names
        none; at attention patterns positions are queries, [n, k, head, key].

    Raises:
        ValueError: the model has no such hook, or a position set cannot be resolved.
    """
    check_sites(model, sites)
    hooks = sorted({site.hook for site in sites})
    where = {name: resolve(position_names, name, batch.examples) for name in {site.positions for site in sites}}
    stop = stop_layer(model, hooks)
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(batch), batch_size):
        rows = slice(start, start + batch_size)
        cache: dict[str, Tensor] = {}
        with model.hooks(
            fwd_hooks=[(name, lambda act, hook, c=cache: c.__setitem__(hook.name, act)) for name in hooks]
        ):
            model(batch.tokens[rows], stop_at_layer=stop) if stop is not None else model(batch.tokens[rows])
        for site in sites:
            positions = where[site.positions][rows]
            parts[site].append(read_positions(cache[site.hook], site.hook, positions=positions, head=site.head))
    return {site: torch.cat(part) for site, part in parts.items()}


def check_sites(model: Any, sites: Sequence[Site]) -> None:
    """Raise ValueError unless every site's hook (and head) exists in the model."""
    for site in sites:
        if site.hook not in model.hook_dict:
            raise ValueError(f"the model has no hook {site.hook!r}")
        if site.head is not None and not 0 <= site.head < model.cfg.n_heads:
            raise ValueError(f"{site.hook}: head must be from 0 to {model.cfg.n_heads - 1}, got {site.head}")


def stop_layer(model: Any, hooks: Sequence[str]) -> int | None:
    """The layer before which a forward pass may stop: one after the last hooked block; None to run to the end."""
    layers = [_BLOCK.match(name) for name in hooks]
    if not all(layers) or not hasattr(model.cfg, "n_layers"):
        return None
    stop = 1 + max(int(match[1]) for match in layers if match)
    return stop if stop < model.cfg.n_layers else None


@torch.no_grad()
def patch_from(
    model: Any, base: Batch, source: Batch, site: Site, *, position_names: Sequence[str], basis: Tensor | None = None
) -> Tensor:
    """Activation patching: logits [n, pos, d_vocab] on base with the site's activation taken from source.

    With `basis` [rank, d] (orthonormal rows) only the activation's part in that subspace is taken.
    """
    value = collect(model, source, [site], position_names=position_names)[site]
    return _run(model, base, site, value, position_names=position_names, basis=basis)


@torch.no_grad()
def ablate(
    model: Any,
    batch: Batch,
    site: Site,
    *,
    kind: Ablation,
    reference: Batch,
    position_names: Sequence[str],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Logits [n, pos, d_vocab] with the site set to zero, or to its mean or a resample over `reference`."""
    seen = collect(model, reference, [site], position_names=position_names)[site]
    value = ablation_value(kind, seen, n=len(batch), generator=generator)
    return _run(model, batch, site, value, position_names=position_names)


def _run(
    model: Any, batch: Batch, site: Site, value: Tensor, *, position_names: Sequence[str], basis: Tensor | None = None
) -> Tensor:
    positions = resolve(position_names, site.positions, batch.examples)
    with patched(model, [Patch(site.hook, positions, value, head=site.head, basis=basis)]):
        return model(batch.tokens)
