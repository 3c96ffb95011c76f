"""Subspaces in which a variable may be swapped: found by class means, by alignment search, or read from disk.

Each is measured at the same place on the same pairs, beside the whole vector, a random subspace of its rank, the same
subspace at other positions, the model left alone, and the same method on an untrained model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import collect
from interp.interventions.by_stratum import Swap, stratum_rows
from interp.interventions.das import DasConfig, das_rows
from interp.interventions.interchange import iia_sweep
from interp.ranges import counted
from interp.results import Control, Method
from interp.tasks import Task
from interp.tasks.sites import Site


@counted(rank=1, n=1)
def mean_difference_basis(
    model: Any, task: Task, variable: str, site: Site, *, rank: int | None = None, n: int = 2048, seed: int = 0
) -> Tensor:
    """Orthonormal rows [rank, d] of the differences between the activation's class means, the largest first.

    Means are taken over `n` examples of training units, position by position of the site's set. Without `rank`, all
    directions above a thousandth of the largest.

    Raises:
        ValueError: fewer than two classes occur, or fewer directions than `rank` differ.
    """
    batch = task.sample(n, seed=seed, split="train")
    labels = task.labels(batch, variable)
    values = collect(model, batch, [site], task=task)[site].flatten(2)  # [n, k, d]
    classes = np.unique(labels[labels >= 0])
    if len(classes) < 2:
        raise ValueError(f"variable {variable!r} takes {len(classes)} value(s) in {n} examples: no difference of means")
    means = torch.stack([values[torch.from_numpy(labels == value)].mean(0) for value in classes])  # [class, k, d]
    _, sizes, directions = torch.linalg.svd((means - means.mean(0)).flatten(0, 1), full_matrices=False)
    found = directions[sizes > 1e-3 * sizes[0].clamp_min(1e-12)]
    if rank is not None and rank > len(found):
        raise ValueError(f"rank must be at most {len(found)}, the differences of means of {variable!r}; got {rank}")
    return found[:rank].contiguous()


@counted(rank=1, n_pairs=1)
def subspace_rows(
    model: Any,
    task: Task,
    variable: str,
    site: Site,
    *,
    method: Method,
    rank: int | None = None,
    n_pairs: int = 256,
    das: DasConfig = DasConfig(),  # noqa: B008 (frozen)
    untrained: Any | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """IIA in the subspace that `method` finds, on held-out units, pooled and by stratum, with its controls, as rows.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        variable: a settable variable.
        site: where to swap.
        method: `Method.MEAN_DIFFERENCE` or `Method.DAS`.
        rank: dimensions; for mean differences None means all, and DAS needs a number.
        n_pairs: held-out pairs.
        das: how DAS is fitted.
        untrained: a model with initial weights, on which the method is repeated as a control.
        seed: of everything random.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: another method, or a rank that it lacks.
    """
    if method == Method.DAS:
        if rank is None:
            raise ValueError("das needs a rank")
        return das_rows(
            model, task, variable, site, rank=rank, config=das, seed=seed, untrained=untrained, progress=progress
        )[1]
    if method != Method.MEAN_DIFFERENCE:
        raise ValueError(f"method must be mean_difference or das, got {method}")

    def rows(subject: Any, basis: Tensor) -> list[dict[str, Any]]:
        found = iia_sweep(
            subject, task, [variable], [], n_pairs=n_pairs, n_changing=n_pairs // 2, seed=seed,
            subspaces={(variable, site): basis}, subspace_method=method,
        )  # fmt: skip
        return [{**row, "rank": rank or row["rank"]} for row in found if "site" in row]

    basis = mean_difference_basis(model, task, variable, site, rank=rank, seed=seed)
    found = rows(model, basis)
    if untrained is not None:
        blank = mean_difference_basis(untrained, task, variable, site, rank=rank, seed=seed)
        plain = [row for row in rows(untrained, blank) if row["control"] is None]
        found += [{**row, "rank": found[0]["rank"], "control": Control.UNTRAINED_MODEL} for row in plain]
    swap = Swap(site, basis, {"method": method, "rank": rank or len(basis)})
    found += stratum_rows(model, task, variable, [swap], seed=seed)
    if progress is not None:
        progress(1.0)
    return found
