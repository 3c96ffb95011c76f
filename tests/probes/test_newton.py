"""The batched minimiser on problems with known answers."""

import pytest
import torch

from probes.newton import Curvature, Point, minimize

torch.set_num_threads(1)


class Quadratics:
    """½ (w - optimum)ᵀ H (w - optimum), w [s, v, m]; the gap is the loss itself."""

    def __init__(self, hessians, optimum, calls=None):
        self.hessians, self.optimum, self.calls = hessians, optimum, [] if calls is None else calls

    def at(self, w):
        self.calls.append(tuple(w.shape[:2]))
        gradient = (self.hessians @ (w - self.optimum)[..., None])[..., 0]
        return Point(w, 0.5 * ((w - self.optimum) * gradient).sum(-1), gradient, w)

    def gap(self, point):
        return point.loss

    def curvature(self, point, guess):
        guess = torch.ones_like(point.w) if guess is None else guess
        return Curvature(lambda u: (self.hessians @ u[..., None])[..., 0], lambda r: r * guess, guess)

    def only(self, sites, variables):
        some = sites[:, None], variables
        return Quadratics(self.hessians[some], self.optimum[some], self.calls)


def quadratics():
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, 3, 6, dtype=torch.float64) ** torch.linspace(0, 1, 6).double()[:, None]
    rotations = torch.linalg.qr(torch.randn(6, 6, 6, dtype=torch.float64, generator=generator))[0]
    hessians = (rotations @ torch.diag_embed(scales) @ rotations.mT).view(2, 3, 6, 6)
    return Quadratics(hessians, torch.randn(2, 3, 6, dtype=torch.float64, generator=generator))


def test_finds_the_minimum_of_every_quadratic_whatever_its_conditioning():
    problem = quadratics()
    found = minimize(problem, torch.zeros_like(problem.optimum), tol=1e-16, max_iter=100)
    assert (found.gap <= 1e-16).all()
    torch.testing.assert_close(found.w, problem.optimum, atol=1e-7, rtol=0)
    worse = minimize(problem, torch.zeros_like(problem.optimum), tol=1e-3, max_iter=100)
    assert (worse.gap <= 1e-3).all() and worse.gap.max() > 1e-16
    torch.testing.assert_close(worse.gap, problem.at(worse.w).loss)


def test_rows_and_columns_that_are_done_are_not_computed_again_and_keep_their_place():
    problem = quadratics()
    start = problem.optimum.clone()
    start[1, 2] = 0  # all others begin at their minimum
    found = minimize(problem, start, tol=1e-16, max_iter=100)
    assert problem.calls[0] == (2, 3) and set(problem.calls[1:]) == {(1, 1)}
    torch.testing.assert_close(found.w, problem.optimum, atol=1e-7, rtol=0)
    assert torch.equal(found.w[0], problem.optimum[0])


class LogCosh:
    """log cosh w is flat far out: where its curvature is taken for 1 / far, a Newton step overshoots."""

    def __init__(self, far):
        self.far = far

    def at(self, w):
        return Point(w, torch.log(torch.cosh(w)).sum(-1), torch.tanh(w), w)

    def gap(self, point):
        return point.loss

    def curvature(self, point, guess):
        return Curvature(lambda u: u / self.far, lambda r: r, torch.ones_like(point.w))

    def only(self, sites, variables):
        return self


def test_steps_too_long_are_shortened():
    start = torch.tensor([[[0.0], [3.0]]], dtype=torch.float64)
    found = minimize(LogCosh(40), start, tol=1e-12, max_iter=200)
    assert found.w[0, 0].item() == 0
    assert abs(found.w[0, 1].item()) < 2e-6
    assert (found.gap <= 1e-12).all()


def test_stops_where_it_is_told_and_where_the_loss_no_longer_falls():
    start = torch.tensor([[[3.0]]], dtype=torch.float64)
    told = minimize(LogCosh(1), start, tol=0.0, max_iter=1)
    assert told.n_iter == 1
    assert 0 < told.gap.item() < LogCosh(1).at(start).loss.item()
    rounded = minimize(LogCosh(1), start.float(), tol=-1.0, max_iter=1000)
    assert rounded.n_iter < 1000  # a gap that no w can have: it ends at the rounding of float32
    assert abs(rounded.w.item()) < 1e-2
    with pytest.raises(ValueError, match="max_iter must not be negative, got -1"):
        minimize(LogCosh(1), start, tol=0.0, max_iter=-1)
