"""The interchange experiment of a run: every variable, layer and position set, in both pair designs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from interp.interventions.activations import check_sites
from interp.interventions.declared import axes_of, head_axis, within_layer
from interp.interventions.interchange import Subspaces, iia_sweep, residual_sites
from interp.ranges import counted
from interp.stage_options import PatchOptions
from interp.tasks import Task
from interp.tasks.counterfactual import PairDesign
from interp.tasks.sites import Site

_HOOK = re.compile(r"(?P<hook>[^\[\]]+)(?:\[(?P<head>\d+|\*)\])?")


def named_sites(model: Any, hooks: Sequence[str], position_sets: Sequence[str]) -> list[Site]:
    """Sites from short names, at each position set.

    `mlp.hook_post` stands for every layer's, `blocks.1.mlp.hook_post` for one; `attn.hook_z[2]` is head 2 of every
    layer, `attn.hook_z[*]` each head apart, `attn.hook_z` all heads of a layer together.

    Raises:
        ValueError: the model has no such hook or head.
    """
    found = []
    for text in hooks:
        match = _HOOK.fullmatch(text)
        if match is None:
            raise ValueError(
                f"a hook is spelt like mlp.hook_post, blocks.1.mlp.hook_post or attn.hook_z[2]; got {text!r}"
            )
        whole = [name for name in model.hook_dict if name == match["hook"]]
        here = whole or [name for name in model.hook_dict if name != within_layer(name) == match["hook"]]
        if not here:
            raise ValueError(f"the model has no hook {match['hook']!r}, in no layer either")
        heads: Sequence[int | None] = [None]
        if match["head"] is not None:
            heads = _every_head(model, here[0]) if match["head"] == "*" else [int(match["head"])]
        found += [Site(name, positions, head) for name in here for head in heads for positions in position_sets]
    check_sites(model, found)
    return found


def _every_head(model: Any, hook: str) -> range:
    """The heads at a hook. Raises ValueError where the activation has none."""
    head_axis(axes_of(model, hook), hook)
    return range(model.cfg.n_heads)


@counted(n_pairs=1)
def run_interventions(
    model: Any,
    task: Task,
    *,
    variables: Sequence[str] | None = None,
    sites: Sequence[Site] | None = None,
    position_sets: Sequence[str] | None = None,
    designs: Sequence[PairDesign] = PatchOptions.designs,
    n_pairs: int = PatchOptions.n_pairs,
    seed: int = PatchOptions.seed,
    subspaces: Subspaces | None = None,
    untrained: Any | None = None,
    done: Collection[tuple[str, str]] = (),
    save: Callable[[list[dict[str, Any]]], None] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> list[dict[str, Any]]:
    """IIA of variables at sites (the residual stream before the first layer and after each), with controls, as rows.

    Independent pairs are shared, so their variables go through one sweep together, with every control. Minimal pairs
    are a variable's own: each has a sweep of its own, on half as many, with the unpatched model as its one control.
    Variables that no single edit decides have none.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        variables: `task.swappable()` where None.
        sites: where to swap; the residual stream at `position_sets` where None.
        position_sets: `task.position_sets()` where None.
        designs: pair designs, in order.
        n_pairs: independent pairs a variable.
        seed: of everything random.
        subspaces: for (variable, site) a basis [rank, d_model], the probe's for example. Independent pairs only.
        untrained: a model with initial weights, for the control.
        done: (variable, design) to leave out, being done already.
        save: called with the new rows as soon as a sweep is over.
        progress: called with (sweeps done, of how many, what is going on); the first may be fractional.

    Raises:
        ValueError: an unknown or unsettable variable, an unknown position set, or a basis of the wrong shape.
    """
    names = task.swappable() if variables is None else list(variables)
    if sites is None:
        sites = residual_sites(model, position_sets or task.position_sets())
    sweeps: list[tuple[PairDesign, list[str]]] = []
    for design in designs:
        left = [name for name in names if (name, design) not in done]
        groups = [[name] for name in left if task.has_minimal_pairs(name)] if design == "minimal" else [left]
        sweeps.extend((design, group) for group in groups if group)
    rows: list[dict[str, Any]] = []
    for index, (design, some) in enumerate(sweeps):
        label = f"{design} pairs" if len(some) > 1 else f"{some[0]}, {design} pairs"

        def report(share: float, index: int = index, label: str = label) -> None:
            if progress is not None:
                progress(index + share, len(sweeps), label)

        new = iia_sweep(
            model,
            task,
            some,
            sites,
            n_pairs=n_pairs if design == "independent" else max(1, n_pairs // 2),
            seed=seed,
            design=design,
            subspaces=subspaces if design == "independent" else None,
            untrained=untrained if design == "independent" else None,
            wrong_site=design == "independent",
            progress=report,
        )
        rows += new
        if save is not None:
            save(new)
    return rows
