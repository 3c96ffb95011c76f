"""Parts of what a model carries: all of it, a layer, a head or a group of channels, a subspace; and how each is named.

all                 everything
layer0              all carriers of a layer
layer0.head2        one head of a layer that has heads
layer0.group1       one of four groups of neighbouring channels, of a layer without heads
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.interventions.carrier import Carrier
from interp.interventions.interchange import random_basis
from interp.results import Method

N_GROUPS = 4
KINDS = ("all", "layers", "groups")
_CHANNELS = ("d_carry", "d_inner")  # the axis that groups are made of


@dataclass(frozen=True, eq=False)
class Part:
    """Some coordinates of the carrier (`mask` [size]), or a subspace of it (`basis` [rank, size], orthonormal rows)."""

    name: str
    mask: Tensor | None = None
    basis: Tensor | None = None
    method: Method = Method.FULL_VECTOR

    @property
    def size(self) -> int:
        """Numbers that are exchanged, of one position."""
        return int(self.mask.sum()) if self.mask is not None else 0 if self.basis is None else len(self.basis)

    def exchanged(self, base: Tensor, source: Tensor) -> Tensor:
        """Base [..., size] with this part from source."""
        if self.mask is not None:
            return torch.where(self.mask, source, base)
        assert self.basis is not None
        return base + (source - base) @ self.basis.T @ self.basis

    def random(self, size: int, *, generator: torch.Generator) -> Part | None:
        """A random part of equal size out of `size` coordinates; None where the part is everything."""
        if self.basis is not None:
            basis = random_basis(*self.basis.shape, generator=generator)
            return Part(self.name, basis=basis, method=self.method)
        if self.size == size:
            return None
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[: self.size]] = True
        return Part(self.name, mask=mask, method=self.method)


def parts_of(carrier: Carrier, names: Sequence[str] = KINDS) -> list[Part]:
    """The parts of these names; `layers` and `groups` stand for all of their kind.

    Raises:
        ValueError: there is no such part.
    """
    known = {part.name: part for part in _all_parts(carrier)}
    kinds = {
        "layers": [name for name in known if name.startswith("layer") and "." not in name],
        "groups": [name for name in known if "." in name],
    }
    wanted = [each for name in names for each in kinds.get(name, [name])]
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"the model carries no part {unknown[0]!r}; there are {', '.join(known)}, layers and groups")
    return [known[name] for name in dict.fromkeys(wanted)]


def _all_parts(carrier: Carrier) -> list[Part]:
    masks: dict[str, Tensor] = {"all": torch.ones(carrier.size, dtype=torch.bool)}

    def add(name: str, inside: slice, chosen: Tensor) -> None:
        mask = masks.setdefault(name, torch.zeros(carrier.size, dtype=torch.bool))
        mask[inside] |= chosen

    for (_, layer, inside), shape, axes in zip(carrier.places(), carrier.shapes, carrier.axes, strict=True):
        numbers = torch.zeros(shape)
        add(f"layer{layer}", inside, torch.ones_like(numbers).bool().flatten())
        if "head" in axes:
            axis, word, n = axes.index("head"), "head", shape[axes.index("head")]
        elif any(name in axes for name in _CHANNELS):
            axis = next(axes.index(name) for name in _CHANNELS if name in axes)
            word, n = "group", min(N_GROUPS, shape[axis])
        else:  # a convolution's window, which belongs to no head
            continue
        number = torch.arange(shape[axis]) * n // shape[axis]
        of = number.view([-1 if place == axis else 1 for place in range(len(shape))]).expand(shape).flatten()
        for each in range(n):
            add(f"layer{layer}.{word}{each}", inside, of == each)
    return [Part(name, mask=mask) for name, mask in masks.items()]
