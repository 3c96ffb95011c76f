"""Hooks that stand on a model count; axes are as declared; bases and gradients are checked wherever they are taken."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformer_lens import HookedRootModule

from interp.interventions import (
    DasConfig,
    JointPairs,
    Patch,
    SharedPairs,
    Site,
    Swap,
    ablate,
    collect,
    das_rows,
    fit_das,
    iia_sweep,
    interchange_answers,
    joint_rows,
    mean_difference_basis,
    named_sites,
    patch_from,
    patched,
    random_basis,
    read_positions,
    smallest_set,
    stratum_rows,
    subspace_swaps,
    swapped_answers,
    swaps_of,
)
from interp.interventions.activations import stop_layer
from interp.interventions.declared import axes_of, can_enter_layers, layer_of, residual_hooks
from interp.interventions.sweep import entry_point
from interp.models.recurrent import GRU
from interp.models.state_configs import GRUConfig

from .conftest import random_model

SITE = Site("blocks.1.hook_resid_post", "cells")
QUICK = DasConfig(n_pairs=16, n_held_out=16, steps=2, batch_size=8)


@contextmanager
def without_a_head(model: Any, value: float = 0.0):
    """A permanent hook that sets a head to a number, until the end."""

    def silence(z: torch.Tensor, hook: Any) -> torch.Tensor:
        z = z.clone()
        z[:, :, 0] = value
        return z

    model.add_hook("blocks.0.attn.hook_z", silence, is_permanent=True)
    try:
        yield
    finally:
        model.reset_hooks(including_permanent=True)


def cut(model: Any) -> Any:
    """A copy whose weights do what the standing hook does: the head writes nothing."""
    other: Any = type(model)(model.cfg).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.blocks[0].attn.W_O[0] = 0
    return other


def test_every_method_measures_the_model_as_it_stands(inplace):
    """A head silenced by a hook that stands, and the same by weights: equal, and unlike the model without."""
    model: Any = random_model(inplace)
    batch, other = inplace.sample(12, seed=0), inplace.sample(12, seed=1)
    basis = random_basis(2, 16, generator=torch.Generator().manual_seed(0))
    pairs = SharedPairs.draw(inplace, ["operand"], n_pairs=16, seed=0)
    site, where = Site("blocks.0.hook_resid_post", "cells[@array_ptr]"), {"task": inplace}
    swaps = swaps_of(inplace, [site, Site("blocks.1.hook_resid_mid", "cells"), SITE], pairs)

    def estimates(rows: list[dict[str, Any]]) -> list[float]:
        return [row["estimate"] for row in rows]

    methods: dict[str, Any] = {
        "collect": lambda m: collect(m, batch, [SITE], **where)[SITE],
        "patch_from": lambda m: patch_from(m, batch, other, site, **where, basis=basis),
        "ablate": lambda m: ablate(m, batch, site, kind="mean", reference=other, **where),
        "interchange_answers": lambda m: interchange_answers(
            m, pairs.base.tokens, pairs.source.tokens, swaps, answer=lambda logits: logits
        ),
        "fit_das": lambda m: torch.tensor(fit_das(m, inplace, "operand", site, rank=1, config=QUICK).losses),
        "mean_difference_basis": lambda m: mean_difference_basis(m, inplace, "operand", site, rank=1, n=256).abs(),
    }
    for name, method in methods.items():
        plain, expected = method(model), method(cut(model))
        with without_a_head(model):
            found = method(model)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
        assert not torch.allclose(found, plain, atol=1e-3), name
    options: dict[str, Any] = {"n_pairs": 16, "seed": 0, "n_bootstrap": 10}
    counted: dict[str, Any] = {
        "iia_sweep": lambda m: estimates(iia_sweep(m, inplace, ["operand"], [site, SITE], **options)),
        "joint_rows": lambda m: estimates(
            joint_rows(m, inplace, ["operand", "array_ptr"], [site, Site(site.hook, "array_ptr")], **options)
        ),
        "stratum_rows": lambda m: estimates(stratum_rows(m, inplace, "operand", [Swap(site)], n=4, n_bootstrap=10)),
        "smallest_set": lambda m: smallest_set(m, inplace, "operand", site.hook, n_pairs=8),
    }
    for name, method in counted.items():
        expected = method(cut(model))
        with without_a_head(model):
            assert method(model) == expected, name


@pytest.mark.parametrize("hook", ["blocks.0.hook_resid_pre", "blocks.1.hook_resid_pre", "blocks.0.hook_resid_post"])
def test_a_hook_that_stands_at_the_patched_place_comes_first(inplace, hook):
    """What stands is part of the model: source and base pass it, and then the swap is made, as in one hooked pass."""
    model: Any = random_model(inplace)
    pairs = SharedPairs.draw(inplace, ["operand"], n_pairs=10, seed=0)
    site = Site(hook, "cells")
    model.add_hook(hook, lambda act, hook: act * 1.5 + 1, is_permanent=True)
    try:
        found = interchange_answers(
            model,
            pairs.base.tokens,
            pairs.source.tokens,
            swaps_of(inplace, [site], pairs),
            answer=lambda logits: logits,
        )
        slow = patch_from(model, pairs.base, pairs.source, site, task=inplace)
        torch.testing.assert_close(found[0], slow, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[1], model(pairs.base.tokens), atol=1e-4, rtol=1e-4)
    finally:
        model.reset_hooks(including_permanent=True)


def entries(model: Any, task: Any, site: Site, basis: torch.Tensor | None) -> dict[str, Any]:
    """Every way in that takes a site, or a basis for it."""
    batch = task.sample(6, seed=0)
    pairs = SharedPairs.draw(task, ["operand"], n_pairs=8, seed=0)
    positions = task.resolve(site.positions, batch)
    value = torch.zeros(1)
    return {
        "patch_from": lambda: patch_from(model, batch, batch, site, task=task, basis=basis),
        "patched": lambda: _run(model, batch, Patch(site.hook, positions, value, head=site.head, basis=basis)),
        "interchange_answers": lambda: interchange_answers(
            model, pairs.base.tokens, pairs.source.tokens, swaps_of(task, [site], pairs, bases=[basis])
        ),
        "subspace_swaps": lambda: subspace_swaps(model, task, pairs, "operand", site, [basis]),
        "swapped_answers": lambda: swapped_answers(model, task, batch, [(site, batch)], bases=[basis]),
        "iia_sweep": lambda: iia_sweep(
            model, task, ["operand"], [] if basis is not None else [site], n_pairs=8,
            subspaces=None if basis is None else {("operand", site): basis},
        ),
        "stratum_rows": lambda: stratum_rows(model, task, "operand", [Swap(site, basis)], n=2),
    }  # fmt: skip


def _run(model: Any, batch: Any, patch: Patch) -> None:
    with patched(model, [patch]):
        model(batch.tokens)


BASES = {
    "too narrow": (lambda: torch.eye(10)[:2], "rows of size 16"),
    "too wide": (lambda: torch.eye(20)[:2], "rows of size 16"),
    "of whole numbers": (lambda: torch.eye(16, dtype=torch.long)[:2], "floating-point"),
    "not finite": (lambda: torch.eye(16)[:2] * torch.tensor(float("nan")), "finite"),
    "not orthonormal": (lambda: torch.ones(2, 16), "orthonormal"),
    "one row": (lambda: torch.eye(16)[0], r"\[rank, d\]"),
    "elsewhere": (lambda: torch.eye(16, device="meta")[:2], "where the model is"),
}


@pytest.mark.parametrize("wrong", BASES)
def test_bases_that_do_not_fit_are_refused_everywhere(inplace, wrong):
    make, message = BASES[wrong]
    for name, enter in entries(random_model(inplace), inplace, SITE, make()).items():
        with pytest.raises(ValueError, match=message):
            enter()
            pytest.fail(name)


def test_bases_of_any_floating_dtype_are_cast(inplace):
    model: Any = random_model(inplace)
    basis = random_basis(3, 16, generator=torch.Generator().manual_seed(0))
    batch, other = inplace.sample(6, seed=0), inplace.sample(6, seed=1)
    found = [patch_from(model, batch, other, SITE, task=inplace, basis=each) for each in (basis, basis.double())]
    torch.testing.assert_close(*found)
    double = model.double()
    logits = patch_from(double, batch, other, SITE, task=inplace, basis=basis)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits.float(), found[0], atol=1e-4, rtol=1e-4)
    assert fit_das(double, inplace, "operand", SITE, rank=2, config=QUICK).basis.dtype == torch.float64


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.1.mlp.hook_post", "hook_embed"])
def test_a_head_where_there_are_none_is_refused_everywhere(inplace, hook):
    model: Any = random_model(inplace)
    site = Site(hook, "cells", head=1)
    batch = inplace.sample(4, seed=0)
    ways = entries(model, inplace, site, None)
    ways["collect"] = lambda: collect(model, batch, [site], task=inplace)
    ways["ablate"] = lambda: ablate(model, batch, site, kind="zero", reference=batch, task=inplace)
    ways["fit_das"] = lambda: fit_das(model, inplace, "operand", site, rank=1, config=QUICK)
    ways["das_rows"] = lambda: das_rows(model, inplace, "operand", site, rank=1, config=QUICK)
    ways["mean_difference_basis"] = lambda: mean_difference_basis(model, inplace, "operand", site)
    ways["joint_rows"] = lambda: joint_rows(model, inplace, ["operand", "op"], [site, site], n_pairs=4)
    ways["named_sites"] = lambda: named_sites(model, [f"{hook}[*]"], ["cells"])
    ways["read_positions"] = lambda: read_positions(
        torch.zeros(1, 3, 4), model.axes(hook), hook, positions=torch.zeros(1, 1, dtype=torch.long), head=1
    )
    for name, enter in ways.items():
        with pytest.raises(ValueError, match="an axis of heads; at"):
            enter()
            pytest.fail(name)


def test_axes_are_asked_for(inplace):
    """Heads stand behind positions, or before two of them; a recurrent net's hooks have other names and other axes."""
    model: Any = random_model(inplace)
    batch = inplace.sample(3, seed=0)
    _, cache = model.run_with_cache(batch.tokens)
    for hook, axes in ((name, model.axes(name)) for name in cache if name in model.hook_dict):
        sites = [Site(hook, "cells")] + ([Site(hook, "cells", head=1)] if "head" in axes else [])
        found = collect(model, batch, sites, task=inplace)
        whole = cache[hook].transpose(1, 2) if axes[1] == "head" else cache[hook]
        cells = inplace.spec.layout.slice("cells")
        torch.testing.assert_close(found[sites[0]], whole[:, cells])
        if len(sites) > 1:
            torch.testing.assert_close(found[sites[1]], whole[:, cells, 1])
    config = GRUConfig(d_vocab=inplace.spec.d_vocab, n_ctx=inplace.n_ctx, n_layers=2, d_model=8)
    net: Any = GRU(config).eval()
    _, cache = net.run_with_cache(batch.tokens)
    for hook in cache:
        if "head" not in net.axes(hook):
            site = Site(hook, "cells")
            torch.testing.assert_close(
                collect(net, batch, [site], task=inplace)[site], cache[hook][:, inplace.spec.layout.slice("cells")]
            )


def test_layers_are_as_declared(inplace):
    model: Any = random_model(inplace, n_layers=3)
    assert entry_point(model, "blocks.1.hook_resid_post") == (2, True)
    assert entry_point(model, "blocks.2.hook_resid_post") == (3, True)
    assert entry_point(model, "blocks.0.hook_resid_pre") == (0, False)
    assert entry_point(model, "blocks.2.attn.hook_z") == (2, False)
    assert entry_point(model, "hook_embed") == entry_point(model, "ln_final.hook_normalized") == (-1, False)
    assert stop_layer(model, ["blocks.0.hook_resid_post", "blocks.1.mlp.hook_post"]) == 2
    assert stop_layer(model, ["blocks.2.hook_resid_post"]) is None
    assert stop_layer(model, ["hook_embed"]) is None


class Plain(HookedRootModule):
    """A wrapper that declares nothing: hooks and forward are the model's."""

    def __init__(self, model: Any):
        super().__init__()
        self.inner = model
        self.cfg = model.cfg
        self.embed, self.blocks = model.embed, model.blocks
        self.hook_embed, self.ln_final = model.hook_embed, model.ln_final

    def forward(self, tokens: torch.Tensor, **options: Any) -> torch.Tensor:
        return self.inner(tokens, **options)


def test_a_plain_model_goes_by_transformer_lens_s_names(inplace):
    """The facts that fall back on names are the ones that the transformer declares."""
    model: Any = random_model(inplace)
    plain: Any = Plain(model)
    plain.hook_dict, plain.mod_dict = model.hook_dict, model.mod_dict
    assert not hasattr(plain, "axes")
    hooks = [name for name in model.hook_dict if model.axes(name) and "_norm." not in name]  # norms of queries and keys
    for hook in hooks:
        axes = axes_of(plain, hook)
        assert axes[:-1] == model.axes(hook)[:-1], hook  # the last is named by its size alone
        assert layer_of(plain, hook) == model.layer_of(hook)
    assert residual_hooks(plain) == model.residual_hooks()
    assert can_enter_layers(plain)
    batch, other = inplace.sample(4, seed=0), inplace.sample(4, seed=1)
    for site in (
        SITE,
        Site("blocks.1.attn.hook_z", "cells", head=1),
        Site("blocks.0.attn.hook_pattern", "cells", head=0),
    ):
        found = [patch_from(each, batch, other, site, task=inplace) for each in (model, plain)]
        torch.testing.assert_close(*found)


def test_fits_switch_gradients_on_for_themselves(inplace):
    model: Any = random_model(inplace)
    expected = fit_das(model, inplace, "operand", SITE, rank=1, config=QUICK)
    with torch.no_grad():
        silent = fit_das(model, inplace, "operand", SITE, rank=1, config=QUICK)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        inferring = fit_das(model, inplace, "operand", SITE, rank=1, config=QUICK)
        rows = das_rows(model, inplace, "operand", SITE, rank=1, config=QUICK)[1]
        assert torch.is_inference_mode_enabled()
    assert silent.losses == inferring.losses == expected.losses
    torch.testing.assert_close(inferring.basis, expected.basis)
    assert rows
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_positions_without_a_task_are_names_alone(inplace):
    model: Any = random_model(inplace)
    batch = inplace.sample(4, seed=0)
    site, pointed = Site(SITE.hook, "cells[1]"), Site(SITE.hook, "cells[@array_ptr]")
    names = inplace.position_names
    torch.testing.assert_close(
        collect(model, batch, [site], position_names=names)[site], collect(model, batch, [site], task=inplace)[site]
    )
    with pytest.raises(ValueError, match="give the task, which reads it"):
        collect(model, batch, [pointed], position_names=names)
    with pytest.raises(ValueError, match="give the task, or the names"):
        collect(model, batch, [site])


def test_joint_pairs_refuse_what_cannot_be_set(inplace):
    with pytest.raises(ValueError, match="can be read but not set"):
        JointPairs.draw(inplace, ["op", "loop_depth"], n_pairs=4, seed=0)
