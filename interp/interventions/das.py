"""Distributed alignment search: fit the subspace in which a variable can be swapped (Geiger et al. 2024).

1. h' = h_base + (h_source - h_base) R^T R, R [rank, d] with orthonormal rows: R^T is the Q of a QR factorisation.
2. The model is frozen. AdamW minimises the cross-entropy of the whole patched answer to the world's counterfactual
   one. Only the part of the model from the patched layer on is run.
3. Fitted on pairs from training units, half of which change the answer; scored on held-out units.

A set of positions is swapped together, in one subspace, and resolved apart in base and source. A fit can succeed where
the model represents nothing (Arora et al. 2024, Makelov et al. 2023), hence the controls of `das_rows`: a random
subspace of the same rank, the same fit on an untrained model, and at `mlp.hook_post` the fitted subspace's part that
W_out passes on (row space) and the part that it drops (null space). An effect that neither part has alone comes from a
path that the model does not use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.interventions.activations import check_sites, collect
from interp.interventions.by_stratum import Swap, stratum_rows
from interp.interventions.declared import axes_of
from interp.interventions.interchange import iia_sweep, random_basis, swaps_of
from interp.interventions.pairs import SharedPairs
from interp.interventions.patching import Patch, patch_activation, write_positions
from interp.interventions.sweep import entry_point, interchange_answers
from interp.ranges import counted, require_count, require_number
from interp.results import Control, Method
from interp.tasks import Task
from interp.tasks.answers import read_answers
from interp.tasks.sites import Site


@dataclass(frozen=True)
class DasConfig:
    """How a subspace is fitted. The defaults take some ten seconds a fit for a model of 4 layers of width 64."""

    n_pairs: int = 512  # pairs of training units; as many that change the answer are looked for as make up half
    n_held_out: int = 256  # pairs of held-out units that the fit is scored on
    steps: int = 200
    batch_size: int = 32  # pairs a step
    lr: float = 0.1  # of AdamW; falls linearly to 0

    def __post_init__(self) -> None:
        for name in ("n_pairs", "n_held_out", "steps", "batch_size"):
            require_count(name, getattr(self, name))
        require_number("lr", self.lr, above=0)


@dataclass(frozen=True, eq=False)
class DasFit:
    """A fitted subspace and how well it swaps the variable, where the counterfactual changes the answer."""

    variable: str
    site: Site
    basis: Tensor  # float32 [rank, d], orthonormal rows
    losses: tuple[float, ...]  # nats an answer, by step
    iia_train: float  # on the pairs that it was fitted on; nan where none changes the answer
    iia: float  # on held-out units
    n_train: int  # pairs that change the answer
    n: int

    @property
    def rank(self) -> int:
        return len(self.basis)


@counted(rank=1)
@torch.inference_mode(False)  # a fit needs gradients, whatever mode it is called in
@torch.enable_grad()
def fit_das(
    model: Any,
    task: Task,
    variable: str,
    site: Site,
    *,
    rank: int,
    config: DasConfig = DasConfig(),  # frozen
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> DasFit:
    """Fit a subspace of `rank` dimensions at a site.

    Args:
        model: the hooked model, in eval mode; its weights are left as they are.
        task: draws the pairs and knows the world.
        variable: a settable variable.
        site: where to swap; at a hook with heads, all of them share the subspace unless the site names one.
        rank: dimensions of the subspace.
        config: numbers of pairs and steps.
        seed: of pairs, initial subspace and batches.
        progress: called with the share of steps done, 0 to 1.

    Raises:
        ValueError: an unknown or unsettable variable, hook or position set, or a rank that the activation lacks.
    """
    train = _draw(task, variable, config.n_pairs, seed=seed, split="train")
    held_out = _draw(task, variable, config.n_held_out, seed=seed, split="evaluation")
    basis, losses = fit_basis(
        model, task, train, variable, site, rank=rank, config=config, seed=seed, progress=progress
    )
    scores = []
    for pairs in (train, held_out):
        right = subspace_swaps(model, task, pairs, variable, site, [basis])[0]
        changes = pairs.changes[variable]
        scores.append((float(right[changes].mean()) if changes.any() else float("nan"), int(changes.sum())))
    (iia_train, n_train), (iia, n) = scores
    return DasFit(variable, site, basis, losses, iia_train, iia, n_train, n)


def _draw(task: Task, variable: str, n_pairs: int, *, seed: int, split: Any) -> SharedPairs:
    return SharedPairs.draw(task, [variable], n_pairs=n_pairs, n_changing=n_pairs // 2, seed=seed, split=split)


@torch.inference_mode(False)  # a fit needs gradients, whatever mode it is called in
@torch.enable_grad()
def fit_basis(
    model: Any,
    task: Task,
    pairs: SharedPairs,
    variable: str,
    site: Site,
    *,
    rank: int,
    config: DasConfig = DasConfig(),  # frozen
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[Tensor, tuple[float, ...]]:
    """The fit itself, on given pairs: (basis [rank, d], loss of each step in nats an answer)."""
    check_sites(model, [site])
    members, targets = pairs.members[variable], pairs.targets[variable]
    (swap,) = swaps_of(task, [site], pairs)
    value = collect(model, pairs.source, [site], task=task, at=pairs.source_time)[site]
    layer, direct = entry_point(model, site.hook)
    stream = pairs.base.tokens
    if layer >= 0:
        with torch.no_grad():
            stream = torch.cat([model(part, stop_at_layer=layer) for part in stream.split(256)])
    generator = torch.Generator().manual_seed(seed)
    weight = random_basis(rank, value.shape[-1], generator=generator).T.contiguous().to(value).requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=config.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=config.steps)
    losses: list[float] = []
    with frozen(model):
        for step in range(config.steps):
            chosen = torch.randperm(len(members), generator=generator)[: config.batch_size]
            rows = torch.from_numpy(members)[chosen]
            patch = Patch(site.hook, swap.base_positions[rows], value[rows], site.head, torch.linalg.qr(weight).Q.T)
            logits = _patched(model, stream[rows], patch, layer=layer, direct=direct)
            answers = read_answers(logits, pairs.positions[rows]).flatten(0, 1)  # [rows * k, d_vocab]
            wanted = targets[chosen].flatten()
            loss = F.cross_entropy(answers, wanted, ignore_index=-1, reduction="sum") / len(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if progress is not None:
                progress((step + 1) / config.steps)
    return torch.linalg.qr(weight.detach()).Q.T.contiguous(), tuple(losses)


def _patched(model: Any, stream: Tensor, patch: Patch, *, layer: int, direct: bool) -> Tensor:
    """Logits of a pass from the tokens (layer -1) or the residual stream before a layer; differentiable."""
    start = None if layer < 0 else layer
    if direct:
        stream = stream.clone()
        write_positions(stream, axes_of(model, patch.hook), patch)
        return model(stream, start_at_layer=start)
    with model.hooks(fwd_hooks=[(patch.hook, partial(patch_activation, model=model, patches=[(0, patch)]))]):
        return model(stream) if start is None else model(stream, start_at_layer=start)


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No weight of the model takes part in gradients inside."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@counted(batch_size=1)
def subspace_swaps(
    model: Any,
    task: Task,
    pairs: SharedPairs,
    variable: str,
    site: Site,
    bases: Sequence[Tensor | None],
    *,
    batch_size: int = 256,
) -> np.ndarray:
    """Whether the whole answer is the world's counterfactual one, bool [len(bases) + 1, n].

    One row a subspace (None: the full vector) and, last, the unpatched model; columns are the variable's pairs, in the
    order of `pairs.members[variable]`.
    """
    rows = pairs.members[variable]
    answers = interchange_answers(
        model,
        pairs.base.tokens[rows],
        pairs.source.tokens[rows],
        swaps_of(task, [site] * len(bases), pairs, rows, bases=bases),
        positions=pairs.positions[rows],
        batch_size=batch_size,
    )
    return pairs.right(variable, answers).numpy()


def principal_angles(first: Tensor, second: Tensor) -> np.ndarray:
    """Principal angles between the row spaces of two orthonormal bases [rank, d], in degrees, ascending.

    As many as the smaller rank; all 0 where one subspace holds the other.

    Raises:
        ValueError: bases of other shapes or of different widths, or rows that are not orthonormal.
    """
    for name, basis in (("first", first), ("second", second)):
        if basis.ndim != 2 or basis.shape[1] != second.shape[-1]:
            raise ValueError(f"both bases must be [rank, d] of one d; got {list(first.shape)} and {list(second.shape)}")
        gram = basis.double() @ basis.double().T
        if not torch.allclose(gram, torch.eye(len(basis), dtype=torch.float64, device=basis.device), atol=1e-3):
            raise ValueError(f"the rows of the {name} basis must be orthonormal")
    cosines = torch.linalg.svdvals(first.double() @ second.double().T).clamp(0, 1)
    return np.degrees(np.arccos(cosines.cpu().numpy()))


def row_and_null_parts(basis: Tensor, w_out: Tensor) -> tuple[Tensor, Tensor]:
    """A subspace's parts that a matrix passes on and that it drops (Makelov et al. 2023).

    Args:
        basis: [rank, d_mlp], orthonormal rows, of a subspace at `mlp.hook_post`.
        w_out: [d_mlp, d_model], as in `activation @ w_out`.

    Returns:
        (row_part, null_part), orthonormal bases [up to rank, d_mlp] of the rows' projections onto the span of what
        `w_out` reads and onto its complement. A part without length has no rows.
    """
    left, values, _ = torch.linalg.svd(w_out.double(), full_matrices=False)
    read = left[:, values > 1e-6 * values.max()]
    seen = basis.double() @ read @ read.T
    return _orthonormal(seen).to(basis), _orthonormal(basis.double() - seen).to(basis)


def _orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows of the same span."""
    _, values, right = torch.linalg.svd(rows, full_matrices=False)
    return right[values > 1e-4]


@counted(rank=1)
def das_rows(
    model: Any,
    task: Task,
    variable: str,
    site: Site,
    *,
    rank: int,
    config: DasConfig = DasConfig(),  # frozen
    seed: int = 0,
    untrained: Any | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[DasFit, list[dict[str, Any]]]:
    """A fit, and its IIA on held-out units, pooled and by stratum, with controls as rows of the tidy frame.

    Controls: the unpatched model, random subspaces of the rank, and, where `untrained` is given, the same fit on that
    model. At `mlp.hook_post` further rows, of granularity "row_space" and "null_space", hold the two parts' own IIA.
    """
    fit = fit_das(model, task, variable, site, rank=rank, config=config, seed=seed, progress=progress)

    def rows(subject: Any, basis: Tensor) -> list[dict[str, Any]]:
        found = iia_sweep(
            subject,
            task,
            [variable],
            [],
            n_pairs=config.n_held_out,
            n_changing=config.n_held_out // 2,
            seed=seed,
            subspaces={(variable, site): basis},
            subspace_method=Method.DAS,
        )
        return [row for row in found if "site" in row]

    result = rows(model, fit.basis)
    if untrained is not None:
        blank = fit_das(untrained, task, variable, site, rank=rank, config=config, seed=seed)
        plain = [row for row in rows(untrained, blank.basis) if row["control"] is None]
        result += [{**row, "control": Control.UNTRAINED_MODEL} for row in plain]
    result += stratum_rows(model, task, variable, [Swap(site, fit.basis, {"method": Method.DAS})], seed=seed)
    if site.hook.endswith("mlp.hook_post"):
        w_out = model.blocks[int(site.hook.split(".")[1])].mlp.W_out
        parts = zip(("row_space", "null_space"), row_and_null_parts(fit.basis, w_out.detach()), strict=True)
        for name, part in parts:
            result += [{**row, "granularity": name} for row in (rows(model, part) if len(part) else [])]
    return fit, result
