"""The loss of multinomial logistic probes, for all the sites and variables that share rows, with its curvature.

    loss(w) = Σᵢ rᵢ (log Σₖ exp zᵢₖ - zᵢ,yᵢ) + ½ Σₖ penalty · wₖ²,    zᵢ = W xᵢ

xᵢ ends in a one, whose weight is the intercept; the row weights r sum to one, so the loss is in nats a row. With
p = softmax(z) the Hessian's blocks are Hₖₗ = Σᵢ rᵢ pᵢₖ (δₖₗ - pᵢₗ) xᵢ xᵢᵀ + δₖₗ penalty.

How far w can be from the minimum is bounded by the duality gap (Yu, Huang & Lin 2011). For any class probabilities q
whose mean over rows is each class's share, as the free intercept asks,

    loss(w) - minimum ≤ Σᵢ rᵢ KL(qᵢ ‖ pᵢ) + ½ Σₖ |Σᵢ rᵢ (qᵢₖ - [yᵢ = k]) xᵢ + penalty wₖ|² / penalty

and q = p moved as little as that takes makes it small near the minimum.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from probes.newton import Curvature, Point

SAMPLE = 64  # rows a feature that stand for all of them in the Hessian
BLOCK_SAMPLE = 16  # rows a feature that stand for all of them in the preconditioner
EVEN = 0.01  # share of a sample that is spread over all rows, however sure the probe is of them
JITTER = 1e-6  # share of a problem's largest curvature added to each block: those of rare classes are nearly singular


@dataclass(frozen=True)
class SoftmaxLoss:
    """The losses of w [s, v, c, m], m = d + 1; x in their precision, `fast` in that of the directions."""

    x: Tensor  # [s, n, m]: features of about unit size, then ones
    fast: Tensor  # the same, float32
    labels: Tensor  # int64 [v, n] in 0 … c - 1
    weights: Tensor  # [n], sum 1
    penalty: Tensor  # [s, m], 0 for the intercept

    def at(self, w: Tensor) -> Point:
        """Loss, gradient and class probabilities (memo, [s, v, c, n])."""
        (s, n, m), (v, c) = self.x.shape, w.shape[1:3]
        z = (w.reshape(s, v * c, m) @ self.x.mT).view(s, v, c, n)
        at = self.labels[None, :, None].expand(s, -1, -1, -1)
        right = z.gather(2, at)[:, :, 0]
        p, log_partition = softmax_(z)
        penalty = self.penalty[:, None, None]
        loss = (log_partition - right) @ self.weights + 0.5 * (penalty * w * w).sum((2, 3))
        error = p * self.weights
        error.scatter_add_(2, at, -self.weights.expand(s, v, 1, n))
        gradient = (error.view(s, v * c, n) @ self.x).view(s, v, c, m)
        return Point(w, loss, gradient + penalty * w, p)

    def gap(self, point: Point) -> Tensor:
        """Upper bound [s, v] of the loss's distance from its minimum, in nats a row; in float32 an estimate of it."""
        g, p = point.gradient, point.memo
        if self.x.dtype == torch.float64:
            q = self._feasible(p)
            moved = ((q - p) * self.weights).flatten(1, 2) @ self.x
            g = g + moved.view(g.shape)
            divergence = (torch.xlogy(q, q) - q * self._log_probabilities(point)).sum(2) @ self.weights
        else:
            divergence = (g[..., -1].square() / (p @ self.weights).clamp(min=torch.finfo(p.dtype).tiny)).sum(-1)
        bound = divergence.clamp(min=0) + 0.5 * (g[..., :-1].square() / self.penalty[:, None, None, :-1]).sum((2, 3))
        return torch.where(torch.isfinite(bound), bound, torch.inf)

    def _log_probabilities(self, point: Point) -> Tensor:
        if bool((point.memo > 0).all()):
            return point.memo.log()
        return (point.w.flatten(1, 2) @ self.x.mT).view(point.memo.shape).log_softmax(2)

    def _feasible(self, p: Tensor) -> Tensor:
        """Class probabilities near p [s, v, c, n] whose mean over rows is each class's share.

        Classes that are too likely are scaled down in every row; what a row has left goes to the classes that are not
        likely enough, as much as each lacks.
        """
        n = p.shape[-1]
        shares = p.new_zeros(p.shape[1:3]).scatter_add_(1, self.labels, self.weights.expand(p.shape[1], n))
        mean = p @ self.weights  # [s, v, c]
        lacking = (shares - mean).clamp(min=0)
        kept = p * torch.where(mean > shares, shares / mean, 1.0)[..., None]
        left = (1 - kept.sum(2, keepdim=True)).clamp(min=0)
        return kept + left * (lacking / lacking.sum(-1, keepdim=True).clamp(min=1e-300))[..., None]

    def curvature(self, point: Point, guess: Tensor | None) -> Curvature:
        """Products with the Hessian, and the inverses [s, v, c, m, m] of its diagonal blocks as a preconditioner.

        Where there are many rows a sample stands for them, drawn anew at every point.
        """
        (s, _, m), (v, c) = self.x.shape, point.w.shape[1:3]
        penalty = self.penalty[:, None, None].to(self.fast)
        if guess is None:
            guess = self._inverse_blocks(*self._rows(point.memo, BLOCK_SAMPLE), penalty)
        x, p, weights = self._rows(point.memo, SAMPLE)
        shared = len(x) == s  # one product for all the variables of a site
        x, lead = (x, (s, v * c)) if shared else (x, (s * v, c))
        weighted = p * weights

        def times(u: Tensor) -> Tensor:
            t = (u.reshape(*lead, m) @ x.mT).view(p.shape)
            t.sub_((t * p).sum(2, keepdim=True)).mul_(weighted)
            return (t.view(*lead, -1) @ x).view(s, v, c, m) + penalty * u

        def precondition(r: Tensor) -> Tensor:
            u = (guess @ r[..., None])[..., 0]
            return u - u.mean(2, keepdim=True)  # gradients sum to zero over the classes, and so must steps

        return Curvature(times, precondition, guess)

    def first_guess(self, shares: Tensor) -> Tensor:
        """The preconditioner [s, v, c, m, m] where every row has the class probabilities `shares` [v, c]."""
        second = (self.fast * self.weights[:, None].to(self.fast)).mT @ self.fast
        unsure = (shares * (1 - shares)).to(self.fast)[None, :, :, None, None]
        return _inverse(unsure * second[:, None, None], self.penalty[:, None, None].to(self.fast))

    def only(self, sites: Tensor, variables: Tensor) -> Self:
        """Those sites and variables; x is copied only where sites are left out."""
        some = len(sites) < len(self.x)
        x, fast, penalty = (t[sites] if some else t for t in (self.x, self.fast, self.penalty))
        return type(self)(x, fast, self.labels[variables], self.weights, penalty)

    def _rows(self, p: Tensor, per_feature: int) -> tuple[Tensor, Tensor, Tensor]:
        """The rows that carry the curvature: x [s, n, m], p [s, v, c, n] and weights [n].

        Where there are more than `per_feature` a feature, a sample of k for each problem: x [s · v, k, m],
        p [s, v, c, k], weights [s, v, 1, k]. It is systematic: a row's chance is its share of the curvature, its weight
        the inverse.
        """
        (s, n, _), k = self.x.shape, per_feature * self.x.shape[-1]
        if n <= k:
            return self.fast, p.to(self.fast), self.weights.to(self.fast)
        size = (1 - p.square().sum(2)) * self.weights  # [s, v, n]: Σₖ pₖ (1 - pₖ)
        size = size.clamp(min=0).double() + EVEN * size.mean(-1, keepdim=True).clamp(min=1e-30)
        total = size.cumsum(-1)
        marks = (torch.arange(k, device=p.device) + 0.5) / k * total[..., -1:]
        rows = torch.searchsorted(total, marks).clamp(max=n - 1)  # [s, v, k]
        weights = self.weights[rows] * total[..., -1:] / (k * size.gather(-1, rows))
        x = self.fast[torch.arange(s, device=p.device)[:, None, None], rows].flatten(0, 1)
        p = p.gather(3, rows[:, :, None].expand(-1, -1, p.shape[2], -1))
        return x, p.to(x), weights[:, :, None].to(x)

    def _inverse_blocks(self, x: Tensor, p: Tensor, weights: Tensor, penalty: Tensor) -> Tensor:
        s, v, c, _ = p.shape
        x = x if len(x) == s * v else x[:, None].expand(-1, v, -1, -1).flatten(0, 1)
        unsure = (p * (1 - p) * weights).flatten(0, 1)
        blocks = torch.stack([(x * unsure[:, i, :, None]).mT @ x for i in range(c)], 1)
        return _inverse(blocks.unflatten(0, (s, v)), penalty)


def _inverse(blocks: Tensor, penalty: Tensor) -> Tensor:
    """Inverses of blocks [s, v, c, m, m] + penalty [s, 1, 1, m]; of their diagonals where rounding spoils them."""
    diagonal = blocks.diagonal(dim1=-2, dim2=-1) + penalty
    diagonal = diagonal + JITTER * diagonal.amax((2, 3), keepdim=True)
    blocks = blocks.clone()
    blocks.diagonal(dim1=-2, dim2=-1).copy_(diagonal)
    factor, failed = torch.linalg.cholesky_ex(blocks)
    inverse = torch.cholesky_inverse(factor)
    usable = (failed == 0) & torch.isfinite(inverse).all(-1).all(-1)
    if bool(usable.all()):
        return inverse
    return torch.where(usable[..., None, None], inverse, torch.diag_embed(1 / diagonal))


def softmax_(z: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of z [s, v, c, n] over classes, in place, and its log partition function [s, v, n]."""
    top = z.amax(2, keepdim=True)
    p = z.sub_(top).exp_()
    total = p.sum(2, keepdim=True)
    return p.div_(total), (total.log() + top)[:, :, 0]
