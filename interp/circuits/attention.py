"""Where each head looks, opcode by opcode: mean attention patterns over held-out states, by position and by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from cython_vm import Op, States
from interp.circuits.pairs import first_states
from interp.files import atomic_path
from interp.interventions import block_slots, resolve
from interp.reading import check_provenance, read_tensors, reading
from interp.tasks import Task

POINTED = (
    "instruction_ptr[@instruction_ptr]",
    "instructions[@instruction_ptr]",
    "array_ptr[@array_ptr]",
    "cells[@array_ptr]",
)


@dataclass(frozen=True)
class AttentionSummary:
    """Mean attention of every head under every op.

    `roles` reads: of the attention that queries in set i pay, the mean share that keys in set j receive. Sets overlap
    (the cell under the pointer is a cell too), so rows do not sum to 1.
    """

    ops: tuple[str, ...]
    n: tuple[int, ...]  # states averaged, by op
    position_names: tuple[str, ...]
    role_names: tuple[str, ...]  # position sets: blocks, "brackets", pointed slots
    pattern: np.ndarray  # float16 [op, layer, head, query_pos, key_pos]
    roles: np.ndarray  # float16 [op, layer, head, query role, key role]

    def top_roles(self, op: str, layer: int, head: int) -> dict[str, tuple[str, float]]:
        """For each query role the key role of most attention, and that share of it."""
        table = self.roles[self.ops.index(op), layer, head].astype(np.float64)
        best = table.argmax(axis=1)
        return {
            query: (self.role_names[key], float(table[row, key]))
            for row, (query, key) in enumerate(zip(self.role_names, best, strict=True))
        }


@torch.no_grad()
def attention_patterns(
    model: Any,
    task: Task,
    *,
    ops: Sequence[Op] | None = None,
    n: int = 128,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[float], None] | None = None,
) -> AttentionSummary:
    """Mean patterns over `n` held-out states an op, drawn from the machine's natural distribution.

    Raises:
        ValueError: the model has no attention.
    """
    if "blocks.0.attn.hook_pattern" not in model.hook_dict:
        raise ValueError("attention patterns need a model with attention; this one has no blocks.0.attn.hook_pattern")
    ops = task.spec.ops if ops is None else tuple(ops)
    hooks = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.cfg.n_layers)]
    role_names = position_sets(task)
    patterns, roles, counts = [], [], []
    for index, op in enumerate(ops):
        states = first_states(task, op, n, seed=seed)
        pattern, role, done = 0.0, 0.0, 0
        while done < len(states):
            part = states[done : done + batch_size]
            _, cache = model.run_with_cache(task.render(part).tokens, names_filter=hooks, return_cache_object=False)
            seen = torch.stack([cache[name] for name in hooks], dim=1)  # [batch, layer, head, query, key]
            member = set_members(task, role_names, part)
            pattern = pattern + seen.sum(0)
            share = torch.einsum("blhqk,biq,bjk->lhij", seen, member / member.sum(-1, keepdim=True), member)
            role, done = role + share, done + len(part)
        patterns.append(np.asarray(pattern) / max(done, 1))
        roles.append(np.asarray(role) / max(done, 1))
        counts.append(done)
        if progress is not None:
            progress((index + 1) / len(ops))
    return AttentionSummary(
        ops=tuple(op.name for op in ops),
        n=tuple(counts),
        position_names=task.position_names,
        role_names=role_names,
        pattern=np.stack(patterns).astype(np.float16),
        roles=np.stack(roles).astype(np.float16),
    )


def position_sets(task: Task) -> tuple[str, ...]:
    """Names of the sets of `AttentionSummary.roles`: blocks, blocks of a shown answer, "brackets", pointed slots."""
    blocks = [block for block in task.spec.layout.blocks if len(block_slots(task.position_names, block))]
    answer = [f"next.{block}" for block in blocks if len(block_slots(task.position_names, f"next.{block}"))]
    return (*blocks, *answer, "brackets", *POINTED)


def set_members(task: Task, role_names: Sequence[str], states: States) -> torch.Tensor:
    """Which positions belong to each of `position_sets` in each state, float32 [batch, role, pos]."""
    members = torch.zeros(len(states), len(role_names), task.n_ctx)
    brackets = role_names.index("brackets")
    for row, name in enumerate(role_names):
        if row != brackets:
            members[:, row].scatter_(1, resolve(task.position_names, name, states), 1.0)
    members[:, brackets] = 1 - members[:, :brackets].sum(1)  # what no block holds
    return members


def write_attention(path: Path, summary: AttentionSummary, *, provenance: Mapping[str, Any]) -> None:
    """Write `attention.safetensors`: tensors `pattern` and `roles`, and names, n and provenance in its header."""
    header = {
        "ops": json.dumps(summary.ops),
        "n": json.dumps(summary.n),
        "position_names": json.dumps(summary.position_names),
        "role_names": json.dumps(summary.role_names),
        "provenance": json.dumps(dict(provenance)),
    }
    with atomic_path(path) as temporary:
        save_file({"pattern": summary.pattern, "roles": summary.roles}, temporary, metadata=header)


def read_attention(path: Path) -> tuple[AttentionSummary, dict[str, Any]]:
    """Read what `write_attention` wrote: (summary, provenance).

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: the file is broken or of another kind.
    """
    tensors, texts = read_tensors(path, "numpy", "a whole attention file")
    with reading(path, "a whole attention file"):
        header = {name: json.loads(text) for name, text in texts.items()}
        names = {name: tuple(header[name]) for name in ("ops", "n", "position_names", "role_names")}
        summary = AttentionSummary(**names, pattern=tensors["pattern"], roles=tensors["roles"])
        _check(summary)
        check_provenance(header["provenance"])
        return summary, header["provenance"]


def _check(summary: AttentionSummary) -> None:
    """Raise TypeError or ValueError where names and tables do not belong together."""
    for name, kind in (("ops", str), ("n", int), ("position_names", str), ("role_names", str)):
        if not all(isinstance(each, kind) for each in getattr(summary, name)):
            raise TypeError(f"{name} must hold {kind.__name__} alone")
    if len(summary.n) != len(summary.ops):
        raise ValueError(f"{len(summary.ops)} ops, but n of {len(summary.n)}")
    for name, of in (("pattern", summary.position_names), ("roles", summary.role_names)):
        table = getattr(summary, name)
        if table.ndim != 5 or table.shape[::4] != (len(summary.ops), len(of)) or table.shape[3] != len(of):
            raise ValueError(f"{name} has shape {list(table.shape)} for {len(summary.ops)} ops and {len(of)} names")
        if table.dtype.kind != "f":
            raise TypeError(f"{name} must hold floating-point numbers, got {table.dtype}")
