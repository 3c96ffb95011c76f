"""Reading, patching and ablating activations."""

from typing import Any

import pytest
import torch

from interp.interventions import (
    Patch,
    Site,
    ablate,
    ablation_value,
    collect,
    patch_from,
    patched,
    random_basis,
)

HOOKS = [
    "hook_embed",
    "blocks.0.hook_resid_pre",
    "blocks.1.attn.hook_z",
    "blocks.0.attn.hook_pattern",
    "blocks.1.mlp.hook_post",
    "blocks.1.hook_resid_post",
]


def n_hooks(model) -> int:
    return sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values())


@pytest.mark.parametrize("hooks", [HOOKS, HOOKS[1:2], HOOKS[3:4]])
def test_collected_activations_equal_the_cache(model, task, hooks):
    batch = task.sample(21, seed=1)
    sites = [Site(hook, name) for hook in hooks for name in ("all", "cells[@array_ptr]", "array_ptr")]
    found = collect(model, batch, sites, task=task, batch_size=8)
    _, cache = model.run_with_cache(batch.tokens)
    rows = torch.arange(len(batch))[:, None]
    for site in sites:
        whole = cache[site.hook].transpose(1, 2) if site.hook.endswith("pattern") else cache[site.hook]
        positions = task.resolve(site.positions, batch)
        torch.testing.assert_close(found[site], whole[rows, positions])
    assert n_hooks(model) == 0


def test_one_head_of_a_site(model, task):
    batch = task.sample(5, seed=1)
    sites = [Site("blocks.1.attn.hook_z", "cells", head=1), Site("blocks.1.attn.hook_pattern", "cells", head=1)]
    found = collect(model, batch, sites, task=task)
    _, cache = model.run_with_cache(batch.tokens)
    cells = task.spec.layout.slice("cells")
    torch.testing.assert_close(found[sites[0]], cache[sites[0].hook][:, cells, 1])
    torch.testing.assert_close(found[sites[1]], cache[sites[1].hook][:, 1, cells])


@pytest.mark.parametrize("hook", HOOKS)
def test_patching_with_itself_changes_nothing(model, task, hook):
    batch = task.sample(6, seed=2)
    logits = patch_from(model, batch, batch, Site(hook, "cells"), task=task)
    torch.testing.assert_close(logits, model(batch.tokens))


@pytest.mark.parametrize("hook", ["hook_embed", "blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", HOOKS[-1]])
def test_swapping_the_whole_stream_gives_the_source_run(model, task, hook):
    base, source = task.sample(6, seed=2), task.sample(6, seed=3)
    logits = patch_from(model, base, source, Site(hook, "all"), task=task)
    torch.testing.assert_close(logits, model(source.tokens))
    assert not torch.allclose(logits, model(base.tokens), atol=1e-2)


def test_a_complete_basis_is_the_whole_vector_and_two_halves_add_up(model, task):
    base, source = task.sample(6, seed=2), task.sample(6, seed=3)
    site = Site("blocks.1.hook_resid_post", "cells[@array_ptr]")  # what follows is linear but for the norm
    basis = random_basis(16, 16, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"task": task}
    whole = patch_from(model, base, source, site, **options)
    torch.testing.assert_close(patch_from(model, base, source, site, basis=basis, **options), whole, atol=1e-4, rtol=0)
    values = collect(model, source, [site], **options)[site], collect(model, base, [site], **options)[site]
    half = basis[:5]
    expected = values[1] + (values[0] - values[1]) @ half.T @ half
    positions = task.resolve(site.positions, base)
    with patched(model, [Patch(site.hook, positions, expected)]):
        by_value = model(base.tokens)
    torch.testing.assert_close(
        patch_from(model, base, source, site, basis=half, **options), by_value, atol=1e-4, rtol=0
    )


def test_zero_ablation_of_everything_leaves_the_biases(model, task):
    batch = task.sample(4, seed=0)
    site = Site("blocks.1.hook_resid_post", "all")
    logits = ablate(model, batch, site, kind="zero", reference=batch, task=task)
    torch.testing.assert_close(logits, model.b_U.expand_as(logits))


def test_mean_and_resample_values():
    reference = torch.arange(12.0).reshape(3, 2, 2)
    assert (ablation_value("mean", reference, n=2)[1] == reference.mean(0)).all()
    drawn = ablation_value("resample", reference, n=50, generator=torch.Generator().manual_seed(0))
    matches = (drawn[:, None] == reference[None]).all(-1).all(-1)
    assert matches.any(1).all()
    assert matches.any(0).all()
    with pytest.raises(ValueError, match="'zero', 'mean' or 'resample', got 'noise'"):
        ablation_value("noise", reference, n=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs reference examples"):
        ablation_value("mean", reference[:0], n=2)


def test_no_hook_outlives_a_run_that_raises(model, task):
    batch = task.sample(4, seed=0)
    positions = torch.zeros(4, 1, dtype=torch.long)
    with (
        pytest.raises(RuntimeError),
        patched(model, [Patch("blocks.1.hook_resid_pre", positions, torch.zeros(4, 1, 3))]),
    ):
        model(batch.tokens)  # the value has the wrong size
    assert n_hooks(model) == 0
    torch.testing.assert_close(model(batch.tokens), model(batch.tokens))


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch("blocks.7.hook_resid_pre", torch.zeros(1, 1, dtype=torch.long), torch.zeros(1)), "no hook"),
        (
            Patch("hook_embed", torch.zeros(1, 1, dtype=torch.long), torch.zeros(1), basis=torch.ones(2, 16)),
            "orthonormal",
        ),
        (
            Patch("hook_embed", torch.zeros(1, 1, dtype=torch.long), torch.zeros(1), basis=torch.ones(16)),
            r"\[rank, d\]",
        ),
    ],
)
def test_bad_patches_are_refused(model, patch, message):
    with pytest.raises(ValueError, match=message), patched(model, [patch]):
        pass


def test_bad_sites_are_refused(model, task):
    batch = task.sample(2, seed=0)
    with pytest.raises(ValueError, match="no hook"):
        collect(model, batch, [Site("blocks.0.hook_rezid")], task=task)
    with pytest.raises(ValueError, match="head must be from 0 to 1, got 2"):
        collect(model, batch, [Site("blocks.0.attn.hook_z", head=2)], task=task)
