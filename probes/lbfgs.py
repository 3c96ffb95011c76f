"""Limited-memory BFGS for many small problems at once (Liu & Nocedal 1989; Nocedal & Wright 2006, section 7.2).

Every problem keeps its own step length, curvature pairs and stopping; the evaluations are shared.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ARMIJO = 0.1  # share of the promised decrease that a step must bring
ROUNDED = 100  # a promise below so many roundings of the loss cannot be checked
TRUST = 3  # a promise counts only once the last step gained no more than so many tolerances
MAX_TRIALS = 12  # step lengths tried before a problem counts as as good as it gets


@dataclass(frozen=True)
class Point:
    """A place in every problem: w and gradient [*batch, m], loss [*batch], and what the preconditioner needs there."""

    w: Tensor
    loss: Tensor
    gradient: Tensor
    hint: Tensor  # [*batch, ...]

    def where(self, mask: Tensor, other: "Point") -> "Point":
        """This point where mask [*batch], the other one elsewhere."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(mask.view(*mask.shape, *[1] * (a.ndim - mask.ndim)), a, b)

        return Point(*(pick(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Minimum:
    """Where the search ended: w [*batch, m], loss [*batch], converged bool [*batch], and the number of iterations."""

    w: Tensor
    loss: Tensor
    converged: Tensor
    n_iter: int


def minimize(
    objective: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    start: Tensor,
    precondition: Callable[[Tensor, Tensor], Tensor],
    *,
    tol: float,
    max_iter: int,
    memory: int = 10,
) -> Minimum:
    """Minimise smooth convex functions of w [*batch, m], all together.

    objective(w) gives (loss [*batch], gradient [*batch, m], hint [*batch, ...]); precondition(vectors [*batch, r, m],
    hint) applies a positive definite guess of the inverse Hessian at the place that the hint describes. A problem is
    done when the decrease that its quadratic model still promises (half of gradient · step, the Newton decrement) is at
    most tol, or when its loss no longer falls by more than rounding.
    """
    here = Point(start, *objective(start))
    noise = 4 * torch.finfo(start.dtype).eps
    s = y = start.new_empty(*start.shape[:-1], 0, start.shape[-1])  # [*batch, pairs, m]: steps, gradient changes
    done = torch.zeros_like(here.loss, dtype=torch.bool)
    gain = torch.zeros_like(here.loss)
    for n_iter in range(max_iter + 1):
        direction = _inverse_times(here.gradient, s, y, lambda v, hint=here.hint: precondition(v, hint))
        slope = (here.gradient * direction).sum(-1)
        done = done | ((0.5 * slope <= tol) & (gain <= TRUST * tol))
        if n_iter == max_iter or bool(done.all()):
            return Minimum(here.w, here.loss, done, n_iter)
        step = torch.where(done, 0.0, 1.0).to(start.dtype)
        rounding = noise * here.loss.abs().clamp(min=1)
        tiny = slope <= ROUNDED * rounding  # too little is promised to be seen in the loss: take what comes
        for _ in range(MAX_TRIALS):
            w = torch.where(done[..., None], here.w, here.w - step[..., None] * direction)
            there = Point(w, *objective(w))
            gain = here.loss - there.loss
            refused = ~done & ~(gain >= torch.where(tiny, -rounding, ARMIJO * step * slope))
            if not bool(refused.any()):
                break
            interpolated = 0.5 * step.square() * slope / (step * slope - gain)
            shorter = torch.minimum(torch.maximum(interpolated.nan_to_num(0.0), 0.1 * step), 0.6 * step)
            step = torch.where(refused, shorter, step)
        else:
            there = here.where(refused, there)
            done = done | refused
        done = done | (tiny & (gain <= rounding))
        s, y = _remember(s, y, there.w - here.w, there.gradient - here.gradient, memory)
        here = there
    raise ValueError(f"max_iter must not be negative, got {max_iter}")


def _remember(s: Tensor, y: Tensor, new_s: Tensor, new_y: Tensor, memory: int) -> tuple[Tensor, Tensor]:
    """The pairs with one more; a pair without positive curvature becomes zero and counts for nothing."""
    finfo = torch.finfo(s.dtype)
    curvature = (new_s * new_y).sum(-1, keepdim=True)
    lengths = torch.linalg.vector_norm(new_s, dim=-1) * torch.linalg.vector_norm(new_y, dim=-1)
    useful = (curvature > finfo.tiny) & (curvature > finfo.eps * lengths[..., None])  # not lost in rounding
    pairs = ((s, new_s), (y, new_y))
    s, y = (torch.cat([old, torch.where(useful, new, 0.0)[..., None, :]], -2)[..., -memory:, :] for old, new in pairs)
    return s, y


def _inverse_times(gradient: Tensor, s: Tensor, y: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
    """Inverse Hessian that the pairs imply, times gradient [*batch, m] (Byrd et al. 1994, equation 2.6)."""
    first, hy = precondition(torch.cat([gradient[..., None, :], y], -2)).split([1, s.shape[-2]], -2)
    sy = s @ y.mT
    diagonal = sy.diagonal(dim1=-2, dim2=-1)
    if s.shape[-2]:  # scale the guess to the curvature along the latest step
        scale = (diagonal[..., -1] / (y[..., -1, :] * hy[..., -1, :]).sum(-1)).nan_to_num(1.0, 1.0)[..., None, None]
        scale = torch.where(scale > 0, scale, 1.0)
        first, hy = first * scale, hy * scale
    first = first.mT
    r = torch.triu(sy) + torch.diag_embed((diagonal == 0).to(sy))
    a = torch.linalg.solve_triangular(r, s @ gradient[..., None], upper=True)
    b = (torch.diag_embed(diagonal) + y @ hy.mT) @ a - y @ first
    c = torch.linalg.solve_triangular(r.mT, b, upper=False)
    direction = (first + s.mT @ c - hy.mT @ a)[..., 0]
    usable = torch.isfinite(direction).all(-1, keepdim=True)  # pairs far below 1 may overflow their inverse
    return torch.where(usable, direction, first[..., 0])
