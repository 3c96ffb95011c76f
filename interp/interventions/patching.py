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

from interp.interventions.declared import axes_of, device_of, first_position, head_axis, position_axis, require_hook
from interp.ranges import counted

Ablation = Literal["zero", "mean", "resample"]


@dataclass(frozen=True)
class Patch:
    """What to write where: `value` into `hook` at `positions` (and `head`), or into its part in `basis` alone."""

    hook: str
    positions: Tensor  # long [batch, k]
    value: Tensor  # broadcastable to the activation there: [batch, k, d], or [batch, k, head, d_head] without `head`
    head: int | None = None
    basis: Tensor | None = None  # [rank, d], orthonormal rows


def by_position(activation: Tensor, axes: Sequence[str], hook: str) -> Tensor:
    """A view [batch, pos, …], with heads, where there are any, as [batch, pos, head, …].

    Args:
        activation: [batch, …], batch first.
        axes: the names of its axes. Where positions stand twice, as in attention patterns, it goes by the query's.
        hook: for the error.

    Raises:
        ValueError: the activation has no axis of positions.
    """
    names = tuple(axes)
    position = position_axis(names, hook)
    view = activation.movedim(position, 1)
    if "head" not in names:
        return view
    # the heads' axis moves back by one where it stood before the positions
    head = names.index("head")
    return view.movedim(head + 1 if head < position else head, 2)


def read_positions(
    activation: Tensor, axes: Sequence[str], hook: str, *, positions: Tensor, head: int | None = None, first: int = 0
) -> Tensor:
    """An activation at positions [batch, k]: [batch, k, …], of one head where `head` is given.

    Args:
        activation: as it is at `hook`.
        axes: the names of its axes, `model.axes(hook)`.
        hook: for the errors.
        positions: of each row.
        head: one of the heads.
        first: the position that the activation's first entry is about, see `declared.first_position`.

    Raises:
        ValueError: the activation has no axis of positions, none of heads, no such head, or not these positions.
    """
    view = by_position(activation, axes, hook)
    rows, positions = torch.arange(len(positions), device=view.device)[:, None], _within(positions, view, first, hook)
    return view[rows, positions] if head is None else view[rows, positions, _head(view, axes, hook, head)]


def write_positions(
    activation: Tensor, axes: Sequence[str], patch: Patch, *, first_row: int = 0, first: int = 0
) -> None:
    """Write a patch into the rows of `activation` from `first_row` on, in place.

    Raises:
        ValueError: as `read_positions`; or the patch's basis does not fit the activation.
    """
    view = by_position(activation, axes, patch.hook)
    rows = torch.arange(first_row, first_row + len(patch.positions), device=view.device)[:, None]
    where = (rows, _within(patch.positions, view, first, patch.hook))
    if patch.head is not None:
        where = (*where, _head(view, axes, patch.hook, patch.head))
    value = patch.value.to(view.dtype)
    if patch.basis is not None:
        basis = fitting(patch.basis, view, patch.hook)
        old = view[where]
        value = old + (value - old) @ basis.T @ basis
    view[where] = value


def _within(positions: Tensor, view: Tensor, first: int, hook: str) -> Tensor:
    """Positions of a record as those of an activation whose first entry is about position `first`."""
    if first == 0 and not (positions.numel() and int(positions.max()) >= view.shape[1]):
        return positions
    own = positions - first
    if own.numel() and not (int(own.min()) >= 0 and int(own.max()) < view.shape[1]):
        raise ValueError(
            f"{hook} is about positions {first} to {first + view.shape[1] - 1}; "
            f"got {int(positions.min())} to {int(positions.max())}"
        )
    return own


def _head(view: Tensor, axes: Sequence[str], hook: str, head: int) -> int:
    head_axis(tuple(axes), hook)
    if not 0 <= head < view.shape[2]:
        raise ValueError(f"{hook}: head must be from 0 to {view.shape[2] - 1}, got {head}")
    return head


def patch_activation(activation: Tensor, hook: Any, *, model: Any, patches: Sequence[tuple[int, Patch]]) -> Tensor:
    """The hook function: a copy of `activation` [batch, …] with each (first row, patch) written into its rows.

    Several patches of one hook can so share a forward pass, one below the other along the batch axis. The model is
    asked for the axes when the hook fires, since they may depend on which other hooks are live.
    """
    patched = activation.clone()
    for first_row, patch in patches:
        first = first_position(model, patch.hook)
        write_positions(patched, axes_of(model, patch.hook), patch, first_row=first_row, first=first)
    return patched


@contextmanager
def patched(model: Any, patches: Sequence[Patch]) -> Iterator[Any]:
    """The model with the patches in place at every forward pass; they are gone afterwards, whatever happens inside.

    Raises:
        ValueError: the model has no such hook, or a basis is not orthonormal rows of the activation's size.
    """
    for patch in patches:
        require_hook(model, patch.hook)
        check_basis(patch.basis, model)
    hooks = [(patch.hook, partial(patch_activation, model=model, patches=[(0, patch)])) for patch in patches]
    with model.hooks(fwd_hooks=hooks):
        yield model


def check_basis(basis: Tensor | None, model: Any) -> None:
    """Raise ValueError unless `basis` is None or has finite orthonormal rows, [rank, d], where the model is.

    Any floating dtype will do: it is cast to the activation's. Whether d fits is seen at the activation (`fitting`).
    """
    if basis is None:
        return
    if basis.ndim != 2:
        raise ValueError(f"a subspace's basis must be [rank, d], got shape {tuple(basis.shape)}")
    if not basis.is_floating_point():
        raise ValueError(f"a subspace's basis must hold floating-point numbers, got {basis.dtype}")
    if basis.device != (device := device_of(model)):
        raise ValueError(f"a subspace's basis must be where the model is, {device}; it is on {basis.device}")
    if not basis.isfinite().all():
        raise ValueError("a subspace's basis must be finite; it holds NaN or infinity")
    rows = basis.detach().double()
    # Half precision holds orthonormal rows to a few thousandths only.
    near = 1e-4 if torch.finfo(basis.dtype).bits >= 32 else 2e-2
    if not torch.allclose(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype, device=rows.device), atol=near):
        raise ValueError(f"a subspace's basis must have orthonormal rows; its {len(rows)} rows are not")


def fitting(basis: Tensor, activation: Tensor, hook: str) -> Tensor:
    """The basis in the dtype of an activation [..., d]. Raises ValueError where its rows are of another size."""
    if basis.shape[-1] != activation.shape[-1]:
        raise ValueError(
            f"a subspace at {hook} needs rows of size {activation.shape[-1]}, the activation's; "
            f"its basis has shape {tuple(basis.shape)}"
        )
    return basis.to(activation.dtype)


@counted(n=1)
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
