"""The engine of examples/from_scratch against torch in float64, op by op, and its notebook, run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

FOLDER = Path(__file__).parents[1] / "examples" / "from_scratch"
sys.path.insert(0, str(FOLDER))
try:
    from engine import Value, topological  # pyright: ignore[reportMissingImports]
    from optimizers import SGD, Adam  # pyright: ignore[reportMissingImports]
finally:
    sys.path.remove(str(FOLDER))

OPS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "add": (lambda a, b: a + b, ((3, 4), (3, 4))),
    "add, stretched": (lambda a, b: a + b, ((3, 4), (4,))),
    "add, both stretched": (lambda a, b: a + b, ((3, 1), (1, 4))),
    "add a number": (lambda a: 2.5 + a, ((3,),)),
    "multiply": (lambda a, b: a * b, ((2, 3), (2, 3))),
    "multiply, stretched": (lambda a, b: a * b, ((2, 3), (2, 1))),
    "subtract": (lambda a, b: a - b, ((2, 3), (3,))),
    "subtract from a number": (lambda a: 1.0 - a, ((2, 3),)),
    "divide": (lambda a, b: a / b, ((2, 3), (2, 1))),
    "power": (lambda a: a**3, ((2, 3),)),
    "negate": (lambda a: -a, ((2, 3),)),
    "matmul": (lambda a, b: a @ b, ((3, 4), (4, 2))),
    "matmul, batches": (lambda a, b: a @ b, ((5, 3, 4), (5, 4, 2))),
    "matmul, one for all": (lambda a, b: a @ b, ((5, 3, 4), (4, 2))),
    "relu": (lambda a: a.relu(), ((4, 5),)),
    "exp": (lambda a: a.exp(), ((4, 5),)),
    "log": (lambda a: (a * a + 0.1).log(), ((4, 5),)),
    "sum": (lambda a: a.sum(), ((4, 5),)),
    "sum over an axis": (lambda a: a.sum(1), ((4, 5),)),
    "sum over the last axis, kept": (lambda a: a / a.exp().sum(-1, keepdims=True), ((4, 5),)),
    "sum over two axes": (lambda a: a.sum((0, 2)), ((2, 3, 4),)),
    "mean": (lambda a: a.mean(0), ((4, 5),)),
    "reshape": (lambda a: a.reshape(10, 2), ((4, 5),)),
    "transpose": (lambda a: a.T @ a, ((4, 5),)),
    "used twice": (lambda a: a * a + a, ((4,),)),
    "softmax cross-entropy": (lambda a: (a.exp().sum(1, keepdims=True).log() - a).sum(), ((6, 4),)),
    "two layers": (lambda x, w, v: ((x @ w).relu() @ v).sum(), ((6, 4), (4, 5), (5, 2))),
}


@pytest.mark.parametrize("name", OPS)
def test_values_and_gradients_are_torchs(name: str) -> None:
    """Of a random weighing of all entries of the result, so that every one has a gradient of its own."""
    op, shapes = OPS[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    arrays = [rng.normal(size=shape) for shape in shapes]
    ours, theirs = [Value(a) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]
    got, want = op(*ours), op(*theirs)
    assert got.data == pytest.approx(want.detach().numpy(), rel=1e-12, abs=1e-12)
    weights = rng.normal(size=got.shape)
    (got * weights).sum().backward()
    (want * torch.from_numpy(np.asarray(weights))).sum().backward()
    for mine, its in zip(ours, theirs, strict=True):
        assert mine.grad.shape == mine.shape
        assert its.grad is not None
        assert mine.grad == pytest.approx(its.grad.numpy(), rel=1e-10, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 25))
def test_random_graphs_are_torchs(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(3, 3)) * 0.5 for _ in range(3)]
    pools = [[Value(a) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]]
    roots = [list(pool) for pool in pools]
    for _ in range(size):
        kind, one, other = rng.integers(5), *rng.integers(len(pools[0]), size=2)
        for pool in pools:
            a, b = pool[one], pool[other]
            pool.append((a + b, a * b, (a @ b) * 0.3, a.relu(), (a * 0.1).exp())[kind])
    for pool in pools:
        total: Any = pool[0]
        for each in pool[1:]:
            total = total + each
        total.sum().backward()
    for mine, its in zip(roots[0], roots[1], strict=True):
        assert np.allclose(mine.grad, its.grad.numpy(), rtol=1e-8, atol=1e-10)


def test_gradients_add_up_and_a_second_pass_sends_its_own_alone() -> None:
    a = Value(2.0)
    b = a * 3
    c = b * b
    c.backward()
    assert a.grad == 36
    c.backward()
    assert a.grad == 72 and b.grad == 24


def test_a_deep_graph_needs_no_recursion() -> None:
    a = Value(1.0)
    z = a
    for _ in range(20_000):
        z = z + a * 0.5
    order = topological(z)
    place = {id(value): index for index, value in enumerate(order)}
    assert all(place[id(each)] < place[id(value)] for value in order for each in value._inputs)
    z.backward()
    assert a.grad == 10_001


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backward starts at one number; this has shape \(2,\)"):
        Value([1.0, 2.0]).backward()
    with pytest.raises(ValueError, match="log needs entries above 0; the least is -1"):
        Value([1.0, -1.0]).log()
    with pytest.raises(ValueError, match="at least two axes"):
        _ = Value([1.0]) @ Value([1.0])


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_optimizers_are_torchs(name: str) -> None:
    rng = np.random.default_rng(1)
    start, target = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    mine, its = Value(start.copy()), torch.tensor(start, requires_grad=True)
    own = {"SGD": SGD, "Adam": Adam}[name]([mine], 0.1)
    theirs = getattr(torch.optim, name)([its], lr=0.1)
    for _ in range(40):
        own.zero_grad()
        (((mine - target) ** 2) * ((mine - target) ** 2)).sum().backward()
        own.step()
        theirs.zero_grad()
        ((its - torch.from_numpy(target)) ** 4).sum().backward()
        theirs.step()
        assert np.allclose(mine.data, its.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_the_engine_is_small() -> None:
    assert len((FOLDER / "engine.py").read_text(encoding="utf-8").splitlines()) <= 220


def test_the_notebook_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cell, in order; its own assertions hold the three stages equal."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr(sys, "path", list(sys.path))
    cells = json.loads((FOLDER / "three_stages.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    said = capsys.readouterr().out
    assert said.count("stages differ by at most") == 4
    assert "one feature 20 times smaller" in said
    for problem, wanted in (("line", [3.0, -0.5]), ("curve", [2.0, -1.5, 0.25])):
        for name in ("SGD", "Adam"):
            assert np.allclose(names["results"][problem, name][0][1], wanted, atol=1e-2), (problem, name)
