"""Limited-memory BFGS for many small problems at once (Liu & Nocedal 1989; Nocedal & Wright 2006, algorithm 7.4).

Every problem keeps its own step length, curvature pairs and stopping; the evaluations are shared.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ARMIJO = 1e-4  # sufficient decrease
SHRINK = 0.4  # of the step, after a refused trial
MAX_TRIALS = 12  # step lengths tried before a problem counts as as good as it gets


@dataclass(frozen=True)
class Minimum:
    """Where the search ended: w [*batch, m], loss [*batch], converged bool [*batch], and the number of iterations."""

    w: Tensor
    loss: Tensor
    converged: Tensor
    n_iter: int


def minimize(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    precondition: Callable[[Tensor], Tensor],
    *,
    tol: float,
    max_iter: int,
    memory: int = 10,
) -> Minimum:
    """Minimise smooth convex functions of w [*batch, m], all together.

    objective(w) gives (loss [*batch], gradient [*batch, m]); precondition(g) applies a positive definite guess of the
    inverse Hessian. A problem is done when its largest gradient entry is at most tol, or when its loss no longer falls
    by more than rounding.
    """
    w = start
    loss, gradient = objective(w)
    noise = 4 * torch.finfo(w.dtype).eps
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # (step s, gradient change y, 1/sᵀy or 0 where not positive)
    scale = torch.ones_like(loss)
    done = gradient.abs().amax(-1) <= tol
    n_iter = 0
    while n_iter < max_iter and not bool(done.all()):
        n_iter += 1
        direction = _two_loop(gradient, pairs, precondition, scale)
        slope = (gradient * direction).sum(-1)
        step = torch.where(done, 0.0, 1.0).to(w.dtype)
        for _ in range(MAX_TRIALS):
            trial = w - step[..., None] * direction
            trial_loss, trial_gradient = objective(trial)
            refused = ~done & ~(trial_loss <= loss - ARMIJO * step * slope + noise * loss.abs().clamp(min=1))
            if not bool(refused.any()):
                break
            step = torch.where(refused, step * SHRINK, step)
        else:  # these problems stay where they are
            keep = refused[..., None]
            trial, trial_gradient = torch.where(keep, w, trial), torch.where(keep, gradient, trial_gradient)
            trial_loss = torch.where(refused, loss, trial_loss)
        stalled = loss - trial_loss <= noise * loss.abs().clamp(min=1)
        pairs, scale = _remember(pairs, trial - w, trial_gradient - gradient, precondition, scale, memory)
        w, loss, gradient = trial, trial_loss, trial_gradient
        done = done | stalled | (gradient.abs().amax(-1) <= tol)
    return Minimum(w, loss, done, n_iter)


def _two_loop(
    gradient: Tensor,
    pairs: list[tuple[Tensor, Tensor, Tensor]],
    precondition: Callable[[Tensor], Tensor],
    scale: Tensor,
) -> Tensor:
    """The product of the current inverse-Hessian guess with the gradient."""
    q = gradient.clone()
    alphas: list[Tensor] = []
    for s, y, rho in reversed(pairs):
        alpha = rho * (s * q).sum(-1)
        q -= alpha[..., None] * y
        alphas.append(alpha)
    r = precondition(q) * scale[..., None]
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        r += (alpha - rho * (y * r).sum(-1))[..., None] * s
    return r


def _remember(
    pairs: list[tuple[Tensor, Tensor, Tensor]],
    s: Tensor,
    y: Tensor,
    precondition: Callable[[Tensor], Tensor],
    scale: Tensor,
    memory: int,
) -> tuple[list[tuple[Tensor, Tensor, Tensor]], Tensor]:
    sy = (s * y).sum(-1)
    useful = sy > torch.finfo(s.dtype).tiny
    rho = torch.where(useful, 1 / sy, 0.0)
    fresh = sy / (y * precondition(y)).sum(-1)
    scale = torch.where(useful & torch.isfinite(fresh) & (fresh > 0), fresh, scale)
    return [*pairs, (s, y, rho)][-memory:], scale
