"""Linear probes, fitted in stacks, and those in closed form: ridge, discriminant, mean difference.

They are scikit-learn estimators over arrays and never see a model. A stack of probes is one call: shapes are in
`probes.stack`. Learned attributes are NumPy arrays over the stack's batch shape:

    classes_    [C]              every label seen in the stack, ascending
    coef_       [*batch, C, d]   weights in raw activation coordinates (zero for a class that a probe never saw)
    intercept_  [*batch, C]      (minus infinity for a class that a probe never saw)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from probes.base import Probe, SoftmaxProbe
from probes.stack import Array, Axes, Problem, Stack

BUDGET = {"cpu": 1 << 21, "cuda": 1 << 27}  # numbers of X handed to one solve: about the cache, or a slice of the GPU

FAR = 3  # medians of the distance from the mean


@dataclass(frozen=True)
class Design:
    """One design matrix with what its probes share: rows centred, a column of ones appended, their Gram matrix."""

    x: Tensor  # [s, n, d + 1]: centred activations, then ones
    mean: Tensor  # [s, d]

    @staticmethod
    def of(X: Tensor) -> "Design":
        s, n, d = X.shape
        mean = X.mean(1)
        x = X.new_empty(s, n, d + 1)
        torch.sub(X, mean[:, None], out=x[..., :d])
        x[..., d] = 1
        return Design(x, mean)

    @property
    def d(self) -> int:
        return self.mean.shape[1]

    @cached_property
    def covariance(self) -> Tensor:
        """[s, d, d]: centred second moments."""
        centred = self.x[..., : self.d]
        return centred.mT @ centred / self.x.shape[1]

    @cached_property
    def tame_covariance(self) -> Tensor:
        """[s, d, d]: the covariance with rows further out than `FAR` medians drawn in to there.

        A few huge rows would make up the whole of it, yet lie far from every boundary and say nothing about its
        curvature. Without such rows it is the covariance.
        """
        length = torch.linalg.vector_norm(self.x[..., : self.d], dim=-1)
        limit = FAR * length.median(dim=1, keepdim=True).values
        if not bool((length > limit).any()):
            return self.covariance
        drawn = self.x[..., : self.d] * torch.where(length > limit, limit / length, 1.0)[..., None]
        return drawn.mT @ drawn / self.x.shape[1]

    def class_sums(self, labels: Tensor, c: int) -> Tensor:
        """[s, v, c, d + 1]: row sums of each class of labels [v, n], over n; the last column is its frequency."""
        s, n, _ = self.x.shape
        parts = []
        for some in labels.split(max(1, BUDGET["cuda" if self.x.is_cuda else "cpu"] // (c * n))):
            one_hot = self.x.new_zeros(len(some), c, n).scatter_(1, some[:, None], 1.0)
            parts.append((one_hot.view(-1, n) @ self.x).view(s, len(some), c, -1))
        return torch.cat(parts, 1) / n


class LinearProbe(Probe):
    """What the linear probes share: the stacked fit and the subspace they read. Use a subclass."""

    coef_: np.ndarray
    intercept_: np.ndarray

    def fit(self, X: Array, y: Array) -> Self:
        """Fit every probe of the stack: X [*batch, n, d], y [*batch, n] with -1 where undefined; returns self.

        Raises ValueError where a probe has fewer than two classes or ten labelled rows, where X is not finite, and
        where the shapes do not broadcast; TypeError for labels that are not integers.
        """
        stack = Stack.of(X, y)
        s, v, c = len(stack.x), stack.y.shape[1], len(stack.classes)
        coef = stack.x.new_zeros(s, v, c, stack.x.shape[-1])
        intercept = stack.x.new_full((s, v, c), -torch.inf)
        self._begin(stack)
        budget = BUDGET["cuda" if stack.x.is_cuda else "cpu"]
        for x, problems in stack.designs(budget=budget):
            design = Design.of(x)
            for problem in problems:
                weights, bias = self._solve(design, problem)
                bias = bias - (weights * design.mean[:, None, None]).sum(-1)
                where = problem.sites, problem.variables[:, None], problem.seen
                coef[where], intercept[where] = weights, bias
        self._end(stack)
        self.classes_ = stack.classes.cpu().numpy()
        self.coef_ = stack.axes.join(coef)
        self.intercept_ = stack.axes.join(intercept)
        self.n_features_in_ = int(stack.x.shape[-1])
        return self

    def _begin(self, stack: Stack) -> None:
        """Called before the solves of one fit."""

    def _end(self, stack: Stack) -> None:
        """Called after the solves of one fit."""

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        """Weights [s, v, c, d] and biases [s, v, c] on centred activations."""
        raise NotImplementedError

    def directions(self, rank: int | None = None) -> np.ndarray:
        """Orthonormal rows [*batch, rank, d] that span what the probe reads, strongest first.

        The span of the class weights, centred across the classes that the probe saw: adding one vector to every class's
        weights changes no prediction. It has at most (classes - 1) dimensions, the default rank; of a stack, the least.
        """
        self._check_fitted()
        seen = np.isfinite(self.intercept_)
        count = seen.sum(-1, keepdims=True)
        full = int(min(count.min() - 1, self.coef_.shape[-1]))
        rank = full if rank is None else rank
        if not 1 <= rank <= full:
            raise ValueError(f"rank must lie in 1 … {full} (classes - 1, at most d), got {rank}")
        mean = self.coef_.sum(-2, keepdims=True) / count[..., None]
        centred = (self.coef_ - mean) * seen[..., None]
        return np.linalg.svd(centred, full_matrices=False)[2][..., :rank, :]

    @property
    def subspace_(self) -> np.ndarray:
        """`directions()` at full rank."""
        return self.directions()

    def _batch(self) -> tuple[int, ...]:
        return self.coef_.shape[:-2]

    def _scores(self, x: Tensor, axes: Axes) -> Iterator[Tensor]:
        coef = axes.split(torch.from_numpy(self.coef_).to(x), 2)
        intercept = axes.split(torch.from_numpy(self.intercept_).to(x), 1)
        for i, site in enumerate(x):
            w, b = coef[min(i, len(coef) - 1)], intercept[min(i, len(coef) - 1)]
            z = torch.addmm(b.reshape(-1), site, w.reshape(-1, w.shape[-1]).mT)
            yield z.view(len(site), *b.shape).transpose(0, 1)


class RidgeProbe(LinearProbe):
    """Least squares onto one-hot labels in closed form; all variables at a site share one factorised Gram matrix.

    Minimises |one_hot(y) - X coef - intercept|² + alpha |coef|², as sklearn.linear_model.Ridge does. The fastest screen
    of a sweep. With more than two classes that lie on a line the middle ones can be masked (Hastie et al. 2009,
    section 4.2); DiscriminantProbe is not subject to that.

    Args:
        alpha: strength of the L2 penalty on the summed squares, as in scikit-learn.
    """

    def __init__(self, *, alpha: float = 1.0):
        self.alpha = alpha

    def _begin(self, stack: Stack) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        self._factor: tuple[Design, Tensor] | None = None

    def _end(self, stack: Stack) -> None:
        del self._factor

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        if self._factor is None or self._factor[0] is not design:
            ridge = design.mean.new_full((1, design.d), self.alpha / design.x.shape[1])
            self._factor = design, cholesky(design.covariance, ridge)
        sums = design.class_sums(problem.labels, problem.seen.shape[-1])
        s, v, c, m = sums.shape
        right = sums[..., :-1].reshape(s, v * c, m - 1).mT
        weights = torch.cholesky_solve(right, self._factor[1]).mT.view(s, v, c, m - 1)
        return weights, sums[..., -1]


class DiscriminantProbe(LinearProbe, SoftmaxProbe):
    """Linear discriminant analysis in closed form: Gaussian classes with one covariance (Fisher 1936; Rao 1948).

    Args:
        alpha: ridge added to the within-class covariance, as a share of its mean eigenvalue.
    """

    def __init__(self, *, alpha: float = 1e-4):
        self.alpha = alpha

    def _begin(self, stack: Stack) -> None:
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        sums = design.class_sums(problem.labels, problem.seen.shape[-1])
        level = design.covariance.diagonal(dim1=1, dim2=2).mean(-1)
        w = discriminant(design, sums, ridge=(self.alpha * level)[:, None, None].expand(-1, 1, design.d))
        return w[..., :-1], w[..., -1]


class MeanDifferenceProbe(LinearProbe):
    """Nearest class mean. With two classes the direction is the difference of means and the threshold its midpoint."""

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        sums = design.class_sums(problem.labels, problem.seen.shape[-1])
        means = sums[..., :-1] / sums[..., -1:]
        return means, -0.5 * means.square().sum(-1)


def discriminant(design: Design, sums: Tensor, *, ridge: Tensor) -> Tensor:
    """Discriminant weights [s, v, c, d + 1], bias last, centred across classes.

    sums [s, v, c, d + 1] are the design's class sums; ridge [s, 1, d] is added to the within covariance's diagonal.
    """
    frequency = sums[..., -1:]
    means = sums[..., :-1] / frequency
    within = design.covariance[:, None] - (means * frequency).mT @ means
    weights = torch.cholesky_solve(means.mT, cholesky(within, ridge)).mT
    bias = frequency[..., 0].log() - 0.5 * (weights * means).sum(-1)
    w = torch.cat([weights, bias[..., None]], -1)
    return w - w.mean(2, keepdim=True)


def cholesky(matrix: Tensor, ridge: Tensor) -> Tensor:
    """Cholesky factor of matrix [..., d, d] + diag(ridge [..., d]), with as little jitter as its precision allows."""
    level = matrix.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True).clamp(min=torch.finfo(matrix.dtype).tiny)
    jitter = 4 * torch.finfo(matrix.dtype).eps
    for _ in range(8):
        factor, failed = torch.linalg.cholesky_ex(matrix + torch.diag_embed(ridge + jitter * level))
        if not bool(failed.any()):
            return factor
        jitter *= 10
    raise ValueError("X has no usable covariance: its features overflow the precision; rescale them or pass float64")
