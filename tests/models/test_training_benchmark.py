"""`tapelens bench training` measures what it says."""

import pytest

from benchmarks import training, training_parts
from benchmarks.training_parts import PARTS

KEYS = {"name", "ours", "peer", "peer_name", "ratio", "unit"}


def test_rows():
    rows = {row["name"]: row for row in training.rows(steps=3, d_models=(64,), compiled=False)}
    assert set(rows) == {"step_time_vs_plain", "step_time_vs_boot_native", "records_per_second"} | {
        f"step_share_{part}" for part in PARTS
    }
    for row in rows.values():
        assert row.keys() == KEYS
        better = row["ours"] / row["peer"] if row["unit"] == "records/s" else row["peer"] / row["ours"]
        assert row["ratio"] == pytest.approx(better)
    shares = [1 / rows[f"step_share_{part}"]["ratio"] for part in PARTS]
    assert 0.6 < sum(shares) < 1.4  # medians of parts need not add up to the median of the whole
    whole = rows["step_share_sampling"]["peer"]
    assert rows["records_per_second"]["ours"] == pytest.approx(1e3 * 16 / whole)


def test_both_models_learn_by_the_same_optimizers():
    """Muon takes the hidden matrices of the peer too, or the comparison would be of optimizers."""
    named, peer = training_parts._plain()
    timer = training_parts.StepTimer(named, peer)
    before = {name: p.detach().clone() for name, p in peer.named_parameters()}
    timer.step(0)
    assert all(not (p == before[name]).all() for name, p in peer.named_parameters())
    keys = timer.optimizers.state_tensors()
    assert "muon/blocks.0.attn.c_attn.weight/momentum_buffer" in keys
    assert len(timer.seconds[0]) == len(PARTS)
