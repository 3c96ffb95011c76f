"""A trained model's weights in a model of another context: for machines larger than the one it was trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import torch

from interp.models.base import HookedModel
from interp.models.config import TransformerConfig
from interp.models.registry import build_model

RESIZABLE = (
    "n_ctx",
    "position_roles",
    "position_indices",
    "index_table_size",
    "attention_chunk",
    "seed",
    "n_slots",
    "max_steps",
)


@torch.no_grad()
def resize(model: HookedModel, cfg: TransformerConfig) -> HookedModel:
    """The same weights in a model with another context length or other positions, larger or smaller.

    What is the same in both is copied. Where `cfg` has positions that `model` lacks, the scheme decides: sinusoidal,
    rotary, block_rotary, alibi, path and none compute them; "randomised" spreads them over the same range; "learned"
    leaves the new rows of W_pos at initial values drawn from `cfg.seed`; "block" has a vector for every block already,
    and W_index beyond its trained rows is as drawn, unless training shifted the indices over a larger table
    (`index_table_size`). The flat part of "block" goes with (role, index), whatever position that is now, and is zero
    where it is new.

    Args:
        model: a model, whose mode (train or eval), device, dtype and `vocab` the new one takes.
        cfg: `dataclasses.replace(model.cfg, n_ctx=…, position_roles=…, position_indices=…)`, say. Only these fields,
            index_table_size, attention_chunk, seed and a memory's sizes may differ.

    Raises:
        ValueError: another field differs; the message names it.
    """
    cfg = cfg.as_written
    for field in fields(cfg):
        old, new = getattr(model.cfg.as_written, field.name), getattr(cfg, field.name)
        if field.name not in RESIZABLE and old != new:
            raise ValueError(f"resize keeps {field.name}={old!r}; got {new!r} (may differ: {', '.join(RESIZABLE)})")
    if bool(model.cfg.index_table_size) != bool(cfg.index_table_size):
        raise ValueError(f"resize keeps the kind of index table; got {cfg.index_table_size} for index_table_size")
    resized = build_model(cfg)
    weights, old_weights = resized.state_dict(), model.state_dict()
    for name, weight in weights.items():
        old = old_weights[name].to(weight)
        if name == "pos_embed.W_flat":
            weight.zero_()
            rows = _matching_rows(model.cfg, cfg)
            weight[[new for new, _ in rows]] = old[[old_row for _, old_row in rows]]
        else:
            n = min(len(weight), len(old))
            weight[:n] = old[:n]
    resized.vocab = model.vocab
    return resized.to(next(model.parameters())).train(model.training)


def _slots(cfg: TransformerConfig) -> list[tuple[int, int, int]]:
    """Each position's role, index, and how many positions before it have both: unique in a config."""
    seen: Counter[tuple[int, int]] = Counter()
    slots = []
    for slot in zip(cfg.position_roles, cfg.position_indices, strict=True):
        slots.append((*slot, seen[slot]))
        seen[slot] += 1
    return slots


def _matching_rows(old: TransformerConfig, new: TransformerConfig) -> list[tuple[int, int]]:
    """(new position, old position) of every slot that both configs have."""
    place = {slot: row for row, slot in enumerate(_slots(old))}
    return [(row, place[slot]) for row, slot in enumerate(_slots(new)) if slot in place]
