"""Parts are ablated exactly, and a compiled interpreter, whose circuits are known, comes apart where it should."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec
from interp.circuits import draw_pairs
from interp.circuits.parts import (
    Ablator,
    Level,
    Part,
    attribution_matrices,
    level_hooks,
    mean_activations,
    node_losses,
    part_of,
    random_part,
)
from interp.compiled.build import compile_model
from interp.results import rows_frame
from interp.studies.dissociation import DissociationConfig, dissociate, dissociation_rows

from .conftest import random_model
from .test_patching import n_hooks

SPEC = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2)


@pytest.fixture(scope="module")
def small(inplace):
    return random_model(inplace)


@pytest.fixture(scope="module")
def pairs(inplace):
    return draw_pairs(inplace, "INC", 12, seed=0)


@pytest.mark.parametrize("level", ["node", "neuron", "subspace"])
def test_the_whole_level_under_resample_is_the_corrupted_run_but_for_the_input(small, pairs, level):
    """Every head and MLP carrying its corrupted value leaves the clean embedding alone to tell the two runs apart."""
    ablator = Ablator(small, pairs, level_hooks(small, level), ablation="resample")
    if level == "subspace":
        part = Part({hook: torch.eye(small.cfg.d_model) for hook in level_hooks(small, level)})
    else:
        width = small.cfg.n_heads + 1 if level == "node" else small.cfg.d_mlp
        part = part_of(small, level, range(2 * width))
    with torch.no_grad(), ablator.ablated(part):
        _, inside = small.run_with_cache(pairs.clean.tokens, return_cache_object=False)
    _, corrupted = small.run_with_cache(pairs.corrupted.tokens, return_cache_object=False)
    torch.testing.assert_close(inside["blocks.1.hook_mlp_out"], corrupted["blocks.1.hook_mlp_out"], atol=1e-5, rtol=0)
    m, _ = ablator.run(part)
    assert np.abs(m - ablator.m_clean).max() > 1e-3
    assert n_hooks(small) == 0


def test_a_part_runs_from_its_first_layer_as_from_the_tokens(small, pairs):
    ablator = Ablator(small, pairs, level_hooks(small, "neuron"), ablation="zero")
    part = part_of(small, "neuron", [small.cfg.d_mlp + 3])
    assert part.names() == ["m1.n3"]
    assert part.first_layer == 1

    def zero(activation, hook):
        activation = activation.clone()
        activation[..., 3] = 0
        return activation

    with torch.no_grad(), small.hooks(fwd_hooks=[("blocks.1.mlp.hook_post", zero)]):
        expected = pairs.logit_difference(small(pairs.clean.tokens))
    np.testing.assert_allclose(ablator.run(part)[0], expected, atol=1e-5)


def test_attribution_predicts_the_loss_of_a_last_layer_neuron(inplace, pairs):
    """Without a final norm the logits are linear in the last MLP's neurons, so the estimate is exact."""
    model = random_model(inplace)
    model.ln_final = torch.nn.Identity()  # type: ignore[assignment]
    ablator = Ablator(model, pairs, level_hooks(model, "neuron"), ablation="resample")
    matrix = attribution_matrices(ablator, level_hooks(model, "neuron"), steps=2)["blocks.1.mlp.hook_post"]
    for neuron in (0, 7, 40):
        m, _ = ablator.run(part_of(model, "neuron", [model.cfg.d_mlp + neuron]))
        loss = (ablator.m_clean - m).mean() / ablator.gap
        assert float(matrix[neuron, neuron]) == pytest.approx(loss, abs=1e-4)
    assert len(node_losses(ablator_of_nodes(model, pairs))) == 2 * (model.cfg.n_heads + 1)


def ablator_of_nodes(model, pairs):
    hooks = level_hooks(model, "node")
    return Ablator(model, pairs, hooks, ablation="mean", means=mean_activations(model, pairs.clean.tokens, hooks))


def test_instructions_of_a_compiled_interpreter_come_apart():
    """Its MLPs decide each instruction with neurons of its own, silent in the others: zeroed, these are spared."""
    compiled = compile_model(SPEC)
    config = DissociationConfig(n_neurons=12, n_pairs=16, n_null=4)
    ops = ["NEXT", "INC", "GET"]
    task = compiled.form.task
    found = dissociate(compiled.model, task, ops=ops, level="neuron", ablation="zero", config=config)
    assert found.right_clean.min() == 1
    for place in range(3):
        assert found.loss[place, place] > 0.35
        assert np.delete(found.loss[place], place).max() < 0.2
        assert found.right[place, place] < 0.2
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert found.pair(a, b) > 0.2
        assert found.pair(a, b) > found.null_pair(a, b).max()
    first = dissociate(compiled.model, task, ops=ops, level="neuron", ablation="zero",
                       config=replace(config, later_layers=False))  # fmt: skip
    margin = [[each.loss[p, p] - np.delete(each.loss[p], p).max() for p in range(3)] for each in (found, first)]
    assert sum(margin[0]) >= sum(margin[1]) - 0.05  # chosen by margin, on other programs
    frame = rows_frame(dissociation_rows(found))
    own = frame[(frame.metric == "ablation_loss") & frame.control.isna()]
    assert len(own) == 3 * 4
    assert len(frame[(frame.metric == "dissociation") & frame.control.isna()]) == 3
    assert n_hooks(compiled.model) == 0


def test_random_parts_have_their_size(small):
    rng = np.random.default_rng(0)
    sizes: dict[Level, int] = {"node": 4, "neuron": 30, "subspace": 9}
    part: Any = None
    for level, size in sizes.items():
        part = random_part(small, level, size, rng=rng)
        assert part.size == size
    for basis in part.units.values():
        torch.testing.assert_close(basis @ basis.T, torch.eye(len(basis)), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="a part of level node has 1 to 6 units, got 7"):
        random_part(small, "node", 7, rng=rng)
    with pytest.raises(ValueError, match="n_null must be a whole number of at least 2, got 1"):
        DissociationConfig(n_null=1)
