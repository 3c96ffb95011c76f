"""The batched minimiser on problems with known answers."""

import torch

from probes.lbfgs import minimize

torch.set_num_threads(1)


def identity(vectors: torch.Tensor, hint: torch.Tensor) -> torch.Tensor:
    return vectors


def test_finds_the_minimum_of_every_quadratic_whatever_its_conditioning():
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, 3, 6, dtype=torch.float64)
    rotations = torch.linalg.qr(torch.randn(4, 6, 6, dtype=torch.float64, generator=generator))[0]
    hessians = rotations @ torch.diag_embed(scales ** torch.linspace(0, 1, 4).double()[:, None]) @ rotations.mT
    optimum = torch.randn(4, 6, dtype=torch.float64, generator=generator)

    def objective(w):
        gradient = (hessians @ (w - optimum)[..., None])[..., 0]
        return 0.5 * ((w - optimum) * gradient).sum(-1), gradient, gradient

    found = minimize(objective, torch.zeros_like(optimum), identity, tol=1e-14, max_iter=100)
    assert found.converged.all()
    torch.testing.assert_close(found.w, optimum, atol=1e-5, rtol=0)

    def newton(vectors, hint):
        return (torch.linalg.inv(hessians) @ vectors.mT).mT

    exact = minimize(objective, torch.zeros_like(optimum), newton, tol=1e-14, max_iter=100)
    assert exact.n_iter <= 2  # one Newton step, and one in which the promise is seen to be kept
    torch.testing.assert_close(exact.w, optimum)


def test_a_problem_that_is_done_stays_put_and_steps_too_long_are_shortened():
    def objective(w):  # log cosh is flat far out: from 3 a full Newton-like step from a poor guess overshoots
        return torch.log(torch.cosh(w)).sum(-1), torch.tanh(w), w

    def too_long(vectors, hint):
        return 40 * vectors

    start = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    found = minimize(objective, start, too_long, tol=1e-12, max_iter=50)
    assert found.w[0].item() == 0
    assert abs(found.w[1].item()) < 1e-5
    assert found.converged.all()


def test_stops_where_it_is_told():
    def objective(w):
        return (w**4).sum(-1), 4 * w**3, w

    found = minimize(objective, torch.ones(1, 1, dtype=torch.float64), identity, tol=0.0, max_iter=3)
    assert found.n_iter == 3
    assert not found.converged.any()
    assert found.loss.item() < 1


def test_a_problem_that_is_done_stays_where_it_is_whatever_its_direction_becomes():
    """One problem begins at its minimum; from then on the preconditioner breaks down for it alone."""
    curvature = torch.tensor([[1.0, 3.0], [2.0, 50.0]])
    calls = []

    def objective(w):
        return 0.5 * (curvature * w * w).sum(-1), curvature * w, w.new_ones(2)

    def precondition(vectors, hint):
        calls.append(len(calls))
        broken = vectors.clone()
        if len(calls) > 1:
            broken[0] = torch.inf
        return broken

    found = minimize(objective, torch.tensor([[0.0, 0.0], [3.0, 1.0]]), precondition, tol=1e-8, max_iter=50)
    assert torch.equal(found.w[0], torch.zeros(2))
    torch.testing.assert_close(found.w[1], torch.zeros(2), atol=1e-3, rtol=0)
    assert bool(found.converged.all()) and len(calls) > 2
