"""Activation patching and ablation: one patch function, and what differs between its uses is the value put in.

activation patching     the value that the activation has in another run
interchange             the same inside a subspace, h' = h_base + (h_source - h_base) R^T R  (see interchange.py)
zero ablation           zeros
mean ablation           the mean over reference examples, position by position of the named set
resample ablation       the value in an example drawn at random from the reference
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

Ablation = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class Patch:
    """What to write where: `value` into `hook` at `positions` (and `head`), or into its part in `basis` alone."""

    hook: str
    positions: Tensor  # long [batch, k]
    value: Tensor  # broadcastable to the activation there: [batch, k, d], or [batch, k, head, d_head] without `head`
    head: int | None = None
    basis: Tensor | None = None  # [rank, d], orthonormal rows


def by_position(activation: Tensor, hook_name: str) -> Tensor:
    """A view [batch, pos, ...]: attention scores and patterns [batch, head, query, key] go by query position."""
    return activation.transpose(1, 2) if hook_name.endswith(("hook_pattern", "hook_attn_scores")) else activation


def read_positions(activation: Tensor, hook_name: str, *, positions: Tensor, head: int | None = None) -> Tensor:
    """The activation [batch, pos, ...] at positions [batch, k]: [batch, k, ...], of one head where `head` is given."""
    view = by_position(activation, hook_name)
    rows = torch.arange(len(positions), device=view.device)[:, None]
    return view[rows, positions] if head is None else view[rows, positions, head]


def write_positions(activation: Tensor, patch: Patch, *, first_row: int = 0) -> None:
    """Write a patch into the rows of `activation` from `first_row` on, in place."""
    view = by_position(activation, patch.hook)
    rows = torch.arange(first_row, first_row + len(patch.positions), device=view.device)[:, None]
    where = (rows, patch.positions) if patch.head is None else (rows, patch.positions, patch.head)
    value = patch.value.to(view.dtype)
    if patch.basis is not None:
        old = view[where]
        value = old + (value - old) @ patch.basis.T @ patch.basis
    view[where] = value


def patch_activation(activation: Tensor, hook: Any, *, patches: Sequence[tuple[int, Patch]]) -> Tensor:
    """The hook function: a copy of `activation` [batch, ...] with each (first row, patch) written into its rows.

    Several patches of one hook can so share a forward pass, one below the other along the batch axis.
    """
    patched = activation.clone()
    for first_row, patch in patches:
        write_positions(patched, patch, first_row=first_row)
    return patched


@contextmanager
def patched(model: Any, patches: Sequence[Patch]) -> Iterator[Any]:
    """The model with the patches in place at every forward pass; they are gone afterwards, whatever happens inside.

    Raises:
        ValueError: the model has no such hook, or a basis is not orthonormal rows of the activation's size.
    """
    for patch in patches:
        if patch.hook not in model.hook_dict:
            raise ValueError(f"the model has no hook {patch.hook!r}")
        check_basis(patch.basis)
    hooks = [(patch.hook, partial(patch_activation, patches=[(0, patch)])) for patch in patches]
    with model.hooks(fwd_hooks=hooks):
        yield model


def check_basis(basis: Tensor | None) -> None:
    """Raise ValueError unless `basis` is None or has orthonormal rows, [rank, d]."""
    if basis is None:
        return
    if basis.ndim != 2:
        raise ValueError(f"a subspace's basis must be [rank, d], got shape {tuple(basis.shape)}")
    identity = torch.eye(len(basis), dtype=basis.dtype, device=basis.device)
    if not torch.allclose(basis @ basis.T, identity, atol=1e-4):
        raise ValueError(f"a subspace's basis must have orthonormal rows; its {len(basis)} rows are not")


def ablation_value(kind: Ablation, reference: Tensor, *, n: int, generator: torch.Generator | None = None) -> Tensor:
    """What an ablation writes into `n` examples, [n, k, ...].

    Args:
        kind: "zero", "mean" or "resample".
        reference: the activation at the site in reference examples, [n_reference, k, ...].
        n: number of examples to ablate.
        generator: draws the examples of "resample", with replacement.

    Raises:
        ValueError: an unknown kind, or "mean" or "resample" without reference examples.
    """
    if kind == "zero":
        return torch.zeros_like(reference[:1]).expand(n, *reference.shape[1:])
    if kind not in ("mean", "resample"):
        raise ValueError(f"ablation must be 'zero', 'mean' or 'resample', got {kind!r}")
    if not len(reference):
        raise ValueError(f"{kind} ablation needs reference examples, got none")
    if kind == "mean":
        return reference.mean(0, keepdim=True).expand(n, *reference.shape[1:])
    return reference[torch.randint(len(reference), (n,), generator=generator)]
