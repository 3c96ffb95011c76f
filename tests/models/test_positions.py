"""Position schemes: what each adds or turns, and models at other contexts than they were trained at."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from cython_vm import MachineSpec
from interp.models import Transformer, TransformerConfig, build_model, resize
from interp.models.householder_positions import path_scores
from interp.tasks import StepInplace

CFG = TransformerConfig(d_vocab=13, n_ctx=9, n_layers=2, n_heads=2, d_model=16, d_head=6, qk_norm=True)


def shaken(cfg: TransformerConfig) -> Any:
    """A model in eval mode with every parameter moved off its initial value."""
    model = build_model(cfg).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def machine_config(spec: MachineSpec, **changes: Any) -> TransformerConfig:
    task = StepInplace(spec)
    return replace(
        CFG,
        d_vocab=len(task.vocab),
        n_ctx=task.n_ctx,
        attention_dir="bidirectional",
        positional_embedding_type="block",
        position_roles=task.position_roles,
        position_indices=task.position_indices,
        **changes,
    )


SMALL = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=2, bits=2)
LARGE = MachineSpec(n_instructions=7, n_cells=5, n_input=2, n_output=3, bits=2)


def test_sinusoidal_positions():
    model = shaken(replace(CFG, positional_embedding_type="sinusoidal", init_range=0.5))
    torch.testing.assert_close(model.W_pos.square().mean().sqrt(), torch.tensor(0.5))  # of sines and cosines together
    waves = model.W_pos / (2**0.5 * 0.5)
    for dim in (0, 1, 6, 7):
        angle = 5 / 10_000 ** (2 * (dim // 2) / 16)
        assert float(waves[5, dim].detach()) == pytest.approx([math.sin, math.cos][dim % 2](angle), abs=1e-6)
    assert "pos_embed.W_pos" not in model.state_dict()  # computed, not learned


def test_rotation_is_a_complex_product():
    """Dimension i with i + d_head / 2 is a complex number, turned by place * base ** (-2 i / d_head)."""
    model = shaken(replace(CFG, positional_embedding_type="rotary", rotary_base=100))
    tokens = torch.randint(13, (2, 9), generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(tokens)
    rates = 100 ** (-2 * torch.arange(3) / 6)
    turn = torch.polar(torch.ones(9, 3), torch.arange(9)[:, None] * rates)[None, :, None]
    for name in "qk":
        before, after = cache[name, 0], cache[f"rot_{name}", 0]
        turned = torch.complex(before[..., :3], before[..., 3:]) * turn
        torch.testing.assert_close(after, torch.cat([turned.real, turned.imag], dim=-1))
    assert "hook_pos_embed" not in model.hook_dict
    assert not model.W_pos.any()


def test_rotary_sees_distances_alone():
    """What a token sees of equal tokens at equal distances is the same wherever they stand."""
    model = shaken(replace(CFG, positional_embedding_type="rotary", attention_chunk=2))
    tokens = torch.tensor([[1, 2, 3, 4, 5, 1, 2, 3, 4]])
    _, cache = model.run_with_cache(tokens)
    scores = cache["attn_scores", 0]
    torch.testing.assert_close(scores[..., 3, 2], scores[..., 8, 7])
    torch.testing.assert_close(scores[..., 2, 1], scores[..., 7, 6])
    assert not torch.allclose(scores[..., 3, 1], scores[..., 8, 7])


def test_block_rotary_aligns_blocks():
    """A query is turned by its slot's index, so index i of one block and index i of another differ by no rotation."""
    model = shaken(
        replace(
            CFG,
            positional_embedding_type="block_rotary",
            position_roles=(0, 1, 1, 1, 2, 3, 3, 3, 4),
            position_indices=(0, 0, 1, 2, 0, 0, 1, 2, 0),
        )
    )
    x = torch.randn(1, 1, 2, 6, generator=torch.Generator().manual_seed(1)).expand(-1, 9, -1, -1)
    turned = model.blocks[0].attn.rotary(x)
    assert torch.equal(turned[:, 1:4], turned[:, 5:8])
    assert not torch.allclose(turned[:, 1], turned[:, 2])
    torch.testing.assert_close(model.W_pos[[1, 5]], model.pos_embed.W_role[[1, 3]])


def test_indices_are_shifted_in_training():
    cfg = machine_config(SMALL, index_table_size=8)
    model = shaken(cfg)
    assert not hasattr(model.pos_embed, "W_flat")
    task = StepInplace(SMALL)
    tokens = task.sample(400, seed=0).tokens
    plain = model(tokens)
    offsets = model.pos_embed.offsets(tokens)
    layout = SMALL.layout
    for pointer, pointed in (("instruction_ptr", "instructions"), ("array_ptr", "cells")):
        assert torch.equal(offsets[:, layout.slice(pointer)][:, :1], offsets[:, layout.slice(pointed)][:, :1])
        assert (offsets[:, layout.slice(pointed)].diff(dim=1) == 0).all()  # a block moves as one
    for block, size in (("instructions", 4), ("cells", 3)):
        counts = offsets[:, layout.position(block, 0)].bincount(minlength=8)
        assert (counts[: 8 - size + 1] > 20).all()  # every start that fits
        assert not counts[8 - size + 1 :].any()
    assert not offsets[:, 0].any()  # a brace stays

    model.train()
    shifted = model(tokens)
    assert torch.equal(shifted, model(tokens))  # a function of the row
    torch.testing.assert_close(shifted[7:9], model(tokens[7:9]))  # whatever else is in the batch
    still = (offsets == 0).all(dim=1)
    torch.testing.assert_close(shifted[still], plain[still])
    assert not torch.isclose(shifted, plain).all(-1).all(-1)[~still].any()
    model.zero_grad()
    shifted.square().sum().backward()
    assert (model.pos_embed.W_index.grad.abs().sum(dim=1) > 0).all()  # every row learns

    model.eval()
    model.pos_embed.offset = 2
    later = machine_config(SMALL, index_table_size=8)
    starts = [2 * int(most > 0) for most in offsets.amax(0)]
    indices = tuple(index + start for index, start in zip(later.position_indices, starts, strict=True))
    later = replace(later, position_indices=indices)
    torch.testing.assert_close(model(tokens), resize(model, later)(tokens))
    with pytest.raises(ValueError, match="offset must be from 0 to 4 .* got 5"):
        model.pos_embed.offset = 5


def test_resize_to_the_same_is_the_same(case):
    torch.testing.assert_close(resize(case.model, case.model.cfg)(case.tokens), case.model(case.tokens))


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal", "rotary", "none", "alibi", "path"])
def test_a_longer_context_keeps_what_was_known(scheme):
    model = shaken(replace(CFG, positional_embedding_type=scheme))
    model.vocab = tuple("ABCDEFGHIJKLM")
    longer: Any = resize(model, replace(CFG, positional_embedding_type=scheme, n_ctx=20))
    tokens = torch.randint(13, (2, 20), generator=torch.Generator().manual_seed(0))
    assert longer(tokens).shape == (2, 20, 13)
    torch.testing.assert_close(longer(tokens)[:, :9], model(tokens[:, :9]))
    assert (longer.vocab, longer.training) == (model.vocab, False)
    if scheme == "learned":  # honest: what was never trained is as drawn
        drawn: Any = build_model(longer.cfg)
        torch.testing.assert_close(longer.W_pos[9:], drawn.W_pos[9:])
    again = resize(longer, model.cfg)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("scheme", ["block", "block_rotary"])
def test_a_larger_machine_keeps_slots_by_name(scheme):
    changes = {"positional_embedding_type": scheme}
    model = shaken(replace(machine_config(SMALL), **changes))
    larger: Any = resize(model, replace(machine_config(LARGE), **changes))
    for position in range(model.cfg.n_ctx):
        place = LARGE.layout.names.index(SMALL.layout.names[position])
        torch.testing.assert_close(larger.W_pos[place], model.W_pos[position])
    new = LARGE.layout.position("cells", 4)
    role = larger.cfg.position_roles[new]
    expected = model.pos_embed.W_role[role]
    if scheme == "block":  # an index that the small machine's cells never had
        expected = expected + larger.pos_embed.W_index[4]
        assert not larger.pos_embed.W_flat[new].any()
    torch.testing.assert_close(larger.W_pos[new], expected)
    logits = larger(StepInplace(LARGE).sample(3, seed=0).tokens)
    assert logits.isfinite().all()
    torch.testing.assert_close(resize(larger, model.cfg).W_pos, model.W_pos)


def test_resize_refuses_another_model():
    model = Transformer(CFG)
    with pytest.raises(ValueError, match="resize keeps n_heads=2; got 1"):
        resize(model, replace(CFG, n_heads=1))
    with pytest.raises(ValueError, match="resize keeps positional_embedding_type='learned'; got 'none'"):
        resize(model, replace(CFG, positional_embedding_type="none"))
    shifted = build_model(machine_config(SMALL, index_table_size=8))
    with pytest.raises(ValueError, match="kind of index table; got 0 for index_table_size"):
        resize(shifted, machine_config(SMALL))


def test_a_turned_part_leaves_the_other_dimensions_alone():
    blocks: dict[str, Any] = {"position_roles": (0, 0, 1, 1), "position_indices": (0, 1, 0, 1)}
    model: Any = build_model(replace(CFG, n_ctx=4, positional_embedding_type="block", rotary_dim=2, **blocks))
    d_head = model.cfg.d_head
    x = torch.randn(1, 4, 1, d_head, generator=torch.Generator().manual_seed(0)).expand(1, 4, 2, d_head)
    turned = model.blocks[0].attn.rotary(x)
    assert torch.equal(turned[..., 2:], x[..., 2:])
    assert torch.equal(turned[:, [0, 2]], x[:, [0, 2]]) and not torch.equal(turned[:, 1, :, :2], x[:, 1, :, :2])


def test_waves_make_neighbours_a_fixed_rotation_apart():
    blocks: dict[str, Any] = {"position_roles": (0,) * 12, "position_indices": tuple(range(12))}
    model: Any = build_model(
        replace(CFG, n_ctx=12, positional_embedding_type="block", index_init="sinusoidal", **blocks)
    )
    W = model.pos_embed.W_index.detach().double()
    shift = torch.linalg.lstsq(W[:-2], W[1:-1]).solution  # one linear map takes every index to the next
    assert torch.allclose(W[-2] @ shift, W[-1], atol=0.2 * float(W.norm(dim=1).max()))
    assert W.square().mean().sqrt() == pytest.approx(model.cfg.init_range, rel=0.2)


def brute_force_scores(q, k, w, beta, *, causal: bool) -> torch.Tensor:
    """PaTH's scores key by key and token by token, [batch, head, query_pos, key_pos]."""
    n_queries, n_keys = q.shape[2], k.shape[2]
    scores = q.new_zeros(*q.shape[:3], n_keys)
    for query in range(n_keys - n_queries, n_keys):
        for key in range(n_keys if not causal else query + 1):
            row, (early, late) = query - (n_keys - n_queries), sorted((query, key))
            carried, met = (k[:, :, key], q[:, :, row]) if key <= query else (q[:, :, row], k[:, :, key])
            for s in range(early + 1, late + 1):
                along = (w[:, :, s] * carried).sum(-1, keepdim=True)
                carried = carried - beta[:, :, s, None] * w[:, :, s] * along
            scores[:, :, row, key] = (carried * met).sum(-1)
    return scores


@pytest.mark.parametrize(("pos", "n_queries", "chunk"), [(21, 21, 8), (21, 21, 32), (16, 16, 8), (21, 5, 8), (9, 1, 4)])
def test_path_equals_brute_force(pos, n_queries, chunk):
    generator = torch.Generator().manual_seed(0)
    q, k, w = (torch.randn(2, 3, pos, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    w, beta = torch.nn.functional.normalize(w, dim=-1), 2 * torch.rand(2, 3, pos, generator=generator).double()
    for causal in (True, False) if n_queries == pos else (True,):
        given = [q[:, :, -n_queries:], k, w, beta]
        found = path_scores(*given, causal=causal, chunk=chunk)
        torch.testing.assert_close(found, brute_force_scores(*given, causal=causal), atol=1e-10, rtol=0)
        single = path_scores(*(each.float() for each in given), causal=causal, chunk=chunk)
        torch.testing.assert_close(single.double(), found, atol=1e-4, rtol=0)


def test_gradients_of_path():
    generator = torch.Generator().manual_seed(0)
    q, k, w = (torch.randn(1, 2, 7, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    beta = (2 * torch.rand(1, 2, 7, generator=generator).double()).requires_grad_()
    for causal in (True, False):
        assert torch.autograd.gradcheck(lambda *given: path_scores(*given, causal=causal, chunk=3), (q, k, w, beta))  # noqa: B023


@torch.no_grad()
def test_path_counts_what_lies_between():
    """With β = 2 along one direction each marked token flips it: scores tell odd distances from even ones."""
    q = torch.ones(1, 1, 6, 2)
    w = torch.tensor([0.0, 1.0]).expand(1, 1, 6, 2)
    marked = torch.tensor([[[0.0, 2.0, 2.0, 0.0, 2.0, 0.0]]])
    flips = marked[0, 0].cumsum(0) / 2
    parity = (flips[:, None] - flips[None, :]) % 2  # marked tokens after the key, up to the query
    torch.testing.assert_close(path_scores(q, q, w, marked)[0, 0], (1 + (-1) ** parity).tril())


def test_path_in_the_model():
    """The model's own w and β make its scores; taking a token's β away takes it off every path over it."""
    for direction in ("causal", "bidirectional"):
        model = shaken(replace(CFG, positional_embedding_type="path", attention_dir=direction)).double()
        tokens = torch.randint(13, (2, 9), generator=torch.Generator().manual_seed(0))
        _, cache = model.run_with_cache(tokens)
        q, k, w = (cache[f"blocks.0.attn.hook_{name}"].transpose(1, 2) for name in "qkw")
        beta = cache["blocks.0.attn.hook_beta"].transpose(1, 2)
        torch.testing.assert_close(w.norm(dim=-1), torch.ones_like(beta))
        assert 0 < beta.min() < 1 < beta.max() < 2
        expected = brute_force_scores(q, k, w, beta, causal=direction == "causal") / 6**0.5
        visible = cache["attn_scores", 0].isfinite()
        torch.testing.assert_close(cache["attn_scores", 0][visible], expected[visible])

    def without(act, hook):
        act[:, 4] = 0.0
        return act

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_beta", without)]):
        _, edited = model.run_with_cache(tokens, names_filter="blocks.0.attn.hook_attn_scores")
    moved = ~torch.isclose(edited["attn_scores", 0], cache["attn_scores", 0]).all(0).all(0)
    early, late = (
        torch.minimum(*(indices := torch.meshgrid(*[torch.arange(9)] * 2, indexing="ij"))),
        torch.maximum(*indices),
    )
    assert torch.equal(moved, (early < 4) & (late >= 4))


def test_alibi_falls_with_the_distance():
    model = shaken(replace(CFG, n_heads=3, positional_embedding_type="alibi"))
    tokens = torch.randint(13, (2, 9), generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(tokens)
    products = torch.einsum("bqhd,bkhd->bhqk", cache["q", 0], cache["k", 0]) / 6**0.5
    slopes = torch.tensor([2.0**-4, 2.0**-8, 2.0**-2])  # of two heads, then the first of four
    distance = torch.arange(9)[:, None] - torch.arange(9)
    future = torch.ones(9, 9, dtype=torch.bool).triu(1)
    expected = (products - slopes[:, None, None] * distance).masked_fill(future, -torch.inf)
    torch.testing.assert_close(cache["attn_scores", 0], expected)
    eight = shaken(replace(CFG, n_heads=8, positional_embedding_type="alibi"))
    torch.testing.assert_close(
        eight.blocks[0].attn.distance_bias.slopes, 2.0 ** -torch.arange(1, 9)
    )  # the paper's: 1/2, 1/4, …, 1/256


def test_randomised_positions():
    cfg = replace(CFG, positional_embedding_type="randomised", position_range=40)
    model = shaken(cfg)
    tokens = torch.randint(13, (3000, 9), generator=torch.Generator().manual_seed(0))
    positions = model.pos_embed
    assert torch.equal(
        model.W_pos, positions.W_range[[2, 6, 11, 15, 20, 24, 28, 33, 37]]
    )  # of eval mode: 40 (i + ½) / 9
    drawn = positions.drawn(tokens)
    assert (drawn.diff(dim=1) > 0).all()
    assert (drawn.min() >= 0) and (drawn.max() < 40)
    share = drawn.flatten().bincount(minlength=40) / len(tokens)  # each place in 9 of 40 rows
    assert (share - 9 / 40).abs().max() < 0.05
    both = (drawn[:, :, None] == drawn[:, :1, None] + 1).any(1).float().mean()  # no place repels its neighbour
    assert both == pytest.approx(8 / 39, abs=0.05)
    with torch.no_grad():
        plain = model(tokens[:50])
        model.train()
        shifted = model(tokens[:50])
        assert torch.equal(shifted, model(tokens[:50]))  # a function of the row
        torch.testing.assert_close(shifted[7:9], model(tokens[7:9]))  # whatever else is in the batch
        assert not torch.isclose(shifted, plain).all(-1).all(-1).any()
        with pytest.raises(ValueError, match="drawn at random in train mode; decode in eval mode"):
            past = model.new_cache(2)
            model(tokens[:2, :4], past_kv_cache=past)
            model(tokens[:2, 4:], past_kv_cache=past)
    longer: Any = resize(model, replace(cfg, n_ctx=20))
    assert torch.equal(longer.pos_embed.W_range, positions.W_range)  # the same range, more closely spaced
    assert torch.equal(longer.pos_embed.places, torch.arange(20) * 2 + 1)
    with pytest.raises(ValueError, match="resize keeps position_range=40; got 50"):
        resize(model, replace(cfg, position_range=50))
