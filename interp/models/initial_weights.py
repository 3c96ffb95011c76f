"""Initial weights of models made of transformer blocks."""

from __future__ import annotations

import math
from typing import Any

import torch

from interp.models.embed import BlockPositions


@torch.no_grad()
def draw_weights(model: Any, *, depth: int, zeros: tuple[str, ...] = ()) -> None:
    """Draw every weight anew from `cfg.seed`: normal of deviation `cfg.init_range`, biases 0, gains 1.

    Matrices that write to the residual stream are divided by sqrt(2 * depth), as in GPT-2; the flat part of block
    positions starts at 0, and its indices where `cfg.index_init` says.

    Args:
        model: with a cfg and, where it has positions of its own, `pos_embed`.
        depth: how many blocks a token passes.
        zeros: names of further parameters that begin at 0.
    """
    cfg, generator = model.cfg, torch.Generator().manual_seed(model.cfg.seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            residual = name.endswith(("attn.out.weight", "mlp.fc_out.weight"))
            std = cfg.init_range / (math.sqrt(2 * depth) if residual else 1.0)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        elif name.endswith(("bias", ".b")) or name in zeros:
            parameter.zero_()
        else:
            parameter.fill_(1.0)
    if isinstance(model.pos_embed, BlockPositions):
        if not model.pos_embed.shifted:
            model.pos_embed.W_flat.zero_()
        if cfg.index_init == "sinusoidal":
            model.pos_embed.reset_waves(cfg.init_range)
