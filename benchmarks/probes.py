"""A sweep of probes against scikit-learn's LogisticRegression, one probe at a time on the same rows and threads.

Row `probe_fit`: the stacked logistic probe, seconds a probe over the whole sweep. Row `probe_screen`: the closed-form
discriminant, whose class sums and Gram matrix all variables of a site share. Each is followed by the mean held-out
accuracy of both sides. Sites alternate between ours and the peer, so that load from elsewhere falls on both.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from probes import DiscriminantProbe, LogisticProbe, RidgeProbe, split_groups

SITES, VARIABLES, CLASSES, N_TRAIN, N_TEST, D = 5, 6, 10, 16_000, 4_000, 64


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
    seconds, right = dict.fromkeys(contenders, 0.0), dict.fromkeys(contenders, 0.0)
    peer_seconds = peer_right = 0.0
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            for probe in contenders.values():  # first calls load code
                probe.fit(x[0, train[:500]], y[0, train[:500]])
            for site in x:
                rows_train, rows_test = np.ascontiguousarray(site[train]), site[test]
                for name, probe in contenders.items():
                    start = time.perf_counter()
                    probe.fit(rows_train, y[:, train])
                    seconds[name] += time.perf_counter() - start
                    right[name] += probe.score(rows_test, y[:, test]).sum()
                for labels in y:
                    peer = LogisticRegression(max_iter=1000)
                    start = time.perf_counter()
                    peer.fit(rows_train, labels[train])
                    peer_seconds += time.perf_counter() - start
                    peer_right += float(peer.score(rows_test, labels[test]))
    finally:
        torch.set_num_threads(before)
    count = len(x) * len(y)
    shape = f"{len(train):,} × {x.shape[-1]}, {len(np.unique(y))} classes, {count} probes, {threads} thread(s)"
    found = []
    for name in contenders:
        speed = (seconds[name] / count, peer_seconds / count)
        hit = (right[name] / count, peer_right / count)
        found += [
            _row(name, *speed, f"scikit-learn LogisticRegression, {shape}", speed[1] / speed[0], "s/probe"),
            _row(f"{name}_accuracy", *hit, "scikit-learn LogisticRegression", hit[0] / hit[1], "held-out accuracy"),
        ]
    return found


def _row(name: str, ours: float, peer: float, peer_name: str, ratio: float, unit: str) -> dict:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio, "unit": unit}
