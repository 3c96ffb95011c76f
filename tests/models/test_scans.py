"""The linear scans against a plain loop, their gradients, and edits that propagate."""

import pytest
import torch
from transformer_lens.hook_points import HookPoint

from interp.models.scans import KERNELS, hooked_scan, linear_scan


def inputs(n_pos, seed=0, dtype=torch.float64, shape=(3, 2)):
    generator = torch.Generator().manual_seed(seed)
    a = torch.rand(2, n_pos, *shape, generator=generator, dtype=dtype)
    b = torch.randn(2, n_pos, *shape, generator=generator, dtype=dtype)
    return a, b, torch.randn(2, *shape, generator=generator, dtype=dtype)


def loop(a, b, start):
    state, states = start, []
    for t in range(b.shape[1]):
        state = a[:, t] * state + b[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


def test_a_scan_worked_by_hand():
    """h = 1/2 h + (1, 2, 3) from 4: 3, 7/2, 19/4; by both kernels."""
    a, b = torch.full((1, 3), 0.5), torch.tensor([[1.0, 2.0, 3.0]])
    for kernel in KERNELS:
        assert linear_scan(a, b, torch.tensor([4.0]), kernel=kernel).tolist() == [[3.0, 3.5, 4.75]]
        assert linear_scan(a, b, kernel=kernel).tolist() == [[1.0, 2.5, 4.25]]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("n_pos", [1, 2, 3, 4, 9, 10, 16, 37])
def test_forward_and_backward_are_those_of_the_loop(kernel, n_pos):
    values = [x.requires_grad_() for x in inputs(n_pos)]
    weight = torch.randn(2, n_pos, 3, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    expected, found = loop(*values), linear_scan(*values, kernel=kernel)
    torch.testing.assert_close(found, expected)
    pairs = (torch.autograd.grad((x * weight).sum(), values) for x in (expected, found))
    for by_loop, by_scan in zip(*pairs, strict=True):
        torch.testing.assert_close(by_scan, by_loop)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_are_those_of_finite_differences(kernel):
    a, b, start = (x.requires_grad_() for x in inputs(7, shape=(2,)))
    assert torch.autograd.gradcheck(lambda *x: linear_scan(*x, kernel=kernel), (a, b, start))
    narrow = a[..., :1].detach().requires_grad_()  # broadcast over channels
    assert torch.autograd.gradcheck(lambda *x: linear_scan(*x, kernel=kernel), (narrow, b, start))


@pytest.mark.parametrize("kernel", KERNELS)
def test_long_scans_with_strong_decay_stay_finite(kernel):
    """Where the product of all a is 0 in float32: dividing by it, as a cumulative sum of logarithms does, is not."""
    a, b, start = inputs(1184, dtype=torch.float32, shape=(4,))
    a = (a * 0.2).requires_grad_()
    assert a.detach().prod(1).max() == 0
    found = linear_scan(a, b, start, kernel=kernel)
    torch.testing.assert_close(found, loop(a, b, start), atol=1e-6, rtol=1e-5)
    assert torch.autograd.grad(found.sum(), a)[0].isfinite().all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("grad", [False, True])
def test_edits_propagate(kernel, grad):
    """Element by element: set at 3 and 6, the states are the loop's that is set there; elsewhere a runs on."""
    a, b, start = inputs(9)
    a.requires_grad_(grad)
    values = torch.randn(2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def edit(tensor, hook):
        tensor[:, 3, 1, 0] = values[0]
        tensor[0, 6] = values[1]
        return tensor

    point = HookPoint()
    point.add_hook(edit)
    found = hooked_scan(point, a, b, start, kernel=kernel)
    state, expected = start, []
    for t in range(9):
        state = (a[:, t] * state + b[:, t]).detach()
        if t == 3:
            state[:, 1, 0] = values[0]
        if t == 6:
            state[0] = values[1]
        expected.append(state)
    torch.testing.assert_close(found, torch.stack(expected, dim=1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_watching_leaves_gradients_as_they_are(kernel):
    values = [x.requires_grad_() for x in inputs(9)]
    point = HookPoint()
    plain = torch.autograd.grad(hooked_scan(point, *values, kernel=kernel).square().sum(), values)
    point.add_hook(lambda tensor, hook: None)
    watched = torch.autograd.grad(hooked_scan(point, *values, kernel=kernel).square().sum(), values)
    for one, other in zip(plain, watched, strict=True):
        torch.testing.assert_close(one, other)
