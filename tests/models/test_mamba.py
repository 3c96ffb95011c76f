"""Mamba and Mamba-2 against transformers on copied weights, the selective scan, and torch.compile."""

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.models.mamba import Mamba
from interp.models.mamba2 import Mamba2
from interp.models.selective_scan import BLOCK, selective_scan
from interp.models.state_configs import Mamba2Config, MambaConfig
from tests.models.state_cases import STATE_CASES, build, some_tokens

SIZES: dict[str, Any] = {"d_vocab": 13, "n_ctx": 9, "d_model": 16, "n_layers": 2, "use_bias": False}


@torch.no_grad()
def copy_ends(theirs: Any, ours: Any) -> None:
    ours.embed.W_E.copy_(theirs.backbone.embeddings.weight)
    ours.unembed.weight.copy_(theirs.lm_head.weight)
    ours.ln_final.w.copy_(theirs.backbone.norm_f.weight)
    for layer, block in zip(theirs.backbone.layers, ours.blocks, strict=True):
        block.ln1.w.copy_(layer.norm.weight)


@torch.no_grad()
def shake(model: Any) -> None:
    """Move every weight, so that gains and biases matter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@torch.no_grad()
def test_logits_are_those_of_transformers_mamba():
    from transformers import MambaConfig as TheirConfig
    from transformers import MambaForCausalLM

    torch.manual_seed(0)
    theirs: Any = MambaForCausalLM(
        TheirConfig(
            vocab_size=13,
            hidden_size=16,
            state_size=5,
            num_hidden_layers=2,
            conv_kernel=3,
            expand=2,
            time_step_rank=3,
            tie_word_embeddings=False,
        )
    ).eval()
    shake(theirs)
    ours: Any = Mamba(MambaConfig(**SIZES, d_state=5, dt_rank=3, conv_size=3))
    copy_ends(theirs, ours)
    for layer, block in zip(theirs.backbone.layers, ours.blocks, strict=True):
        mixer, own = layer.mixer, block.recurrence
        for parameter, value in zip((own.W_in, own.W_gate), mixer.in_proj.weight.split(32), strict=True):
            parameter.copy_(value)
        parts = mixer.x_proj.weight.split([3, 5, 5])
        for parameter, value in zip((own.W_dt_down, own.W_B, own.W_C), parts, strict=True):
            parameter.copy_(value)
        own.W_dt_up.copy_(mixer.dt_proj.weight)
        own.b_dt.copy_(mixer.dt_proj.bias)
        own.conv.weight.copy_(mixer.conv1d.weight[:, 0])
        own.conv.bias.copy_(mixer.conv1d.bias)
        for parameter, value in ((own.A_log, mixer.A_log), (own.D, mixer.D), (own.W_O, mixer.out_proj.weight)):
            parameter.copy_(value)
    tokens = some_tokens(n_pos=40)
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_logits_are_those_of_transformers_mamba_2():
    from transformers import Mamba2Config as TheirConfig
    from transformers import Mamba2ForCausalLM

    torch.manual_seed(0)
    theirs: Any = Mamba2ForCausalLM(
        TheirConfig(
            vocab_size=13,
            hidden_size=16,
            state_size=5,
            num_hidden_layers=2,
            conv_kernel=3,
            expand=2,
            num_heads=4,
            head_dim=8,
            n_groups=1,
            chunk_size=16,
            tie_word_embeddings=False,
        )
    ).eval()
    shake(theirs)
    ours: Any = Mamba2(Mamba2Config(**SIZES, n_heads=4, d_head=8, d_state=5, conv_size=3))
    copy_ends(theirs, ours)
    for layer, block in zip(theirs.backbone.layers, ours.blocks, strict=True):
        mixer, own = layer.mixer, block.recurrence
        parts = mixer.in_proj.weight.split([32, 32, 5, 5, 4])
        for parameter, value in zip((own.W_gate, own.W_in, own.W_B, own.W_C, own.W_dt), parts, strict=True):
            parameter.copy_(value)
        own.conv.weight.copy_(mixer.conv1d.weight[:, 0])
        own.conv.bias.copy_(mixer.conv1d.bias)
        for parameter, value in (
            (own.b_dt, mixer.dt_bias),
            (own.A_log, mixer.A_log),
            (own.D, mixer.D),
            (own.norm.w, mixer.norm.weight),
            (own.W_O, mixer.out_proj.weight),
        ):
            parameter.copy_(value)
    tokens = some_tokens(n_pos=40)
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, atol=2e-5, rtol=1e-5)


def scan_inputs(n_pos: int) -> list[torch.Tensor]:
    """x, dt, A, B, C and a state, for two rows, three channels and four numbers each."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        draw(2, n_pos, 3),
        draw(2, n_pos, 3).exp(),
        -draw(3, 4).exp(),
        *(draw(2, n_pos, 4) for _ in "BC"),
        draw(2, 3, 4),
    ]


@pytest.mark.parametrize("n_pos", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_the_selective_scan_is_its_recurrence(n_pos):
    """Values and gradients, against the equations under autograd."""
    inputs = [each.requires_grad_() for each in scan_inputs(n_pos)]
    x, dt, A, B, C, state = inputs
    reads = []
    for t in range(n_pos):
        state = (dt[:, t, :, None] * A).exp() * state + (dt[:, t] * x[:, t])[..., None] * B[:, t, None]
        reads.append((state * C[:, t, None]).sum(-1))
    expected, found = (torch.stack(reads, dim=1), state), selective_scan(x, dt, A, B, C, inputs[-1])
    gradients = []
    for read, last in (expected, found):
        gradients.append(torch.autograd.grad(read.square().sum() + last.sin().sum(), inputs))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*gradients)


def test_gradients_of_the_selective_scan():
    assert torch.autograd.gradcheck(selective_scan, [each.requires_grad_() for each in scan_inputs(5)])


def test_the_parallel_scan_gives_the_same_model():
    """Logits and gradients of every weight."""
    results = []
    for scan in ("sequential", "chunked"):
        model = build(replace(STATE_CASES["mamba"], scan=scan, dtype="float64"))  # type: ignore[call-arg]
        logits = model(some_tokens(1))
        results.append((logits, torch.autograd.grad(logits.square().mean(), list(model.parameters()))))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_cached_activations_make_the_states(name):
    model = build(replace(STATE_CASES[name], dtype="float64"))
    _, cache = model.run_with_cache(some_tokens(1))
    at = {part: cache[f"blocks.1.mixer.hook_{part}"] for part in ("ssm_write", "ssm_state", "ssm_dt", "ssm_C")}
    layer: Any = model.blocks[1].recurrence
    if name == "mamba":
        decay = (at["ssm_dt"][..., None] * -layer.A_log.exp()).exp()
        read = (at["ssm_state"] * at["ssm_C"][:, :, None]).sum(-1)
    else:
        torch.testing.assert_close(cache["blocks.1.mixer.hook_log_decay"], at["ssm_dt"] * -layer.A_log.exp())
        decay = cache["blocks.1.mixer.hook_log_decay"].exp()[..., None, None]
        read = (at["ssm_state"] * at["ssm_C"][:, :, None, None]).sum(-1)
    before = torch.cat([torch.zeros_like(at["ssm_state"][:, :1]), at["ssm_state"][:, :-1]], dim=1)
    torch.testing.assert_close(at["ssm_state"], decay * before + at["ssm_write"])
    torch.testing.assert_close(cache["blocks.1.mixer.hook_recurrence_out"], read)
    assert 0 < decay.min() < decay.max() < 1


def test_an_edit_of_what_is_read_out_stays_where_it_is():
    for name in ("mamba", "mamba2", "delta", "linear-attention"):
        model = build(replace(STATE_CASES[name], n_layers=1))
        hook = f"blocks.0.{model.mixer_name}.hook_recurrence_out"

        def edit(act, hook):
            act[:, 4] += 1.0
            return act

        with torch.no_grad():
            change = model.run_with_hooks(some_tokens(1), fwd_hooks=[(hook, edit)]) - model(some_tokens(1))
        assert (change.abs().amax(dim=(0, 2)) > 0).tolist() == [pos == 4 for pos in range(9)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_mamba_is_mamba():
    """Logits and gradients; the scan stays as it is, the rest is compiled around it."""
    model = build(replace(STATE_CASES["mamba"], n_layers=1))
    tokens = some_tokens(1)
    results = []
    for forward in (model, torch.compile(model)):
        logits = forward(tokens)
        results.append((logits, torch.autograd.grad(logits.square().mean(), list(model.parameters()))))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)


def test_bad_configurations_say_what_was_expected():
    common: dict[str, Any] = {"d_vocab": 13, "n_ctx": 9}
    for config, options, message in (
        (MambaConfig, {"d_state": 0}, "d_state must be a whole number of at least 1, got 0"),
        (MambaConfig, {"scan": "fast"}, r"scan must be one of \('sequential', 'chunked'\); got 'fast'"),
        (MambaConfig, {"conv_size": 1}, "conv_size must be 0, for no convolution, or an integer of at least 2"),
        (Mamba2Config, {"n_heads": 3}, r"2 \* d_model must be a multiple of n_heads unless d_head is given"),
    ):
        with pytest.raises(ValueError, match=message):
            config(**{**common, **options})
