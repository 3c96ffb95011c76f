"""Every architecture by its key: a new one is its own files and one entry here."""

from __future__ import annotations

from typing import Any

import torch

from interp.models.architecture import Architecture
from interp.models.base import HookedModel
from interp.models.config import TransformerConfig
from interp.models.delta import DELTA_ARCHITECTURE
from interp.models.diffusion_lm_training import DIFFUSION_LM_ARCHITECTURE
from interp.models.encoder_decoder import ENCODER_DECODER_ARCHITECTURE
from interp.models.linear_attention import LINEAR_ATTENTION_ARCHITECTURE
from interp.models.looped_training import LOOPED_ARCHITECTURE
from interp.models.mamba import MAMBA_ARCHITECTURE
from interp.models.mamba2 import MAMBA2_ARCHITECTURE
from interp.models.masked_diffusion import MASKED_DIFFUSION_ARCHITECTURE
from interp.models.multi_token import MULTI_TOKEN_ARCHITECTURE
from interp.models.recurrent import GRU_ARCHITECTURE, LSTM_ARCHITECTURE, RNN_ARCHITECTURE
from interp.models.slot_machine_training import SLOT_MACHINE_ARCHITECTURE
from interp.models.transformer import Transformer
from interp.models.window import NGRAM_ARCHITECTURE, WINDOW_ARCHITECTURE

MODELS: dict[str, Architecture] = {
    "transformer": Architecture(
        config=TransformerConfig,
        build=Transformer,
        words="Blocks of self-attention and an MLP that read a residual stream and add to it.",
    ),
    "multi_token": MULTI_TOKEN_ARCHITECTURE,
    "rnn": RNN_ARCHITECTURE,
    "gru": GRU_ARCHITECTURE,
    "lstm": LSTM_ARCHITECTURE,
    "linear_attention": LINEAR_ATTENTION_ARCHITECTURE,
    "delta": DELTA_ARCHITECTURE,
    "mamba": MAMBA_ARCHITECTURE,
    "mamba2": MAMBA2_ARCHITECTURE,
    "encoder_decoder": ENCODER_DECODER_ARCHITECTURE,
    "masked_diffusion": MASKED_DIFFUSION_ARCHITECTURE,
    "diffusion_lm": DIFFUSION_LM_ARCHITECTURE,
    "window": WINDOW_ARCHITECTURE,
    "ngram": NGRAM_ARCHITECTURE,
    "looped": LOOPED_ARCHITECTURE,
    "slot_machine": SLOT_MACHINE_ARCHITECTURE,
}


def build_model(cfg: Any) -> HookedModel:
    """The model that `cfg.architecture` names, on the CPU, with initial weights drawn from `cfg.seed`.

    Raises:
        ValueError: the architecture is not in MODELS.
    """
    if cfg.architecture not in MODELS:
        raise ValueError(f"architecture must be one of {', '.join(MODELS)}; got {cfg.architecture!r}")
    # Weights made in inference mode could never have a gradient. PyTorch's layers draw before ours do: leave the
    # caller's stream alone.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        return MODELS[cfg.architecture].build(getattr(cfg, "as_written", cfg))  # of a model's cfg: without its state
