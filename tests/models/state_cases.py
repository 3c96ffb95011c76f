"""Models with a state, in eval mode, with weights moved off their initial values, and tokens for them."""

from dataclasses import replace
from typing import Any

import torch

from interp.models.delta import Delta
from interp.models.linear_attention import LinearAttention
from interp.models.mamba import Mamba
from interp.models.mamba2 import Mamba2
from interp.models.recurrent import GRU, LSTM, RNN
from interp.models.state_configs import (
    DeltaConfig,
    GRUConfig,
    LinearAttentionConfig,
    LSTMConfig,
    Mamba2Config,
    MambaConfig,
    RNNConfig,
    StateConfig,
)
from interp.models.state_model import StateModel

N_POS, D_VOCAB, BATCH = 9, 13, 3

_SIZES: dict[str, Any] = {"d_vocab": D_VOCAB, "n_ctx": N_POS, "d_model": 16, "seed": 3}
_GRU, _LSTM = GRUConfig(**_SIZES), LSTMConfig(**_SIZES)
_LINEAR = LinearAttentionConfig(**_SIZES, n_heads=2, d_key=5, d_value=7)
_DELTA = DeltaConfig(**_SIZES, n_heads=2, d_key=5, d_value=7, conv_size=4, dtype="float64")

BUILD: dict[type, Any] = {
    RNNConfig: RNN,
    GRUConfig: GRU,
    LSTMConfig: LSTM,
    LinearAttentionConfig: LinearAttention,
    DeltaConfig: Delta,
    MambaConfig: Mamba,
    Mamba2Config: Mamba2,
}

STATE_CASES: dict[str, StateConfig] = {
    "rnn": RNNConfig(**_SIZES),
    "gru": _GRU,
    "gru-wide": replace(_GRU, d_hidden=20, d_mlp=24, normalization_type="LN"),
    "lstm": _LSTM,
    "lstm-wide": replace(_LSTM, d_hidden=12, tie_word_embeddings=True),
    "linear-attention": _LINEAR,
    "linear-attention-plain": replace(_LINEAR, decay="none", feature_map="elu", conv_size=3, output_gate=False),
    "retention": replace(_LINEAR, decay="fixed", d_mlp=24),
    "delta": _DELTA,
    "delta-plain": replace(_DELTA, decay="none", conv_size=0, beta_max=1, output_gate=False, dtype="float32"),
    "delta-product": replace(_DELTA, n_householder=3),
    "mamba": MambaConfig(**_SIZES, d_inner=20, d_state=5, dt_rank=2),
    "mamba-parallel": MambaConfig(**_SIZES, d_inner=20, d_state=5, conv_size=0, scan="chunked", d_mlp=24),
    "mamba2": Mamba2Config(**_SIZES, n_heads=2, d_head=11, d_state=5, conv_size=3),
    "mamba2-plain": Mamba2Config(**_SIZES, n_heads=2, d_head=11, d_state=5, conv_size=0, normalization_type="LN"),
}


def build(cfg: StateConfig) -> StateModel:
    """The model of a configuration, biases and gains moved too."""
    with torch.random.fork_rng(devices=[]):
        model = BUILD[type(cfg)](cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
    return model.eval()


def some_tokens(seed: int = 0, batch: int = BATCH, n_pos: int = N_POS) -> torch.Tensor:
    """Random tokens [batch, pos]."""
    return torch.randint(D_VOCAB, (batch, n_pos), generator=torch.Generator().manual_seed(seed))
