"""A sweep of probes against scikit-learn's LogisticRegression, one probe at a time on the same rows and threads.

Row `probe_fit`: the stacked logistic probe, seconds a probe over the whole sweep, against whichever of scikit-learn's
solvers and tolerances is the fastest to come as near to the minimum as the probe promises (`LogisticProbe.tol`, nats a
row); `probe_fit_excess` is how near both came, at worst, the minimum being newton-cholesky's in float64. Row
`probe_fit_default`: against LogisticRegression as it is, which stops elsewhere; `probe_fit_default_excess` says where.
Rows `probe_screen`: the closed forms, whose class sums and Gram matrix all variables of a site share, against the same.
Each is followed by the mean held-out accuracy of both sides. Sites alternate between ours and the peers, so that load
from elsewhere falls on all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from probes import DiscriminantProbe, LogisticProbe, RidgeProbe, split_groups

SITES, VARIABLES, CLASSES, N_TRAIN, N_TEST, D = 5, 6, 10, 16_000, 4_000, 64

# Ways to ask scikit-learn for a minimum; the fastest that comes near enough is the peer.
SOLVERS: list[dict[str, Any]] = [
    *({"solver": "lbfgs", "tol": tol} for tol in (1e-4, 3e-5, 1e-5, 1e-6)),
    *({"solver": "newton-cg", "tol": tol} for tol in (1e-3, 1e-4)),
    *({"solver": "newton-cholesky", "tol": tol} for tol in (1e-2, 1e-4)),
]
ROUNDING = 1e-12  # nats a row: an excess below is rounding


def synthetic_sweep(*, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations float32 [sites, n, d], labels [variables, n] and programs [n] that look like a residual stream.

    Every variable adds one direction a class, more strongly at later sites, to noise with a power-law spectrum, an
    offset, and a nonlinear mixture of all; so the variables lie in superposition and accuracies differ.
    """
    rng = np.random.default_rng(seed)
    n = N_TRAIN + N_TEST
    y = rng.integers(0, CLASSES, (VARIABLES, n))
    x = np.empty((SITES, n, D), np.float32)
    for site, strength in enumerate(np.linspace(0.1, 0.4, SITES)):
        rotation = np.linalg.qr(rng.normal(size=(D, D)))[0]
        stream = 2 * rng.normal(size=(n, D)) * (1 + np.arange(D)) ** -0.5 @ rotation + rng.normal(size=D)
        for labels in y:
            stream += strength * rng.normal(size=(CLASSES, D))[labels]
        x[site] = stream + 0.3 * np.maximum(stream @ rng.normal(size=(D, D)) / np.sqrt(D), 0)
    return x, y, np.arange(n) // 4


def rows(
    *,
    activations: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
    threads: int = 1,
    seed: int = 0,
) -> list[dict]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio, unit (ratio > 1 = ours better).

    Args:
        activations: (X [sites, n, d], y [variables, n], programs [n]) of a run; a synthetic sweep of the same kind by
            default.
        threads: threads of PyTorch and of scikit-learn's BLAS; restored afterwards.
        seed: of the synthetic sweep and of the split by program.
    """
    x, y, programs = activations or synthetic_sweep(seed=seed)
    train, test = split_groups(programs, seed=seed)
    x = (x - x[:, train].mean(1, keepdims=True)) / x[:, train].std(1, keepdims=True)  # as the peer likes it best
    contenders: dict[str, Any] = {
        "probe_fit": LogisticProbe(),
        "probe_screen": DiscriminantProbe(),
        "probe_screen_ridge": RidgeProbe(),
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            for probe in contenders.values():  # first calls load code
                probe.fit(x[0, train[:500]], y[0, train[:500]])
            chosen = _equal_peer(x[:, train], y[0, train], tol=contenders["probe_fit"].tol)
            peers = {"equal": chosen, "default": {"max_iter": 1000}}
            tally = {name: Tally() for name in (*contenders, *peers)}
            for site in x:
                rows_train, rows_test = np.ascontiguousarray(site[train]), site[test]
                least = [_minimum(rows_train, labels[train]) for labels in y]
                for name, probe in contenders.items():
                    start = time.perf_counter()
                    probe.fit(rows_train, y[:, train])
                    tally[name].seconds += time.perf_counter() - start
                    tally[name].right += list(probe.score(rows_test, y[:, test]))
                    if name == "probe_fit":
                        coef, intercept = probe.coef_, probe.intercept_
                        tally[name].excess += [
                            _objective(rows_train, labels[train], coef[v], intercept[v]) - least[v]
                            for v, labels in enumerate(y)
                        ]
                for name, options in peers.items():
                    for labels, low in zip(y, least, strict=True):
                        peer = LogisticRegression(**options)
                        start = time.perf_counter()
                        peer.fit(rows_train, labels[train])
                        tally[name].seconds += time.perf_counter() - start
                        tally[name].right.append(float(peer.score(rows_test, labels[test])))
                        there = _objective(rows_train, labels[train], peer.coef_, peer.intercept_)
                        tally[name].excess.append(there - low)
    finally:
        torch.set_num_threads(before)
    count = len(x) * len(y)
    shape = f"{len(train):,} × {x.shape[-1]}, {len(np.unique(y))} classes, {count} probes, {threads} thread(s)"
    solver = f"{chosen['solver']}, tol={chosen['tol']:g}"
    found = []
    for name, ours, peer, what in (
        ("probe_fit", "probe_fit", "equal", f"scikit-learn LogisticRegression({solver}), {shape}"),
        ("probe_fit_default", "probe_fit", "default", f"scikit-learn LogisticRegression, {shape}"),
        ("probe_screen", "probe_screen", "default", f"scikit-learn LogisticRegression, {shape}"),
        ("probe_screen_ridge", "probe_screen_ridge", "default", f"scikit-learn LogisticRegression, {shape}"),
    ):
        mine, theirs = tally[ours], tally[peer]
        speed = mine.seconds / count, theirs.seconds / count
        hit = float(np.mean(mine.right)), float(np.mean(theirs.right))
        found += [
            _row(name, *speed, what, speed[1] / speed[0], "s/probe"),
            _row(f"{name}_accuracy", *hit, what, hit[0] / hit[1], "held-out accuracy"),
        ]
        if mine.excess:
            far = max(*mine.excess, ROUNDING), max(*theirs.excess, ROUNDING)
            found.append(_row(f"{name}_excess", *far, what, far[1] / far[0], "nats/row above the minimum, at worst"))
    return found


@dataclass
class Tally:
    """What one side took and reached, over all probes."""

    seconds: float = 0.0
    right: list[float] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)


def _equal_peer(x: np.ndarray, y: np.ndarray, *, tol: float) -> dict[str, Any]:
    """The fastest of `SOLVERS` whose worst excess on X [sites, n, d] is at most tol; the nearest if none is."""
    least = [_minimum(site, y) for site in x]
    found = []
    for options in SOLVERS:
        seconds, excess = 0.0, []
        for site, low in zip(x, least, strict=True):
            peer = LogisticRegression(max_iter=1000, **options)
            start = time.perf_counter()
            peer.fit(site, y)
            seconds += time.perf_counter() - start
            excess.append(_objective(site, y, peer.coef_, peer.intercept_) - low)
        found.append((max(0.0, max(excess) - tol), seconds, options))
    return {"max_iter": 1000, **min(found, key=lambda row: row[:2])[2]}


def _minimum(x: np.ndarray, y: np.ndarray) -> float:
    """The least objective at C = 1, in nats a row."""
    best = LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=200).fit(x.astype(np.float64), y)
    return _objective(x, y, best.coef_, best.intercept_)


def _objective(x: np.ndarray, y: np.ndarray, coef: np.ndarray, intercept: Any) -> float:
    """Mean cross-entropy + |coef|² / 2n, in float64; coef [C, d], or [1, d] as scikit-learn has it for two classes."""
    coef, intercept = coef[np.isfinite(intercept)], intercept[np.isfinite(intercept)]  # the classes that occur
    coef, intercept = coef.astype(np.float64), intercept.astype(np.float64)
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    z = torch.from_numpy(x.astype(np.float64) @ coef.T + intercept)
    right = torch.from_numpy(np.searchsorted(np.unique(y), y))
    penalty = (2 if len(coef) == 2 else 1) * 0.5 * (coef**2).sum() / len(y)
    return float(torch.nn.functional.cross_entropy(z, right)) + penalty


def _row(name: str, ours: float, peer: float, peer_name: str, ratio: float, unit: str) -> dict:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio, "unit": unit}
