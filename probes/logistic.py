"""Multinomial logistic probes, fitted in stacks.

The objective is that of sklearn.linear_model.LogisticRegression: sum of cross-entropies + |coef|² / 2C, intercept free,
in the caller's units. With two classes scikit-learn fits one weight vector, which here is coef_[1] - coef_[0].
"""

import torch
from torch import Tensor

from probes.base import SoftmaxProbe
from probes.linear import BUDGET, Design, LinearProbe
from probes.newton import minimize
from probes.parameters import check_flag, check_real, check_whole
from probes.row_weights import ClassWeight
from probes.softmax_loss import BLOCK_SAMPLE, SoftmaxLoss
from probes.stack import Problem, Stack

ROUGH_STEPS = 30  # at most, before float64


class LogisticProbe(LinearProbe, SoftmaxProbe):
    """Multinomial logistic regression, a whole stack in one solve.

    Newton's method. Features are scaled inside, each by its deviation and its share of the penalty; coefficients and
    penalty keep the caller's units, so the scaling changes how fast the minimum is found and not where it lies. Steps
    are first taken in float32; the last ones, and the distance from the minimum, are float64.

    Args:
        C: inverse strength of the L2 penalty on the summed loss, as in scikit-learn.
        standardize: penalise as if each feature had unit variance (coef_ stays in raw coordinates).
        tol: distance of the mean loss from its minimum, in nats a row, at which a probe counts as converged.
        max_iter: Newton steps at most.
        class_weight: factors of rows by class, None, "balanced" or a dict, as in scikit-learn.

    Learned besides coef_, intercept_, classes_: n_iter_ (the most of any probe), gap_ [*batch], an upper bound of the
    mean loss's distance from its minimum in nats a row (the duality gap, in float64, before coef_ is rounded to X's
    precision), and converged_ bool [*batch]: gap_ <= tol.
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        standardize: bool = False,
        tol: float = 3e-5,
        max_iter: int = 200,
        class_weight: ClassWeight = None,
    ):
        self.C = C
        self.standardize = standardize
        self.tol = tol
        self.max_iter = max_iter
        self.class_weight = class_weight

    def _check_parameters(self) -> None:
        check_real("C", self.C, above=0)
        check_real("tol", self.tol, least=0)
        check_whole("max_iter", self.max_iter, least=1)
        check_flag("standardize", self.standardize)

    def _begin(self, stack: Stack) -> None:
        self.n_iter_ = 0
        shape = len(stack.x), stack.y.shape[1]
        self._gap = torch.full(shape, torch.inf, dtype=torch.float64, device=stack.x.device)

    def _end(self, stack: Stack) -> None:
        gap = stack.axes.join(self._gap)
        self.gap_, self.converged_ = gap, gap <= self.tol
        del self._gap

    def _solve(self, design: Design, problem: Problem) -> tuple[Tensor, Tensor]:
        s, n, m = design.x.shape
        c = problem.seen.shape[-1]
        numbers = s * c * max(n, m * m, min(n, BLOCK_SAMPLE * m) * m // c)  # that one variable needs
        step = max(1, BUDGET["cuda" if design.x.is_cuda else "cpu"] // numbers)
        parts: list[Tensor] = []
        for i in range(0, len(problem.labels), step):
            w, gap, n_iter = self._descend(design, problem.labels[i : i + step], c)
            parts.append(w)
            self._gap[problem.sites, problem.variables[i : i + step]] = gap
            self.n_iter_ = max(self.n_iter_, n_iter)
        w = torch.cat(parts, 1)
        return w[..., :-1], w[..., -1]

    def _descend(self, design: Design, labels: Tensor, c: int) -> tuple[Tensor, Tensor, int]:
        """(w [s, v, c, d + 1] on centred activations, gap [s, v], Newton steps)."""
        (s, n, m), v = design.x.shape, len(labels)
        x = design.x.to(torch.float64, copy=True)
        weights = x.new_full((n,), 1 / n) if design.weights is None else design.weights.double()
        weights = weights / weights.sum()
        variance = weights @ x[..., :-1].square()
        # With two classes scikit-learn penalises one vector, w1 - w0: at the optimum its square is twice theirs.
        strength = (2 if c == 2 else 1) / (self.C * design.total)
        penalty = strength * (variance if self.standardize else torch.ones_like(variance))
        # Scaled so, curvature at most about 1 and a penalty at most 1 add up to about 1 for every feature.
        size = (variance + penalty).sqrt()
        size = torch.where(size > 0, size, 1.0)
        penalty = torch.where(penalty > 0, penalty / size.square(), 1.0)  # a feature that never varies is left at 0
        x[..., :-1] /= size[:, None]
        penalty = torch.cat([penalty, penalty.new_zeros(s, 1)], -1)

        # Start without features: every class has its share.
        shares = x.new_zeros(v, c).scatter_add_(1, labels, weights.expand(v, n))
        start = x.new_zeros(s, v, c, m)
        start[..., -1] = shares.log() - shares.log().mean(-1, keepdim=True)

        fast = x.float()
        rough = SoftmaxLoss(fast, fast, labels, weights.float(), penalty.float())
        found = minimize(
            rough,
            start.float(),
            tol=self.tol,
            max_iter=min(self.max_iter, ROUGH_STEPS),
            guess=rough.first_guess(shares),
        )
        exact = SoftmaxLoss(x, fast, labels, weights, penalty)
        last = minimize(exact, found.w.double(), tol=self.tol, max_iter=self.max_iter - found.n_iter)
        w = last.w
        w[..., :-1] /= size[:, None, None]
        return w, last.gap, found.n_iter + last.n_iter
