"""Caches cut at positions, with gradients, and without a batch dimension, at every hook point."""

from typing import Any

import pytest
import torch
from transformer_lens.utilities.slice import Slice

CUTS: list[tuple[Any, Any]] = [  # pos_slice, the positions that it keeps
    (-1, [8]),
    (2, [2]),
    (slice(1, 4), [1, 2, 3]),
    (slice(None, None, 3), [0, 3, 6]),
    ((3,), [0, 1, 2]),
    ((1, 7, 2), [1, 3, 5]),
    ([5, 0], [5, 0]),
    (torch.tensor([4, 4]), [4, 4]),
    (Slice((2, 4)), [2, 3]),
    (Slice([7]), [7]),
    (None, list(range(9))),
]


def position_axis(model: Any, name: str) -> int:
    """Which axis counts positions, or the queries' positions; test_facts holds the axes against shapes."""
    axes = model.axes(name)
    return axes.index("query_pos" if "query_pos" in axes else "pos")


@torch.no_grad()
@pytest.mark.parametrize(("pos_slice", "kept"), CUTS, ids=[str(cut) for cut, _ in CUTS])
def test_positions_are_cut_along_their_axis(case, pos_slice, kept):
    for switches in ({"use_split_qkv_input"}, {"use_attn_in"}):
        for switch in sorted(set(case.model.switches.values()) - {"use_split_qkv_input", "use_attn_in"} | switches):
            getattr(case.model, f"set_{switch}")(True)
        _, full = case.model.run_with_cache(case.tokens)
        cut_dict, fwd, _ = case.model.get_caching_hooks(pos_slice=pos_slice)
        case.model.run_with_hooks(case.tokens, fwd_hooks=fwd)
        _, cut = case.model.run_with_cache(case.tokens, pos_slice=pos_slice)
        assert set(cut) == set(full) == set(cut_dict)
        for name in full:
            axis = position_axis(case.model, name)
            expected = full[name].index_select(axis, torch.tensor(kept))
            torch.testing.assert_close(cut[name], expected, atol=0, rtol=0, msg=name)
            torch.testing.assert_close(cut_dict[name], expected, atol=0, rtol=0, msg=name)
        for switch in switches:
            getattr(case.model, f"set_{switch}")(False)


@torch.no_grad()
def test_one_position_of_one_row(case):
    """The axis goes with Slice(int), the batch with remove_batch_dim; neither takes a head for a position."""
    case.switch()
    _, full = case.model.run_with_cache(case.tokens[:1])
    _, cut = case.model.run_with_cache(case.tokens[:1], pos_slice=Slice(3), remove_batch_dim=True)
    for name in full:
        axis = position_axis(case.model, name)
        torch.testing.assert_close(cut[name], full[name].select(axis, 3)[0], atol=0, rtol=0, msg=name)
    with pytest.raises(ValueError, match="remove_batch_dim needs a batch of 1; got 3 rows"):
        case.model.run_with_cache(case.tokens, remove_batch_dim=True)


def test_gradients_of_a_metric(case):
    """Against autograd on a stream that is a leaf, and by the definition of a derivative."""
    model = case.model
    if not model.can_enter_layers:
        pytest.skip("no stream to differentiate by itself")
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)

    def metric(logits):
        return logits[:, -1, 0].sum() - logits[:, 2, 1].square().sum()

    resid = model(case.tokens, stop_at_layer=1).detach().requires_grad_()
    (expected,) = torch.autograd.grad(metric(model(resid, start_at_layer=1)), resid)
    with torch.no_grad():  # switched on where it is needed
        out, cache = model.run_with_cache(case.tokens, incl_bwd=True, metric=metric)
    torch.testing.assert_close(out, model(case.tokens))
    torch.testing.assert_close(cache["blocks.1.hook_resid_pre_grad"], expected)
    assert {name.removesuffix("_grad") for name in cache if name.endswith("_grad")} == set(model.matching_hooks())
    assert all((p.grad == 1).all() for p in model.parameters())  # left as they were
    _, cut = model.run_with_cache(case.tokens, incl_bwd=True, metric=metric, pos_slice=2, names_filter="hook_embed")
    torch.testing.assert_close(cut["hook_embed_grad"], cache["hook_embed_grad"][:, 2:3])
    assert set(cut) == {"hook_embed", "hook_embed_grad"}


def test_gradients_of_caching_hooks(case):
    """The same gradients where the user runs the passes."""
    model = case.model
    _, expected = model.run_with_cache(case.tokens, incl_bwd=True, metric=lambda logits: logits[:, 2, 1].sum())
    added = model.add_caching_hooks(incl_bwd=True)
    model(case.tokens)[:, 2, 1].sum().backward()
    model.reset_hooks()
    given, fwd, bwd = model.get_caching_hooks(incl_bwd=True)
    with model.hooks(fwd, bwd):
        model(case.tokens)[:, 2, 1].sum().backward()
    assert set(added) == set(given) == set(expected)
    for name in expected:
        torch.testing.assert_close(added[name], expected[name], msg=name)
        torch.testing.assert_close(given[name], expected[name], msg=name)
    assert not any(model.list_hooks().values())


def test_gradients_need_a_scalar(case):
    run = case.model.run_with_cache
    with pytest.raises(ValueError, match="incl_bwd=True needs a scalar to differentiate: pass metric"):
        run(case.tokens, incl_bwd=True)
    with pytest.raises(ValueError, match=r"must be one number, a scalar tensor; got \[3, 9, 13\]"):
        run(case.tokens, incl_bwd=True, metric=lambda logits: logits)
    with pytest.raises(ValueError, match="got float"):
        run(case.tokens, incl_bwd=True, metric=lambda logits: 0.5)
    with pytest.raises(ValueError, match="must be computed from forward's output with gradients"):
        run(case.tokens, incl_bwd=True, metric=lambda logits: logits.detach().sum())
    with pytest.raises(ValueError, match="pass both or neither"):
        run(case.tokens, metric=lambda logits: logits.sum())
    if case.model.is_causal:
        loss, cache = run(case.tokens, incl_bwd=True, return_type="loss")
        _, given = run(case.tokens, incl_bwd=True, metric=lambda logits: case.model.loss_fn(logits, case.tokens))
        torch.testing.assert_close(loss, case.model(case.tokens, return_type="loss"))
        torch.testing.assert_close(cache["hook_embed_grad"], given["hook_embed_grad"])
    assert not any(case.model.list_hooks().values())
