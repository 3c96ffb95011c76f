"""The cases of the model battery. An architecture enters the battery by adding its cases here."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from interp.models import TransformerConfig, build_model
from interp.models.config import MultiTokenConfig
from interp.models.diffusion_lm_config import DiffusionLMConfig
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.masked_diffusion import MaskedDiffusionConfig
from interp.models.window_config import NgramConfig, WindowConfig
from tests.models.looped_cases import LOOPED_CASES
from tests.models.slot_cases import SLOT_CASES
from tests.models.state_cases import STATE_CASES

N_CTX, D_VOCAB, BATCH = 9, 13, 3

_TRANSFORMER = TransformerConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, n_layers=2, n_heads=2, d_model=16, seed=3)

TRANSFORMERS: dict[str, TransformerConfig] = {
    "transformer-machine": replace(
        _TRANSFORMER,
        attention_dir="bidirectional",
        qk_norm=True,
        positional_embedding_type="block",
        index_init="sinusoidal",
        rotary_dim=4,
        position_roles=(0, 1, 1, 1, 2, 3, 3, 3, 4),
        position_indices=(0, 0, 1, 2, 0, 0, 1, 2, 0),
    ),
    "transformer-gpt2": replace(_TRANSFORMER, normalization_type="LN"),
    "transformer-tied": replace(_TRANSFORMER, tie_word_embeddings=True, use_bias=False, normalization_type="LN"),
    "transformer-handset": replace(
        _TRANSFORMER, normalization_type=None, act_fn="relu", d_head=5, d_mlp=7, positional_embedding_type="none"
    ),
    "transformer-attn-only": replace(_TRANSFORMER, attn_only=True, n_heads=4, d_head=3, dtype="float64"),
    "transformer-llama": replace(
        _TRANSFORMER, positional_embedding_type="rotary", gated_mlp=True, act_fn="silu", d_mlp=11, use_bias=False
    ),
    "transformer-block-rotary": replace(
        _TRANSFORMER,
        attention_dir="bidirectional",
        qk_norm=True,
        positional_embedding_type="block_rotary",
        position_roles=(0, 1, 1, 1, 2, 3, 3, 3, 4),
        position_indices=(0, 0, 1, 2, 0, 0, 1, 2, 0),
    ),
    "transformer-local": replace(
        _TRANSFORMER,
        attention_chunk=2,
        gated_mlp=True,
        positional_embedding_type="block",
        position_roles=(0, 1, 1, 1, 2, 3, 3, 3, 4),
        position_indices=(0, 0, 1, 2, 0, 0, 1, 2, 0),
        index_table_size=6,
    ),
    "transformer-sinusoidal": replace(_TRANSFORMER, positional_embedding_type="sinusoidal", dtype="float64"),
    "transformer-alibi": replace(_TRANSFORMER, positional_embedding_type="alibi", attention_chunk=3),
    "transformer-randomised": replace(_TRANSFORMER, positional_embedding_type="randomised", position_range=31),
    "transformer-path": replace(_TRANSFORMER, positional_embedding_type="path", normalization_type="LN"),
    "transformer-path-both-ways": replace(
        _TRANSFORMER, positional_embedding_type="path", attention_dir="bidirectional", qk_norm=True, use_bias=False
    ),
}

DIFFUSION = {
    "masked-diffusion": MaskedDiffusionConfig(
        d_vocab=D_VOCAB, n_ctx=N_CTX, n_prompt=6, n_layers=2, n_heads=2, d_model=16, seed=3
    ),
    "diffusion-lm": DiffusionLMConfig(
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        n_prompt=7,
        n_layers=2,
        n_heads=2,
        d_head=5,
        d_model=16,
        d_embed=4,
        seed=3,
        denoising_steps=2,
    ),
    "diffusion-lm-machine": DiffusionLMConfig(
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        n_prompt=7,
        n_layers=1,
        n_heads=2,
        d_head=6,
        d_model=16,
        d_embed=4,
        seed=3,
        denoising_steps=3,
        schedule="cosine",
        sampler="ddpm",
        qk_norm=True,
        positional_embedding_type="block",
        index_init="sinusoidal",
        rotary_dim=4,
        position_roles=(0, 1, 1, 1, 2, 2, 3, 4, 4),
        position_indices=(0, 0, 1, 2, 0, 1, 0, 0, 1),
    ),
}

_SIDES = EncoderDecoderConfig(
    d_vocab=D_VOCAB, n_ctx=N_CTX, n_prompt=7, n_layers=3, n_encoder=2, n_heads=3, d_head=5, d_model=16, seed=3
)

SIDES = {
    "encoder-decoder": _SIDES,
    "encoder-decoder-machine": replace(
        _SIDES,
        qk_norm=True,
        positional_embedding_type="block",
        index_init="sinusoidal",
        rotary_dim=4,
        position_roles=(0, 1, 1, 1, 2, 2, 3, 4, 4),
        position_indices=(0, 0, 1, 2, 0, 1, 0, 0, 1),
    ),
    "encoder-decoder-t5": replace(
        _SIDES,
        positional_embedding_type="none",
        relative_buckets=8,
        relative_distance=5,
        use_bias=False,
        gated_mlp=True,
        n_layers=4,
        tie_word_embeddings=True,
        dtype="float64",
    ),
}

_HEADS = MultiTokenConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, n_layers=2, n_heads=2, d_model=16, n_predicted=3, seed=3)

WINDOWS = {
    "window": WindowConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, context=3, d_model=5, d_mlp=7, seed=3),
    "window-mean": WindowConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, pooling="mean", act_fn="relu", dtype="float64", seed=3),
    "window-linear": WindowConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, context=2, d_model=D_VOCAB, d_mlp=0),
    "ngram": NgramConfig(d_vocab=D_VOCAB, n_ctx=N_CTX, context=2),
}

CASES: dict[str, Any] = {
    **TRANSFORMERS,
    "multi_token": _HEADS,
    **STATE_CASES,
    **DIFFUSION,
    **SIDES,
    **WINDOWS,
    **LOOPED_CASES,
    **SLOT_CASES,
}


@dataclass(frozen=True)
class Case:
    """A model in eval mode with weights moved off their initial values, and a batch of tokens."""

    name: str
    model: Any  # a HookedModel
    tokens: torch.Tensor

    def switch(self, on: bool = True) -> None:
        """Turn every optional hook that can be on together with the others on or off."""
        for switch in sorted(set(self.model.switches.values()) - {"use_attn_in"}):
            getattr(self.model, f"set_{switch}")(on)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cases() -> dict[str, Any]:
    return CASES


def pytest_generate_tests(metafunc):
    """The battery and the facts are for every architecture; what else asks for a case is about transformers."""
    if "case" in metafunc.fixturenames and "transformer_case" not in metafunc.fixturenames:
        every = metafunc.module.__name__.endswith(("test_model_battery", "test_facts", "test_token_arrays"))
        metafunc.parametrize("case", CASES if every else TRANSFORMERS, indirect=True)


@pytest.fixture
def case(request) -> Case:
    return make_case(request.param)


@pytest.fixture(params=[name for name, cfg in CASES.items() if cfg.architecture == "transformer"])
def transformer_case(request) -> Case:
    """For what only the transformer has: its weights, decompositions and keys and values by TransformerLens's names."""
    return make_case(request.param)


def make_case(name: str) -> Case:
    model = build_model(CASES[name])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # so that biases and gains matter too
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    tokens = torch.randint(D_VOCAB, (BATCH, N_CTX), generator=generator)
    return Case(name, model.eval(), tokens)
