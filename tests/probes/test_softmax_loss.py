"""Loss, derivatives and the bound of what is missing, against autograd and known minima."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

import probes.softmax_loss
from probes.newton import minimize
from probes.softmax_loss import SoftmaxLoss

torch.set_num_threads(1)
S, V, C, N, M = 2, 3, 4, 60, 6


def problem(*, weighted: bool) -> tuple[SoftmaxLoss, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(S, N, M, dtype=torch.float64, generator=generator)
    x[..., -1] = 1
    labels = torch.randint(0, C, (V, N), generator=generator)
    weights = torch.rand(N, dtype=torch.float64, generator=generator) if weighted else torch.ones(N).double()
    penalty = 0.01 * torch.rand(S, M, dtype=torch.float64, generator=generator) + 1e-3
    penalty[:, -1] = 0
    w = torch.randn(S, V, C, M, dtype=torch.float64, generator=generator)
    return SoftmaxLoss(x, x, labels, weights / weights.sum(), penalty), w - w.mean(2, keepdim=True)


def plain_loss(loss: SoftmaxLoss, w: torch.Tensor) -> torch.Tensor:
    z = torch.einsum("svcm,snm->svnc", w, loss.x)
    picked = z.log_softmax(-1).gather(-1, loss.labels[None, :, :, None].expand(S, -1, -1, -1))[..., 0]
    return -(picked * loss.weights).sum(-1) + 0.5 * (loss.penalty[:, None, None] * w * w).sum((2, 3))


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_gradient_and_hessian_equal_autograd(weighted):
    loss, w = problem(weighted=weighted)
    point = loss.at(w)
    torch.testing.assert_close(point.loss, plain_loss(loss, w))
    total = lambda w: plain_loss(loss, w).sum()  # noqa: E731
    torch.testing.assert_close(point.gradient, torch.func.grad(total)(w))
    u = torch.randn_like(w)
    product = torch.func.jvp(torch.func.grad(total), (w,), (u,))[1]
    torch.testing.assert_close(loss.curvature(point, None).times(u), product)


def test_preconditioner_inverts_the_diagonal_blocks():
    loss, w = problem(weighted=True)
    curvature = loss.curvature(loss.at(w), None)
    hessian = torch.func.hessian(
        lambda b: plain_loss(loss, torch.cat([b[None], w[0, 0, 1:]])[None, None].expand(S, V, C, M))[0, 0]
    )
    block = hessian(w[0, 0, 0])
    torch.testing.assert_close(curvature.guess[0, 0, 0] @ block, torch.eye(M).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_sample_of_rows_stands_for_all_of_them(weighted, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    loss, w = problem(weighted=weighted)
    x = torch.cat([torch.randn(S, 6000, M - 1, generator=generator), torch.ones(S, 6000, 1)], -1).double()
    labels = torch.randint(0, C, (V, 6000), generator=generator)
    weights = torch.rand(6000, generator=generator).double() if weighted else torch.ones(6000).double()
    loss = SoftmaxLoss(x, x, labels, weights / weights.sum(), loss.penalty)
    u = torch.randn(w.shape, dtype=torch.float64, generator=generator)
    sampled = loss.curvature(loss.at(w), None)
    monkeypatch.setattr(probes.softmax_loss, "SAMPLE", 6000)
    whole = loss.curvature(loss.at(w), None)
    quadratic = (u * sampled.times(u)).sum((2, 3)) / (u * whole.times(u)).sum((2, 3))
    torch.testing.assert_close(quadratic, torch.ones(S, V).double(), atol=0.15, rtol=0)
    assert not torch.equal(quadratic, torch.ones(S, V).double())


def test_the_gap_bounds_the_distance_from_the_minimum_everywhere_on_the_way():
    loss, w = problem(weighted=True)
    least = loss.at(minimize(loss, torch.zeros_like(w), tol=1e-13, max_iter=100).w).loss
    for step in range(12):
        found = minimize(loss, torch.zeros_like(w), tol=1e-13, max_iter=step)
        excess = loss.at(found.w).loss - least
        assert (excess <= found.gap + 1e-13).all()
    for scale in (0.0, 0.1, 1.0, 30.0, 3000.0):  # at the last, probabilities are 0 in float64
        assert (loss.gap(loss.at(scale * w)) >= loss.at(scale * w).loss - least).all()


def test_the_gap_sees_intercepts_that_are_off_however_flat_the_loss():
    """A rare class's intercept is far too low or high: its gradient fades, what is missing does not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(1, 2000, 3, generator=generator), torch.ones(1, 2000, 1)], -1).double()
    labels = (torch.arange(2000) < 2).long()[None]
    loss = SoftmaxLoss(
        x, x, labels, torch.full((2000,), 1 / 2000).double(), torch.tensor([[0.1, 0.1, 0.1, 0.0]]).double()
    )
    w = minimize(loss, torch.zeros(1, 1, 2, 4).double(), tol=1e-13, max_iter=100).w
    least = loss.at(w).loss
    for off in (-20.0, -3.0, -0.1, 0.1, 3.0, 20.0):
        moved = w.clone()
        moved[0, 0, 1, -1] += off
        point = loss.at(moved)
        assert loss.gap(point) >= point.loss - least > 0


def test_the_minimum_is_scikit_learns():
    loss, w = problem(weighted=True)
    loss.penalty[:, :-1] = 1e-3
    found = minimize(loss, torch.zeros_like(w), tol=1e-13, max_iter=100).w
    for s in range(S):
        for v in range(V):
            peer = LogisticRegression(C=1e3, solver="newton-cholesky", tol=1e-12)
            peer.fit(loss.x[s, :, :-1].numpy(), loss.labels[v].numpy(), sample_weight=loss.weights.numpy())
            torch.testing.assert_close(found[s, v, :, :-1], torch.from_numpy(peer.coef_), atol=1e-5, rtol=1e-4)
