"""Multinomial logistic probes, fitted in stacks.

The objective is that of sklearn.linear_model.LogisticRegression: sum of cross-entropies + |coef|² / 2C, intercept free.
With two classes scikit-learn fits one weight vector, which here is coef_[1] - coef_[0].
"""

import torch
from torch import Tensor

from probes.base import SoftmaxProbe
from probes.lbfgs import minimize
from probes.linear import BUDGET, Design, LinearProbe, discriminant
from probes.stack import Problem, Stack

SAMPLE = 8  # every so many rows suffice to scale the start
SHRINK = 1e-3  # share of the variances added to the within covariance of the start: it may be singular
SPREAD = 0.5  # share of the variances added to the covariance: the rows near a boundary are spread more evenly than all


class LogisticProbe(LinearProbe, SoftmaxProbe):
    """Multinomial logistic regression, a whole stack in one solve.

    L-BFGS, started at the calibrated discriminant solution and preconditioned by the covariance that all variables of a
    site share and by each class's mean p (1 - p), so that neither correlated activations nor classes that are nearly
    separable slow it down. The stopping rule does not depend on the scale of X; the fit runs in X's precision, on X's
    device.

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
        tame = design.tame_covariance
        spread = tame + SPREAD * torch.diag_embed(tame.diagonal(dim1=1, dim2=2))
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
