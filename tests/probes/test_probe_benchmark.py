"""The probe benchmark on a small sweep: its rows are complete and its accuracies comparable."""

import numpy as np
import torch

from benchmarks.probes import rows
from probes import LogisticProbe


def test_rows_are_complete_and_both_sides_score_alike():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (2, 900))
    x = rng.normal(size=(2, 900, 8)) + rng.normal(size=(3, 8))[y[0]] + rng.normal(size=(3, 8))[y[1]]
    threads = torch.get_num_threads()
    found = {row["name"]: row for row in rows(activations=(x.astype(np.float32), y, np.arange(900) // 3))}
    assert torch.get_num_threads() == threads
    assert set(found) >= {
        "probe_fit",
        "probe_screen",
        "probe_fit_accuracy",
        "probe_screen_accuracy",
        "probe_fit_default",
    }
    for row in found.values():
        assert set(row) == {"name", "ours", "peer", "peer_name", "ratio", "unit"}
        assert min(row["ours"], row["peer"], row["ratio"]) > 0
    assert abs(found["probe_fit_accuracy"]["ours"] - found["probe_fit_accuracy"]["peer"]) <= 0.005
    assert found["probe_fit_excess"]["ours"] <= LogisticProbe().tol
    assert found["probe_fit_excess"]["peer"] <= 3 * LogisticProbe().tol  # chosen on one variable, held on all
    assert "tol=" in found["probe_fit"]["peer_name"]
    assert found["probe_fit"]["ratio"] == found["probe_fit"]["peer"] / found["probe_fit"]["ours"]
