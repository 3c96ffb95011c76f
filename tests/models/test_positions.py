"""Position schemes: what each adds or turns, and models at other contexts than they were trained at."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from cython_vm import MachineSpec
from interp.models import Transformer, TransformerConfig, build_model, resize
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


@pytest.mark.parametrize("scheme", ["learned", "sinusoidal", "rotary", "none"])
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
