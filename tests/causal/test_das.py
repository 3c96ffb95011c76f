"""Distributed alignment search where the subspace is known, and against transformer_lens's own."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformer_lens.tools.analysis import interchange as theirs

from cython_vm import MachineSpec, Op, Outcome, program_hash, strata_weights
from interp.compiled.build import compile_model
from interp.interventions import (
    DasConfig,
    SharedPairs,
    Site,
    das_rows,
    fit_das,
    principal_angles,
    random_basis,
    row_and_null_parts,
    subspace_swaps,
    swaps_of,
)
from interp.interventions.das import fit_basis
from interp.models import HookedModel, TransformerConfig, build_model
from interp.results import rows_frame, select
from interp.tasks.step_inplace import StepInplace

from .conftest import random_model
from .test_patching import n_hooks

SPEC = MachineSpec(n_instructions=4, n_cells=3, n_input=0, n_output=0, bits=1)
SIZE = 40
QUICK = DasConfig(n_pairs=128, n_held_out=64, steps=60, batch_size=32, lr=0.1)


class Halted(StepInplace):
    """Pairs whose states execute STOP: whatever the cells hold, the answer is the state."""

    def counterfactual(self, n, name, **options):
        self.splits = [*getattr(self, "splits", []), options.get("split", "evaluation")]
        weights = np.zeros_like(strata_weights(self.spec))
        weights[Op.STOP, Outcome.HALTED] = 1.0
        return super().counterfactual(n, name, **{**options, "weights": weights})


@pytest.fixture(scope="module")
def halted() -> Halted:
    return Halted(SPEC)


@pytest.fixture(scope="module")
def rotation() -> torch.Tensor:
    """Orthonormal directions, one a token, [d_vocab, 40]."""
    return random_basis(SPEC.d_vocab, SIZE, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def copier(halted, rotation) -> HookedModel:
    """Predicts S_{t+1} = S_t, each token a direction of a rotated stream; its MLP adds 0 but hooks all the same."""
    config = TransformerConfig(
        d_vocab=SPEC.d_vocab,
        n_ctx=halted.n_ctx,
        n_layers=2,
        n_heads=1,
        d_model=SIZE,
        d_head=4,
        d_mlp=6,
        act_fn="relu",
        normalization_type=None,
        attention_dir="bidirectional",
        positional_embedding_type="none",
        use_bias=False,
    )
    model: Any = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E.copy_(rotation)
        model.unembed.weight.copy_(rotation)
    return model


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.1.hook_resid_mid"])
def test_rank_one_finds_the_one_direction(copier, halted, rotation, hook):
    """A bit at one position: the two tokens' difference is the only direction that swaps it."""
    site = Site(hook, "cells[1]")
    fit = fit_das(copier, halted, "cell[1]", site, rank=1, config=QUICK)
    zero, one = (SPEC.token_id(name) for name in ("NUM_0", "NUM_1"))
    known = F.normalize(rotation[one] - rotation[zero], dim=0)[None]
    assert principal_angles(fit.basis, known)[0] < 3
    assert fit.iia == fit.iia_train == 1
    assert fit.n > 10
    assert fit.losses[-1] < fit.losses[0]
    torch.testing.assert_close(fit.basis @ fit.basis.T, torch.eye(1))
    assert n_hooks(copier) == 0


def test_it_finds_where_a_compiled_interpreter_keeps_the_operand():
    """Once the margin is reached the loss is flat: the swap is exact while angles stay well above 0."""
    compiled = compile_model(MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=1))
    key, task = compiled.key, compiled.form.task
    (swap,) = [swap for swap in key.variables["operand"].swaps if swap.hook == "blocks.1.hook_resid_mid"]
    (place,) = swap.places
    known = key.basis(place)  # a one-hot of two: one difference is all that swaps
    config = DasConfig(n_pairs=128, n_held_out=64, steps=100, batch_size=32)
    fit = fit_das(compiled.model, task, "operand", Site(swap.hook, place.positions), rank=2, config=config)
    assert fit.iia == 1
    assert principal_angles(fit.basis, known)[0] < 35
    elsewhere = Site("blocks.0.hook_resid_mid", place.positions)  # a layer too early
    assert fit_das(compiled.model, task, "operand", elsewhere, rank=2, config=config).iia < 0.3


def test_fits_and_scores_share_no_program(copier, halted):
    halted.splits = []
    fit_das(copier, halted, "cell[1]", Site("blocks.0.hook_resid_post", "cells[1]"), rank=1, config=QUICK)
    assert set(halted.splits) == {"train", "evaluation"}
    train = SharedPairs.draw(halted, ["cell[1]"], n_pairs=40, seed=0, split="train")
    assert (program_hash(train.base.examples) % 20 != 0).all()
    assert (program_hash(train.source.examples) % 20 != 0).all()


def test_where_the_variable_is_not_nothing_is_found(copier, halted):
    fit = fit_das(copier, halted, "cell[1]", Site("blocks.0.hook_resid_post", "cells[0]"), rank=4, config=QUICK)
    assert fit.iia == 0
    dead = fit_das(copier, halted, "cell[1]", Site("blocks.0.mlp.hook_post", "cells[1]"), rank=2, config=QUICK)
    assert dead.iia == 0


def test_pointed_positions_are_resolved_apart(copier, halted):
    """The token under the base's pointer takes the one under the source's: full rank is the full vector."""
    pairs = SharedPairs.draw(halted, ["array_ptr"], n_pairs=60, seed=0)
    site = Site("blocks.0.hook_resid_post", "array_ptr")
    right = subspace_swaps(copier, halted, pairs, "array_ptr", site, [None, torch.eye(SIZE)])
    assert right[0].all()  # the whole block swapped moves the pointer
    assert (right[1] == right[0]).all()
    assert not right[2][pairs.changes["array_ptr"]].any()
    fit = fit_das(copier, halted, "array_ptr", site, rank=1, config=QUICK)  # one direction, all slots together
    assert fit.iia == 1
    pointed = Site("blocks.0.hook_resid_post", "array_ptr[@array_ptr]")
    assert fit_das(copier, halted, "array_ptr", pointed, rank=1, config=QUICK).iia == 0  # "1" for "1": nothing moves


def test_agreement_with_transformer_lens(copier, halted):
    """Same pairs, one position: the same answers in a given basis, and a fit that ends in the same place."""
    site = Site("blocks.0.hook_resid_post", "cells[1]")
    pairs = SharedPairs.draw(halted, ["cell[1]"], n_pairs=64, seed=0, split="train")
    config = DasConfig(steps=60, batch_size=len(pairs), lr=0.1)
    basis, losses = fit_basis(copier, halted, pairs, "cell[1]", site, rank=1, config=config)
    rows = pairs.members["cell[1]"]
    base, source, targets = pairs.base.tokens[rows], pairs.source.tokens[rows], pairs.targets["cell[1]"]
    (swap,) = swaps_of(halted, [site], pairs, rows)
    from_base, from_source = swap.base_positions[:, 0], swap.source_positions[:, 0]

    def classes(tokens):  # [batch, d_vocab, pos], as cross_entropy wants it
        return copier(tokens).transpose(1, 2)

    peer = theirs.fit_das(
        copier,
        site.hook,
        base,
        source,
        targets,
        classes,
        rank=1,
        base_positions=from_base,
        source_positions=from_source,
        epochs=60,
        batch_size=64,
        lr=0.1,
    )
    assert principal_angles(basis, peer.basis.T)[0] < 3
    assert losses[-1] == pytest.approx(peer.losses[-1], rel=0.01)
    taken = theirs.collect_activations(copier, site.hook, source, copier, positions=from_source)
    bent = F.normalize(basis + 0.9 * random_basis(1, SIZE, generator=torch.Generator().manual_seed(5)), dim=1)
    scores = set()
    for each in (basis, bent, random_basis(1, SIZE, generator=torch.Generator().manual_seed(6))):
        logits = theirs.intervened_logits(
            copier, site.hook, theirs.SubspaceInterchange(each.T), base, taken, copier, positions=from_base
        )
        right = (logits.argmax(-1) == targets).all(-1).numpy()
        assert (subspace_swaps(copier, halted, pairs, "cell[1]", site, [each])[0] == right).all()
        scores.add(float(right.mean()))
    assert {1.0} < scores  # the comparison covers success and failure


def test_row_and_null_parts_by_hand():
    """W_out reads the first two of four neurons."""
    w_out = torch.tensor([[1.0, 0, 0], [1.0, 2, 0], [0, 0, 0], [0, 0, 0]])
    basis = torch.tensor([[0.6, 0, 0.8, 0]])
    row, null = row_and_null_parts(basis, w_out)
    torch.testing.assert_close(row.abs(), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(null.abs(), torch.tensor([[0, 0, 1.0, 0]]))
    assert [len(part) for part in row_and_null_parts(torch.eye(4)[:2], w_out)] == [2, 0]
    angles = principal_angles(torch.eye(4)[:2], torch.tensor([[0, 1.0, 0, 0], [np.sqrt(0.5), 0, np.sqrt(0.5), 0]]))
    assert angles == pytest.approx([0, 45], abs=1e-3)


def test_rows_and_controls(inplace):
    model, untrained = random_model(inplace), random_model(inplace, seed=9)
    config = DasConfig(n_pairs=32, n_held_out=32, steps=3, batch_size=8)
    fit, rows = das_rows(
        model, inplace, "operand", Site("blocks.0.mlp.hook_post", "cells"), rank=2, config=config, untrained=untrained
    )
    frame = rows_frame(rows)
    assert set(frame.method) == {"das"}
    by_stratum = select(frame, pair_design="stratified", stratum="changes", metric="iia")
    assert {"INC", "PUT"} <= set(by_stratum.op)
    assert set(by_stratum.control.dropna()) == {"unpatched", "random_subspace", "wrong_site", "same_value"}
    frame = select(frame, pair_design="independent", metric="iia")
    assert set(frame["rank"]) == {2}
    plain = frame[frame.granularity.isna()]
    assert set(plain.control.dropna()) == {"unpatched", "random_subspace", "untrained_model", "wrong_site"}
    assert set(frame.granularity.dropna()) == {"row_space", "null_space"}
    found = select(frame, stratum="changes", control=None, granularity=None)
    assert len(found) == 1
    assert found.iloc[0].estimate == pytest.approx(fit.iia)
    null = select(frame, granularity="null_space", control=None).estimate.to_numpy()
    still = select(frame, granularity="null_space", control="unpatched").estimate.to_numpy()
    assert (null == still).all()  # what W_out drops changes nothing


def test_nothing_outlives_a_fit_that_fails(inplace):
    model: Any = random_model(inplace)

    def fail(*_):
        raise RuntimeError("stopped")

    handle = model.unembed.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stopped"):
        pairs = SharedPairs.draw(inplace, ["operand"], n_pairs=8, seed=0, split="train")
        fit_basis(model, inplace, pairs, "operand", Site("blocks.1.hook_resid_mid", "cells"), rank=2)
    handle.remove()
    assert n_hooks(model) == 0
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bad_input_is_refused(inplace):
    model = random_model(inplace)
    with pytest.raises(ValueError, match="rank must be from 1 to 16, got 17"):
        fit_das(model, inplace, "operand", Site("blocks.0.hook_resid_post", "cells"), rank=17, config=QUICK)
    with pytest.raises(ValueError, match="no hook"):
        fit_das(model, inplace, "operand", Site("blocks.7.hook_resid_post", "cells"), rank=1, config=QUICK)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        DasConfig(steps=0)
