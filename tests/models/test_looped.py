"""The looped transformer against what it must equal: an untied transformer, gradients by hand, rules by hand."""

from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from interp.models import TransformerConfig, build_model
from interp.models.halting import adaptive_weights, first_step, halting_distribution, movement, step_weights
from interp.models.looped_config import LoopedConfig
from interp.models.looped_training import objective, row_losses

CFG = LoopedConfig(
    d_vocab=13, n_ctx=9, n_layers=2, n_heads=2, d_model=16, seed=3, n_loops=3, attention_dir="bidirectional"
)
TOKENS = torch.randint(13, (3, 9), generator=torch.Generator().manual_seed(0))


def built(**changes) -> Any:
    model = build_model(replace(CFG, **changes)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


@torch.no_grad()
def test_the_unrolled_loop_is_an_untied_transformer_with_copied_weights():
    model = built(injection="none", n_prelude=1, n_coda=1)
    shared = {f.name: getattr(model.cfg.as_written, f.name) for f in fields(TransformerConfig)}
    untied = build_model(TransformerConfig(**(shared | {"architecture": "transformer", "n_layers": 8}))).eval()
    weights = model.state_dict()
    copied = {k: v for k, v in weights.items() if k.split(".")[0] in ("embed", "pos_embed", "ln_final", "unembed")}
    order = ["prelude.blocks.0", *["core.0", "core.1"] * 3, "coda.blocks.0"]
    for layer, part in enumerate(order):
        copied |= {f"blocks.{layer}.{k[len(part) + 1 :]}": v for k, v in weights.items() if k.startswith(f"{part}.")}
    untied.load_state_dict(copied)
    logits, cache = model.run_with_cache(TOKENS)
    expected, unrolled = untied.run_with_cache(TOKENS)
    torch.testing.assert_close(logits, expected)
    for name in model.hook_dict:  # and at every hook point of every step
        layer = model.layer_of(name)
        if layer is not None and name in cache.cache_dict:
            inside = name[name.index("blocks.") :].split(".", 2)[2]
            torch.testing.assert_close(cache[name], unrolled[f"blocks.{layer}.{inside}"])
    assert len([name for name in weights if name.endswith("qkv.weight")]) == 4  # shared weights are held once
    assert not [name for name in weights if name.startswith("steps.")]


@torch.no_grad()
def test_a_patch_at_one_step_touches_that_step_alone():
    model = built()
    _, clean = model.run_with_cache(TOKENS)
    with model.hooks(fwd_hooks=[("steps.1.blocks.0.mlp.hook_post", lambda act, hook: act * 0)]):
        _, cut = model.run_with_cache(TOKENS)
    assert torch.equal(clean["steps.0.hook_carry"], cut["steps.0.hook_carry"])
    assert torch.equal(clean["steps.1.blocks.0.hook_resid_mid"], cut["steps.1.blocks.0.hook_resid_mid"])
    assert cut["steps.1.blocks.0.hook_mlp_out"].sub(model.core[0].mlp.fc_out.bias).abs().max() < 1e-6
    assert not torch.allclose(cut["steps.2.blocks.0.hook_mlp_out"], cut["steps.1.blocks.0.hook_mlp_out"], atol=1e-3)
    for t in range(3):
        assert torch.equal(cut["hook_carry"][:, t], cut[f"steps.{t}.hook_carry"])


@torch.no_grad()
def test_the_carry_of_another_run_gives_what_follows_from_it():
    """With the input's part (injected at every step) taken too, the carry after any step decides the answer."""
    model, other = built(n_coda=1), (TOKENS + 1) % 13
    expected, cache = model.run_with_cache(other)
    for t in range(3):
        put = [(name, lambda act, hook: cache[hook.name]) for name in ("hook_input", f"steps.{t}.hook_carry")]
        torch.testing.assert_close(model.run_with_hooks(TOKENS, fwd_hooks=put), expected, atol=1e-5, rtol=0)

        def stacked(act, hook, t=t):
            act[:, t] = cache["hook_carry"][:, t]
            return act

        one_by_one = model.run_with_hooks(
            TOKENS, fwd_hooks=[(f"steps.{t}.hook_carry", lambda act, hook: cache[hook.name])]
        )
        assert not torch.allclose(one_by_one, model(TOKENS), atol=1e-3)
        torch.testing.assert_close(model.run_with_hooks(TOKENS, fwd_hooks=[("hook_carry", stacked)]), one_by_one)


def test_the_gradient_through_the_last_steps_by_hand():
    model = built()
    batch = SimpleNamespace(tokens=TOKENS, targets=TOKENS)
    task = SimpleNamespace(loss=lambda logits, batch: F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))
    model.cfg = replace(model.cfg.as_written, backprop_steps=1)
    objective(model, task, batch, torch.Generator())[0].backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    injected = model._embed(TOKENS)
    with torch.no_grad():
        carry = torch.zeros_like(injected)
        for _ in range(2):
            carry = model.core[1](model.core[0](carry + injected))
    last = model.core[1](model.core[0](carry + injected))
    task.loss(model.unembed(model.ln_final(last)), batch).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_halting_is_each_rows_own():
    model = built(halting="fixed_point", halt_threshold=0.3, n_loops=6, carry_norm=True)
    with torch.no_grad():
        thoughts = model(TOKENS, thoughts=True)
        moved = movement(thoughts.carries)
        model.cfg = replace(model.cfg.as_written, halt_threshold=float(moved[:, 1:].median()))
        thoughts = model(TOKENS, thoughts=True)
        stops = thoughts.weights.argmax(1)
        assert len(set(stops.tolist())) > 1  # rows stop at different steps
        together = model(TOKENS)
        for row in range(3):
            torch.testing.assert_close(model(TOKENS[row : row + 1]), together[row : row + 1], atol=1e-5, rtol=0)
            torch.testing.assert_close(together[row], thoughts.logits[row, stops[row]])
            with model.looping(int(stops[row]) + 1):
                torch.testing.assert_close(model(TOKENS)[row], together[row], atol=1e-5, rtol=0)
        with pytest.raises(ValueError, match="from 1 to max_loops = 6; got 7"):
            model(TOKENS, loop_steps=7)


def test_halting_rules_by_hand():
    chances = torch.tensor([[0.5, 0.25, 0.5], [0.999, 0.1, 0.1]])
    logits = torch.logit(chances)
    torch.testing.assert_close(
        halting_distribution(logits), torch.tensor([[0.5, 0.125, 0.375], [0.999, 0.0001, 0.0009]])
    )
    weights, ponder_time = adaptive_weights(logits)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]))
    torch.testing.assert_close(ponder_time, torch.tensor([3.25, 2.0]))  # N + R
    assert first_step(torch.tensor([[False, True, True], [False, False, False]])).tolist() == [1, 2]
    carries = torch.tensor([1.0, 2.0, 1.0, 2.0]).view(1, 4, 1, 1)
    assert movement(carries)[0].tolist() == [float("inf"), 0.5, 1.0, 0.5]
    assert movement(carries, periods=2)[0].tolist() == [float("inf"), 0.5, 0.0, 0.0]  # a cycle of two stands still
    cycle = step_weights("fixed_point", carries, None, threshold=0.1, periods=2)
    assert cycle.argmax(1).tolist() == [2]
    assert step_weights("right", carries, torch.tensor([[-3.0, 0.0, 3.0, -3.0]]), threshold=0.9).argmax(1).tolist() == [
        2
    ]


def test_the_loss_of_a_row_is_that_of_its_asked_tokens():
    logits = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([[1, -1, 2, -1, -1], [0, 3, -1, -1, 6]])
    for row in range(2):
        asked = targets[row] >= 0
        for t in range(3):
            expected = F.cross_entropy(logits[row, t, asked], targets[row, asked])
            torch.testing.assert_close(row_losses(logits, targets)[row, t], expected)


@pytest.mark.parametrize("halting", ["none", "act", "ponder", "right"])
def test_every_way_of_training_learns(halting):
    model = build_model(replace(CFG, halting=halting, deep_supervision=True, least_loops=2, carry_norm=True))
    batch = SimpleNamespace(tokens=TOKENS, targets=TOKENS.flip(1))
    task = SimpleNamespace(loss=lambda logits, batch: F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()))
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=1e-2), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(40):
        loss, answer = objective(model, task, batch, generator)
        assert answer.shape == (*batch.tokens.shape, model.cfg.d_vocab)  # which adaptive sampling judges
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    if halting != "none":
        gate: Any = model.halt_weight
        assert gate.grad.abs().max() > 0


def test_a_causal_model_does_not_halt():
    with pytest.raises(ValueError, match="halting is decided from a whole row"):
        replace(CFG, attention_dir="causal", halting="act")
