"""Where each head looks, contrast by contrast: mean attention patterns over held-out examples, by position and name."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn.functional import one_hot

from interp.circuits.pairs import main_contrasts
from interp.files import atomic_path
from interp.ranges import counted
from interp.reading import check_provenance, read_tensors, reading
from interp.tasks import Batch, Task
from interp.tasks.sites import block_slots

_MOST_KEPT = 4_000_000  # numbers of a pattern that are written, 8 MB


@dataclass(frozen=True)
class AttentionSummary:
    """Mean attention of every head under every op, or what else a contrast is named by.

    `roles` reads: of the attention that queries in set i pay, the mean share that keys in set j receive. Sets overlap
    (the cell under the pointer is a cell too), so rows do not sum to 1. Where a position holds something else in every
    example (a stream, a string) a set is all positions of one token, and no pattern is kept.
    """

    ops: tuple[str, ...]
    n: tuple[int, ...]  # examples averaged, by op
    position_names: tuple[str, ...]
    role_names: tuple[str, ...]  # position sets: blocks, "brackets", pointed slots; or tokens
    pattern: np.ndarray | None  # float16 [op, layer, head, query_pos, key_pos]; None: not kept, see `write_attention`
    roles: np.ndarray  # float16 [op, layer, head, query role, key role]

    def top_roles(self, op: str, layer: int, head: int) -> dict[str, tuple[str, float]]:
        """For each query role the key role of most attention, and that share of it."""
        table = self.roles[self.ops.index(op), layer, head].astype(np.float64)
        best = table.argmax(axis=1)
        return {
            query: (self.role_names[key], float(table[row, key]))
            for row, (query, key) in enumerate(zip(self.role_names, best, strict=True))
        }


@counted(n=1, batch_size=1)
@torch.no_grad()
def attention_patterns(
    model: Any,
    task: Task,
    *,
    ops: Sequence[str] | None = None,
    n: int = 128,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[float], None] | None = None,
) -> AttentionSummary:
    """Mean patterns over `n` held-out examples of each contrast's clean side, drawn as they naturally come.

    Args:
        model: the hooked model.
        task: draws the examples.
        ops: names of contrasts; the task's `main_contrasts` by default.
        n: examples of each, fewer where they are rare.
        seed: of the examples.
        batch_size: examples a pass.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: the model has no attention, or the task no such contrast.
    """
    hooks = model.attention_hooks()
    if not hooks:
        raise ValueError(f"attention patterns need a model with attention; {model.cfg.architecture!r} has none")
    ops = main_contrasts(task) if ops is None else tuple(ops)
    role_names = position_sets(task)
    patterns, roles, counts = [], [], []
    for index, op in enumerate(ops):
        batch = task.contrast(op).examples(n, seed)
        pattern, role, held, done = 0.0, 0.0, 0.0, 0
        while done < len(batch):
            part = batch[done : done + batch_size]
            _, cache = model.run_with_cache(part.tokens, names_filter=hooks, return_cache_object=False)
            seen = torch.stack(
                [model.on_record(name, cache[name]) for name in hooks], dim=1
            )  # [batch, layer, head, query, key]
            member = set_members(task, role_names, part).to(seen.dtype)
            pattern, size = pattern + seen.sum(0), member.sum(-1, keepdim=True)
            share = torch.einsum("blhqk,biq,bjk->lhij", seen, member / size.clamp(min=1), member)
            role, held, done = role + share, held + (size > 0).sum(0), done + len(part)
        patterns.append(np.asarray(pattern) / max(done, 1))
        roles.append(np.asarray(role) / np.maximum(held, 1))  # of the examples that have such a query
        counts.append(done)
        if progress is not None:
            progress((index + 1) / len(ops))
    return AttentionSummary(
        ops=ops,
        n=tuple(counts),
        position_names=task.position_names,
        role_names=role_names,
        pattern=np.stack(patterns).astype(np.float16) if can_average(task) else None,
        roles=np.stack(roles).astype(np.float16),
    )


def can_average(task: Task) -> bool:
    """Whether a position is the same slot in every example."""
    return task.positions == "block"


def position_sets(task: Task) -> tuple[str, ...]:
    """Names of the sets of `AttentionSummary.roles`: blocks, those of a shown answer too, "brackets", pointed slots.

    The tokens, where positions mean something else in every example.
    """
    if not can_average(task):
        return tuple(task.vocab)
    return (*task.blocks(), "brackets", *task.pointed_places())


def set_members(task: Task, role_names: Sequence[str], batch: Batch) -> torch.Tensor:
    """Which positions belong to each of `position_sets` in each example, float32 [batch, role, pos]."""
    if not can_average(task):
        return one_hot(batch.tokens, len(role_names)).transpose(1, 2).float()
    members = torch.zeros(len(batch), len(role_names), task.n_ctx)
    brackets = role_names.index("brackets")
    for row, name in enumerate(role_names[:brackets]):
        members[:, row, torch.from_numpy(block_slots(task.position_names, name))] = 1.0
    members[:, brackets] = 1 - members[:, :brackets].sum(1)  # what no block holds
    for row, name in enumerate(role_names[brackets + 1 :], brackets + 1):
        members[:, row].scatter_(1, task.resolve(name, batch), 1.0)
    return members


def write_attention(path: Path, summary: AttentionSummary, *, provenance: Mapping[str, Any]) -> None:
    """Write `attention.safetensors`: tensors `pattern` and `roles`, and names, n and provenance in its header.

    Patterns of more than some four million numbers, those of long chains, stay out; `roles` says what they say by set.
    """
    header = {
        "ops": json.dumps(summary.ops),
        "n": json.dumps(summary.n),
        "position_names": json.dumps(summary.position_names),
        "role_names": json.dumps(summary.role_names),
        "provenance": json.dumps(dict(provenance)),
    }
    with atomic_path(path) as temporary:
        tensors = {"roles": summary.roles}
        if summary.pattern is not None and summary.pattern.size <= _MOST_KEPT:
            tensors["pattern"] = summary.pattern
        save_file(tensors, temporary, metadata=header)


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
        summary = AttentionSummary(**names, pattern=tensors.get("pattern"), roles=tensors["roles"])
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
        table: np.ndarray | None = getattr(summary, name)
        if table is None:
            continue
        if table.ndim != 5 or table.shape[::4] != (len(summary.ops), len(of)) or table.shape[3] != len(of):
            raise ValueError(f"{name} has shape {list(table.shape)} for {len(summary.ops)} ops and {len(of)} names")
        if table.dtype.kind != "f":
            raise TypeError(f"{name} must hold floating-point numbers, got {table.dtype}")
