"""Subspaces of a model's state in which a variable may be exchanged: what a probe reads, class means, and DAS.

Each is fitted on streams of training units, on the whole state laid side by side, so that a variable that two layers
hold is found in both.

probe_subspace     the rows of a ridge probe's weights (one-hot regression, on standardised coordinates)
mean_difference    the span of the differences of class means
                   of both the largest directions first, as many (1, 2, 4, …) as exchange the variable and leave
                   bystanders best on the training units: the smaller ones follow what else goes with the variable
das                h' = h_base + (h_source - h_base) R^T R, R fitted so that the model answers as the world with the
                   variable so set (Geiger et al. 2024), half of the time at answers that do not hang on it and must
                   stay; the gradient comes through the model's own recurrence

A subspace that takes everything along also gives the right answer about a cell at an offset from the pointer, since all
of source's state with base's operations behind it does. So what must stay is part of every fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.interventions.carrier import Carrier
from interp.interventions.carrier_parts import Part
from interp.interventions.das import frozen
from interp.interventions.interchange import random_basis
from interp.ranges import require_fields
from interp.results import Method
from interp.stage_options import PatchOptions
from interp.tasks.state_pairs import StatePairs

FITTED = (Method.PROBE_SUBSPACE, Method.MEAN_DIFFERENCE, Method.DAS)
_RIDGE = 1e-2  # of the mean eigenvalue


@dataclass(frozen=True)
class SubspaceFit:
    """How subspaces of the state are fitted."""

    n_pairs: int = 512  # of training units that change the answer; both streams of each are read
    rank: int = PatchOptions.rank  # of das; the others have at most one dimension less than there are values
    steps: int = 200  # of das
    batch_size: int = 32
    lr: float = 0.1  # of AdamW; falls linearly to 0

    def __post_init__(self) -> None:
        require_fields(self, n_pairs=1, rank=1, steps=1, batch_size=1)


def fit_subspace(
    method: Method,
    model: Any,
    carrier: Carrier,
    pairs: StatePairs,
    *,
    bystanders: StatePairs | None = None,
    fit: SubspaceFit = SubspaceFit(),  # frozen
    seed: int = 0,
) -> Part:
    """A subspace of the whole state.

    Args:
        method: one of FITTED.
        model: the hooked model, in eval mode, that holds a state.
        carrier: of that model.
        pairs: of training units.
        bystanders: pairs of training units whose answer does not hang on the variable, where there are any.
        fit: how.
        seed: of the first subspace and the batches of das.

    Raises:
        ValueError: another method, a model that holds no state, or a variable with fewer than two values.
    """
    if not carrier.is_state:
        raise ValueError("a subspace is fitted on one vector; this model carries keys and values of every position")
    some = [_Fitted.of(model, carrier, each) for each in (pairs, bystanders) if each is not None]
    if method == Method.DAS:
        basis = _das(model, carrier, some, fit=fit, seed=seed)
    elif method in FITTED:
        finder: Callable[[Tensor, Tensor], Tensor] = _probe if method == Method.PROBE_SUBSPACE else _means
        found = finder(torch.cat([some[0].base, some[0].source]), torch.cat([pairs.own, pairs.values]))
        basis = _best(model, carrier, some, found)
    else:
        raise ValueError(f"no subspace is found by {method!r}; there are {', '.join(FITTED)}")
    return Part(str(method), basis=basis, method=method)


@dataclass(frozen=True, eq=False)
class _Fitted:
    """Pairs with what the model carries in each."""

    pairs: StatePairs
    base: Tensor  # [n, size]
    source: Tensor  # [n, size]

    @classmethod
    def of(cls, model: Any, carrier: Carrier, pairs: StatePairs) -> _Fitted:
        return cls(pairs, *(carrier.read(model, tokens, pairs.at) for tokens in (pairs.base, pairs.source)))


def _best(model: Any, carrier: Carrier, some: list[_Fitted], found: Tensor) -> Tensor:
    """The first 1, 2, 4, … or all directions, whichever give most right answers; the fewest of equals.

    Pairs and bystanders count the same, however many there are.
    """
    ranks = sorted({2**power for power in range(8) if 2**power < len(found)} | {len(found)})
    right = []
    for rank in ranks:
        share = 0.0
        for each in some:
            pairs, put = each.pairs, Part("", basis=found[:rank]).exchanged(each.base, each.source)
            said = carrier.answers(model, pairs.base, pairs.at, put, pairs.positions)
            share += float((said.gather(1, pairs.positions[:, None])[:, 0] == pairs.expected).double().mean())
        right.append(share)
    return found[: ranks[right.index(max(right))]].contiguous()


def _one_hot(labels: Tensor) -> Tensor:
    classes = labels[labels >= 0].unique()
    if len(classes) < 2:
        raise ValueError(f"the variable takes {len(classes)} value(s): there is no subspace to find")
    return (labels[:, None] == classes).double()


def _probe(x: Tensor, labels: Tensor) -> Tensor:
    """Solved in the space of examples or of coordinates, whichever is smaller."""
    known = labels >= 0
    x, target = x[known].double(), _one_hot(labels[known])
    scale = x.std(0).clamp_min(1e-6 * float(x.std().clamp_min(1e-12)))
    z = (x - x.mean(0)) / scale
    y = target - target.mean(0)
    if len(z) < z.shape[1]:
        kernel = z @ z.T
        weights = z.T @ torch.linalg.solve(kernel + _RIDGE * kernel.diagonal().mean() * torch.eye(len(z)).double(), y)
    else:
        gram = z.T @ z
        ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).double()
        weights = torch.linalg.solve(gram + ridge, z.T @ y)
    return _span((weights / scale[:, None]).T)


def _means(x: Tensor, labels: Tensor) -> Tensor:
    known = labels >= 0
    target = _one_hot(labels[known])
    means = target.T @ x[known].double() / target.sum(0)[:, None]
    return _span(means - means.mean(0))


def _span(rows: Tensor) -> Tensor:
    """Orthonormal rows of the same span, directions under a thousandth of the largest left out."""
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    return directions[sizes > 1e-3 * sizes[0].clamp_min(1e-12)].float().contiguous()


@torch.inference_mode(False)  # a fit needs gradients, whatever mode it is called in
@torch.enable_grad()
def _das(model: Any, carrier: Carrier, some: list[_Fitted], *, fit: SubspaceFit, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rank = min(fit.rank, carrier.size)
    weight = random_basis(rank, carrier.size, generator=generator).T.contiguous().requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=fit.lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=fit.steps)
    some = [_Fitted(each.pairs, each.base.clone(), each.source.clone()) for each in some]  # out of inference mode
    with frozen(model):
        for _ in range(fit.steps):
            basis, loss = torch.linalg.qr(weight).Q.T, weight.new_zeros(())
            for each in some:
                pairs, size = each.pairs, -(-fit.batch_size // len(some))
                rows = torch.randperm(len(pairs), generator=generator)[:size]
                put = Part("das", basis=basis).exchanged(each.base[rows], each.source[rows])
                behind = pairs.positions[rows] - pairs.at[rows]
                logits = carrier.logits(model, pairs.base[rows], pairs.at[rows], put, int(behind.max()))
                loss = loss + F.cross_entropy(logits[torch.arange(len(rows)), behind - 1], pairs.expected[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return torch.linalg.qr(weight.detach()).Q.T.contiguous()
