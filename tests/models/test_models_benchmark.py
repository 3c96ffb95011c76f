"""The benchmark of models with a state compares like with like."""

import pytest
import torch
from transformer_lens.hook_points import HookPoint

from benchmarks import models, throughput
from interp.models import build_model


@pytest.mark.parametrize("name", models.SCANS)
def test_a_kernel_and_its_loop_compute_the_same(name):
    """Values and gradients, at the shorter of the benchmark's lengths, on a quarter of its rows."""
    key, kernel, loop = models.SCANS[name]
    inputs = [each.detach()[:4] if len(each) == 16 else each.detach() for each in models.scan_inputs(148)[key]]
    inputs = [each.requires_grad_() for each in inputs]
    results = []
    for run in (kernel, loop):
        out = run(*inputs)
        results.append((out, torch.autograd.grad(out.square().mean(), inputs)))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", models.CONFIGS)
def test_the_peer_is_the_model_without_its_hook_points(name):
    model = build_model(models.CONFIGS[name]).eval()
    bare = models.without_hook_points(model)
    assert not [module for module in bare.modules() if isinstance(module, HookPoint)]
    assert [module for module in model.modules() if isinstance(module, HookPoint)]
    tokens = torch.randint(40, (2, 10), generator=torch.Generator().manual_seed(0))
    assert torch.equal(bare(tokens), model(tokens))


def test_rows():
    rows = throughput.rows(repeats=1, lengths=(256,), names=("gru",))
    assert [row["name"] for row in rows] == ["forward_gru_256", "training_gru_256"]
    for row in rows:
        assert row.keys() == {"name", "ours", "peer", "peer_name", "ratio", "unit"}
        assert row["ratio"] == row["ours"] / row["peer"]
