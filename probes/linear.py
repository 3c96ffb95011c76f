"""Linear probes, fitted in stacks: logistic, ridge, discriminant and mean difference.

All four are scikit-learn estimators over arrays and never see a model. A stack of probes is one call: shapes are in
`probes.stack`. Learned attributes are NumPy arrays over the stack's batch shape:

    classes_    [C]              every label seen in the stack, ascending
    coef_       [*batch, C, d]   weights in raw activation coordinates (zero for a class that a probe never saw)
    intercept_  [*batch, C]      (minus infinity for a class that a probe never saw)

The logistic objective is scikit-learn's: sum of cross-entropies + |coef|² / 2C with a free intercept. With two classes
scikit-learn fits one weight vector, which here is coef_[1] - coef_[0].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from probes.base import Probe, SoftmaxProbe
from probes.lbfgs import minimize
from probes.stack import Array, Axes, Problem, Stack

SAMPLE = 8  # every so many rows suffice to scale the start
SHRINK = 1e-3  # share of the variances added to the within covariance of the start: it may be singular
SPREAD = 0.5  # share of the variances added to the covariance: the rows near a boundary are spread more evenly than all
BUDGET = {"cpu": 1 << 21, "cuda": 1 << 27}  # numbers of X handed to one solve: about the cache, or a slice of the GPU


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

    def class_sums(self, labels: Tensor, c: int) -> Tensor:
        """[s, v, c, d + 1]: row sums of each class of labels [v, n], over n; the last column is its frequency."""
        s, n, _ = self.x.shape
        v = len(labels)
        one_hot = self.x.new_zeros(v, c, n).scatter_(1, labels[:, None], 1.0)
        sums = one_hot.view(v * c, n) @ self.x
        return sums.view(s, v, c, -1) / n


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


class LogisticProbe(LinearProbe, SoftmaxProbe):
    """Multinomial logistic regression, a whole stack in one solve.

    L-BFGS, started at the calibrated discriminant solution and preconditioned by the covariance that all variables of a
    site share and by each class's mean p (1 - p), so that neither correlated activations nor classes that are nearly
    separable slow it down. The objective is that of
    sklearn.linear_model.LogisticRegression; the stopping rule does not depend on the scale of X. The fit runs in X's
    precision, on X's device.

    Args:
        C: inverse strength of the L2 penalty on the summed loss, as in scikit-learn.
        standardize: penalise as if each feature had unit variance (coef_ stays in raw coordinates).
        tol: estimated distance of the mean loss from its minimum, in nats a row, at which a probe counts as converged.
        max_iter: iterations at most.

    Learned besides coef_, intercept_, classes_: n_iter_ (the most of any probe), converged_ bool [*batch].
    """

    def __init__(self, *, C: float = 1.0, standardize: bool = False, tol: float = 3e-5, max_iter: int = 200):
        self.C = C
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter

    def _begin(self, stack: Stack) -> None:
        if self.C <= 0:
            raise ValueError(f"C must be positive, got {self.C}")
        self.n_iter_ = 0
        self._converged = torch.ones(len(stack.x), stack.y.shape[1], dtype=torch.bool, device=stack.x.device)

    def _end(self, stack: Stack) -> None:
        self.converged_ = stack.axes.join(self._converged)
        del self._converged

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        s, n, _ = design.x.shape
        c = problem.seen.shape[-1]
        step = max(1, BUDGET["cuda" if design.x.is_cuda else "cpu"] // (s * c * n))
        parts: list[Tensor] = []
        for i in range(0, len(problem.labels), step):
            w, converged, n_iter = self._descend(design, problem.labels[i : i + step], c)
            parts.append(w)
            self._converged[problem.sites, problem.variables[i : i + step]] = converged
            self.n_iter_ = max(self.n_iter_, n_iter)
        w = torch.cat(parts, 1)
        return w[..., :-1], w[..., -1]

    def _descend(self, design: Design, labels: Tensor, c: int) -> tuple[Tensor, Tensor, int]:
        x = design.x
        (s, n, m), v = x.shape, len(labels)
        sums = design.class_sums(labels, c)
        variance = design.covariance.diagonal(dim1=1, dim2=2)
        # With two classes scikit-learn penalises one vector, w1 - w0: at the optimum its square is twice theirs.
        strength = (2 if c == 2 else 1) / (self.C * n)
        penalty = x.new_full((s, 1, 1, m), strength)
        if self.standardize:
            penalty[..., :-1] *= variance[:, None, None]
        penalty[..., -1] = 0

        scores = x.new_empty(s, v * c, n)  # one buffer for all evaluations
        at = labels[None, :, None].expand(s, -1, -1, -1)

        def objective(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            w = w.view(s, v, c, m)
            z = torch.bmm(w.view(s, v * c, m), x.mT, out=scores).view(s, v, c, n)
            right = z.gather(2, at)[:, :, 0]
            p, log_partition = softmax_(z)
            expected = (p.view(s, v * c, n) @ x).view(s, v, c, m) / n
            loss = (log_partition - right).mean(-1) + 0.5 * (penalty * w * w).sum((2, 3))
            slack = expected[..., -1] - torch.linalg.vector_norm(p, dim=-1).square() / n  # mean p (1 - p)
            slack = (0.5 * (slack + slack.mean(-1, keepdim=True))).clamp(min=torch.finfo(x.dtype).eps)
            return loss, (expected - sums + penalty * w).view(s, v, c * m), slack

        # Guess of the Hessian, a block a class: slack · covariance + penalty, diagonal in one basis for all of a site.
        unit = penalty[:, 0, 0, :-1].sqrt() / strength**0.5
        unit = torch.where(unit > 0, unit, 1.0)
        spread = design.covariance + SPREAD * torch.diag_embed(variance)
        values, vectors = torch.linalg.eigh(spread / (unit[:, :, None] * unit[:, None]))
        basis = (vectors / unit[:, :, None])[:, None]

        def precondition(g: Tensor, slack: Tensor) -> Tensor:
            g = g.view(s, v, -1, m)  # [s, v, r · c, m]
            slack = slack.repeat(1, 1, g.shape[2] // c)[..., None]
            inner = g[..., :-1] @ basis / (slack * values.clamp(min=0)[:, None, None] + strength) @ basis.mT
            return torch.cat([inner, g[..., -1:] / (slack + strength)], -1).view(s, v, -1, c * m)

        start = discriminant(design, sums, ridge=c * penalty[:, :, 0, :-1] + SHRINK * variance[:, None])
        start = calibrate(start, x[:, ::SAMPLE], labels[:, ::SAMPLE], penalty).view(s, v, c * m)
        found = minimize(objective, start, precondition, tol=self.tol, max_iter=self.max_iter)
        return found.w.view(s, v, c, m), found.converged, found.n_iter


def softmax_(z: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of z [s, v, c, n] over classes, in place, and its log partition function [s, v, n]."""
    top = z.amax(2, keepdim=True)
    p = z.sub_(top).exp_()
    total = p.sum(2, keepdim=True)
    return p.div_(total), (total.log() + top)[:, :, 0]


def calibrate(w: Tensor, x: Tensor, labels: Tensor, penalty: Tensor) -> Tensor:
    """w [s, v, c, d + 1] times the factor, of a few, with the least penalised cross-entropy on rows x [s, n, d + 1].

    Gaussian discriminants of well separated classes are far too sure of themselves.
    """
    (s, v, c, m), n = w.shape, x.shape[1]
    z = (w.view(s, v * c, m) @ x.mT).view(s, v, c, n)
    right = z.gather(2, labels[None, :, None].expand(s, -1, -1, -1))[:, :, 0]
    factors = w.new_tensor([1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.1, 0.03, 0.0])
    size = 0.5 * (penalty * w * w).sum((2, 3))
    losses = torch.stack([(softmax_(z * f)[1] - right * f).mean(-1) + f * f * size for f in factors])
    return w * factors[losses.argmin(0)][..., None, None]


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
