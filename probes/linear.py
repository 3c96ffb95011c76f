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
from numpy.typing import ArrayLike
from torch import Tensor

from probes.activations import Array
from probes.base import Probe, SoftmaxProbe
from probes.parameters import check_real
from probes.row_weights import ClassWeight
from probes.stack import Axes, Problem, Stack

BUDGET = {"cpu": 1 << 21, "cuda": 1 << 27}  # numbers of X handed to one solve: about the cache, or a slice of the GPU


@dataclass(frozen=True)
class Design:
    """One design matrix with what its probes share: rows centred, a column of ones appended, their Gram matrix.

    Means, sums and moments weigh the rows; an integer weight is that many copies of the row.
    """

    x: Tensor  # [s, n, d + 1]: centred activations, then ones
    mean: Tensor  # [s, d]
    weights: Tensor | None  # [n], sum 1; None: all alike
    total: float  # sum of the weights before they were made to sum to 1, n if all are alike

    @staticmethod
    def of(X: Tensor, weights: Tensor | None = None) -> "Design":
        s, n, d = X.shape
        total = float(n if weights is None else weights.sum())
        shares = None if weights is None else (weights / total).to(X)
        mean = X.mean(1) if shares is None else shares @ X
        x = X.new_empty(s, n, d + 1)
        torch.sub(X, mean[:, None], out=x[..., :d])
        x[..., d] = 1
        return Design(x, mean, shares, total)

    @property
    def d(self) -> int:
        return self.mean.shape[1]

    @cached_property
    def covariance(self) -> Tensor:
        """[s, d, d]: centred second moments."""
        centred = self.x[..., : self.d]
        if self.weights is None:
            return centred.mT @ centred / self.x.shape[1]
        return (centred * self.weights[:, None]).mT @ centred

    def class_sums(self, labels: Tensor, c: int) -> Tensor:
        """[s, v, c, d + 1]: weighted row sums of each class of labels [v, n]; the last column is its share."""
        s, n, _ = self.x.shape
        weights = self.x.new_ones(n) if self.weights is None else self.weights
        parts = []
        for some in labels.split(max(1, BUDGET["cuda" if self.x.is_cuda else "cpu"] // (c * n))):
            one_hot = self.x.new_zeros(len(some), c, n).scatter_(1, some[:, None], weights.expand(len(some), 1, n))
            parts.append((one_hot.view(-1, n) @ self.x).view(s, len(some), c, -1))
        sums = torch.cat(parts, 1)
        return sums / n if self.weights is None else sums


class LinearProbe(Probe):
    """What the linear probes share: the stacked fit and the subspace they read. Use a subclass."""

    coef_: np.ndarray
    intercept_: np.ndarray
    class_weight: ClassWeight = None

    @torch.no_grad()
    def fit(self, X: Array, y: Array, sample_weight: ArrayLike | None = None) -> Self:
        """Fit every probe of the stack: X [*batch, n, d], y [*batch, n] with -1 where undefined; returns self.

        sample_weight [n] or [*batch, n] weighs rows: a weight of 2 is the row twice, of 0 the row left out.

        Raises ValueError where a parameter lies outside its interval, a probe has fewer than two classes or ten
        labelled rows, X is not finite or overflows, and where the shapes do not broadcast.
        """
        self._check_parameters()
        stack = Stack.of(X, y, sample_weight, self.class_weight)
        s, v, c = len(stack.x), stack.y.shape[1], len(stack.labels)
        coef = stack.x.new_zeros(s, v, c, stack.x.shape[-1])
        intercept = stack.x.new_full((s, v, c), -torch.inf)
        self._begin(stack)
        budget = BUDGET["cuda" if stack.x.is_cuda else "cpu"]
        for x, weights, problems in stack.designs(budget=budget):
            design = Design.of(x, weights)
            for problem in problems:
                slopes, bias = self._solve(design, problem)
                slopes = slopes.to(coef)  # rounded first, so that the bias goes with what is kept
                bias = bias.double() - (slopes.double() * design.mean[:, None, None].double()).sum(-1)
                where = problem.sites, problem.variables[:, None], problem.seen
                coef[where], intercept[where] = slopes, bias.to(coef)
        self._end(stack)
        self.classes_ = stack.labels
        self.coef_ = stack.axes.join(coef)
        self.intercept_ = stack.axes.join(intercept)
        self.n_features_in_ = int(stack.x.shape[-1])
        return self

    def _check_parameters(self) -> None:
        """Raise ValueError for a parameter outside its interval."""

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
        class_weight: factors of rows by class, None, "balanced" or a dict, as in scikit-learn's RidgeClassifier.
    """

    def __init__(self, *, alpha: float = 1.0, class_weight: ClassWeight = None):
        self.alpha = alpha
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        check_real("alpha", self.alpha, least=0)

    def _begin(self, stack: Stack) -> None:
        self._factor: tuple[Design, Tensor] | None = None

    def _end(self, stack: Stack) -> None:
        del self._factor

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        if self._factor is None or self._factor[0] is not design:
            ridge = design.mean.new_full((1, design.d), min(self.alpha / design.total, most(design.mean)))
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
        class_weight: factors of rows by class, None, "balanced" or a dict: they change the classes' shares and what
            each adds to the covariance.
    """

    def __init__(self, *, alpha: float = 1e-4, class_weight: ClassWeight = None):
        self.alpha = alpha
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        check_real("alpha", self.alpha, least=0)

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        sums = design.class_sums(problem.labels, problem.seen.shape[-1])
        level = design.covariance.diagonal(dim1=1, dim2=2).mean(-1)
        ridge = (self.alpha * level).clamp(max=most(level))
        w = discriminant(design, sums, ridge=ridge[:, None, None].expand(-1, 1, design.d))
        return w[..., :-1], w[..., -1]


class MeanDifferenceProbe(LinearProbe):
    """Nearest class mean. With two classes the direction is the difference of means and the threshold its midpoint.

    Args:
        class_weight: None. A class's mean is the same however much the class weighs, so anything else is refused.
    """

    def __init__(self, *, class_weight: None = None):
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        if self.class_weight is not None:
            raise ValueError("class_weight must be None: weighing a class does not move its mean, got a weight")

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
    weights = torch.cholesky_solve(means.mT, cholesky(within, ridge, scale=design.covariance[:, None])).mT
    bias = frequency[..., 0].log() - 0.5 * (weights * means).sum(-1)
    w = torch.cat([weights, bias[..., None]], -1)
    return w - w.mean(2, keepdim=True)


def most(like: Tensor) -> float:
    """The largest number that can still be added to a variance in this precision: a ridge beyond it is as good."""
    return torch.finfo(like.dtype).max / 4


def cholesky(matrix: Tensor, ridge: Tensor, scale: Tensor | None = None) -> Tensor:
    """Cholesky factor of matrix [..., d, d] + diag(ridge [..., d]), with as little jitter as its precision allows.

    Jitter is relative to each feature's own variance, from scale [..., d, d] (by default the matrix): features of very
    different sizes do not drown one another.
    """
    own = (matrix if scale is None else scale).diagonal(dim1=-2, dim2=-1).clamp(min=0) + ridge
    unit = torch.where(own > 0, own, 1.0).sqrt()
    scaled = (matrix + torch.diag_embed(ridge.expand(matrix.shape[:-1]))) / unit[..., :, None] / unit[..., None, :]
    jitter = 4 * torch.finfo(matrix.dtype).eps
    for _ in range(8):
        factor, failed = torch.linalg.cholesky_ex(scaled + jitter * torch.eye(matrix.shape[-1]).to(matrix))
        if not bool(failed.any()):
            return unit[..., :, None] * factor
        jitter *= 10
    raise ValueError("X has no usable covariance: its features overflow the precision; rescale them or pass float64")
