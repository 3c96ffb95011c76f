"""Effective attention: how much of each position's value a read holds, in models whose states are matrices.

What it is, exact of values and yet a heuristic, stands in `interp.models.effective_attention`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def effective_attention(model: Any, tokens: Tensor, layer: int) -> Tensor:
    """A of one layer, [batch, head, query_pos, key_pos]; 0 above the diagonal.

    Args:
        model: a linear-attention or delta model. Of several writes a position the weightiest is told.
        tokens: long [batch, pos].
        layer: from 0.

    Raises:
        ValueError: the model's heads hold no matrix.
    """
    hooks = model.effective_attention_hooks(layer)
    if not hooks:
        raise ValueError(f"effective attention needs heads that hold a matrix; {model.cfg.architecture!r} has none")
    _, cache = model.run_with_cache(tokens, names_filter=list(hooks), return_cache_object=False)
    return model.effective_attention(layer, cache)
