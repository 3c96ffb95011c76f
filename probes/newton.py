"""Newton's method for many smooth convex problems at once, each direction found by conjugate gradients.

1. At w, the objective bounds its own distance from the minimum; a problem is done when the bound is at most tol.
2. H d = g is solved by preconditioned conjugate gradients until a quarter of g is left (inexact Newton: Dembo,
   Eisenstat & Steihaug 1982; Nocedal & Wright 2006, section 7.1).
3. The step w - t d is shortened until the loss falls by a share of what the gradient promises.

Problems lie on a grid of sites x variables, [s, v]; rows and columns where all are done drop out of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

ARMIJO = 0.1  # share of the promised decrease that a step must bring
MAX_TRIALS = 30  # step lengths tried before a problem counts as as good as it gets
RESIDUAL = 0.25  # share of the gradient that conjugate gradients may leave
MAX_PRODUCTS = 100  # of the Hessian and a vector, for one direction
STALE = 8  # a direction that took more of them calls for a new preconditioner
ROUNDED = 16  # roundings of the loss: less than so many are not seen


@dataclass(frozen=True)
class Point:
    """A place in every problem: w and gradient [s, v, *shape], loss [s, v], and what the objective keeps of it."""

    w: Tensor
    loss: Tensor
    gradient: Tensor
    memo: Tensor  # [s, v, ...]

    def where(self, mask: Tensor, other: "Point") -> "Point":
        """This point where mask [s, v], the other one elsewhere."""
        names = self.__dataclass_fields__
        return Point(
            *(torch.where(_spread(mask, getattr(self, k)), getattr(self, k), getattr(other, k)) for k in names)
        )

    def only(self, sites: Tensor, variables: Tensor) -> "Point":
        return Point(*(getattr(self, k)[sites[:, None], variables] for k in self.__dataclass_fields__))


@dataclass(frozen=True)
class Curvature:
    """The Hessian at a point, in whatever precision directions are found; both functions keep the shape [s, v, *shape].

    It may be an approximation: that costs iterations, not truth.
    """

    times: Callable[[Tensor], Tensor]
    precondition: Callable[[Tensor], Tensor]  # a positive definite guess of the inverse
    guess: Tensor  # [s, v, ...]: what `precondition` is made of, to be used again while it serves


class Objective(Protocol):
    """Smooth convex functions, one a place of the grid."""

    def at(self, w: Tensor) -> Point:
        """Everything at w [s, v, *shape], in w's precision."""
        ...

    def gap(self, point: Point) -> Tensor:
        """An upper bound [s, v] of the loss's distance from its minimum."""
        ...

    def curvature(self, point: Point, guess: Tensor | None) -> Curvature:
        """The Hessian there, with a new preconditioner unless an old guess is given."""
        ...

    def only(self, sites: Tensor, variables: Tensor) -> Self:
        """The problems of these rows and columns of the grid."""
        ...


@dataclass(frozen=True)
class Minimum:
    """Where the search ended: w [s, v, *shape], gap [s, v] (a bound of what is missing), steps of the slowest."""

    w: Tensor
    gap: Tensor
    n_iter: int


def minimize(objective: Objective, start: Tensor, *, tol: float, max_iter: int, guess: Tensor | None = None) -> Minimum:
    """Minimise every problem from start [s, v, *shape], until its gap is at most tol or max_iter steps are done.

    A problem also ends where its loss no longer falls by more than rounding; its gap then stays above tol.
    """
    w, gaps = start.clone(), start.new_full(start.shape[:2], torch.inf)
    sites, variables = (torch.arange(size, device=start.device) for size in start.shape[:2])
    here = objective.at(start)
    stuck = torch.zeros_like(here.loss, dtype=torch.bool)
    for n_iter in range(max_iter + 1):
        gap = objective.gap(here)
        w[sites[:, None], variables] = here.w
        gaps[sites[:, None], variables] = gap
        active = (gap > tol) & ~stuck
        if n_iter == max_iter or not bool(active.any()):
            return Minimum(w, gaps, n_iter)
        rows, columns = (active.any(axis).nonzero()[:, 0] for axis in (1, 0))
        if len(rows) < len(sites) or len(columns) < len(variables):
            objective, here, active = objective.only(rows, columns), here.only(rows, columns), active[rows][:, columns]
            sites, variables = sites[rows], variables[columns]
            guess = None if guess is None else guess[rows[:, None], columns]
        curvature = objective.curvature(here, guess)
        direction, products = _direction(curvature, here.gradient, active)
        guess = curvature.guess if products <= STALE else None
        here, moved = _step(objective, here, direction, active)
        stuck = ~moved
    raise ValueError(f"max_iter must not be negative, got {max_iter}")


def _direction(curvature: Curvature, gradient: Tensor, active: Tensor) -> tuple[Tensor, int]:
    """(d with H d = gradient [s, v, *shape], roughly, and zero where not active [s, v]; products that it took)."""
    # Gradients become as small as the square root of tol: unit length keeps their squares within float32.
    length = _spread(gradient.flatten(2).norm(dim=-1), gradient)
    length = torch.where(length > 0, length, 1.0)
    residual = torch.where(_spread(active, gradient), gradient / length, 0.0).to(curvature.guess)
    found = torch.zeros_like(residual)
    search = curvature.precondition(residual)
    promise = _dot(residual, search)
    enough = RESIDUAL**2 * promise
    products = 0
    while products < MAX_PRODUCTS:
        image = curvature.times(search)
        curved = _dot(search, image)
        going = (promise > enough) & (curved > 0)  # a curvature lost in rounding ends the search
        if not bool(going.any()):
            break
        products += 1
        share = _spread(torch.where(going, promise / curved, 0.0), search)
        found, residual = found + share * search, residual - share * image
        towards = curvature.precondition(residual)
        last, promise = promise, torch.where(going, _dot(residual, towards), 0.0)
        search = towards + _spread(torch.where(going, promise / last, 0.0), search) * search
    return torch.where(torch.isfinite(found), found, 0.0).to(gradient) * length, products


def _step(objective: Objective, here: Point, direction: Tensor, active: Tensor) -> tuple[Point, Tensor]:
    """(the point after the step, bool [s, v]: where it moved as far as the loss can tell)."""
    slope = _dot(here.gradient, direction)
    rounding = ROUNDED * torch.finfo(slope.dtype).eps * here.loss.abs().clamp(min=1e-3)
    moving = active & (slope > 0)
    length = moving.to(slope)
    there, refused = here, moving
    for _ in range(MAX_TRIALS):
        there = objective.at(here.w - _spread(length, direction) * direction)
        gain = here.loss - there.loss
        # Where too little is promised to be seen in the loss, a step need only not raise it.
        wanted = torch.where(slope <= rounding, 0.0, ARMIJO * length * slope) - rounding
        refused = moving & ~(gain >= wanted)
        if not bool(refused.any()):
            break
        interpolated = 0.5 * length.square() * slope / (length * slope - gain)
        shorter = torch.minimum(torch.maximum(interpolated.nan_to_num(0.0), 0.1 * length), 0.6 * length)
        length = torch.where(refused, shorter, length)
    else:
        there, moving = here.where(refused, there), moving & ~refused
    return there, moving & (slope > rounding)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(2).sum(-1)


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """[s, v] → [s, v, 1, ...], to broadcast with `like`."""
    return values.view(*values.shape, *[1] * (like.ndim - 2))
