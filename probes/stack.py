"""Stacks of probes: how activations and labels line up, what is refused, and which probes share a computation.

Activations `X [*batch, n, d]` and labels `y [*batch, n]` broadcast over their batch dimensions as NumPy arrays do:

    X [n, d],       y [n]        one probe
    X [k, n, d],    y [n]        k sites, one variable
    X [n, d],       y [v, n]     one site, v variables
    X [k, n, d],    y [k, n]     k sites, each with its own labels
    X [k, 1, n, d], y [v, n]     every variable at every site: k × v probes

A label of -1 means "undefined here": that row is left out of that probe, and of no other.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

MIN_ROWS = 10  # fewer labelled rows than this fit no probe worth a number

Array = np.ndarray | Tensor


@dataclass(frozen=True)
class Axes:
    """Which batch axes are sites (X differs along them) and which are variables (X is shared along them)."""

    batch: tuple[int, ...]
    sites: tuple[int, ...]
    variables: tuple[int, ...]

    @staticmethod
    def of(x_batch: tuple[int, ...], other: tuple[int, ...], what: str = "y") -> "Axes":
        try:
            batch = np.broadcast_shapes(x_batch, other)
        except ValueError:
            raise ValueError(
                f"batch dimensions of X {list(x_batch)} and {what} {list(other)} must broadcast together"
            ) from None
        padded = (1,) * (len(batch) - len(x_batch)) + tuple(x_batch)
        sites = tuple(i for i, size in enumerate(padded) if size > 1)
        return Axes(batch, sites, tuple(i for i in range(len(batch)) if i not in sites))

    @property
    def n_sites(self) -> int:
        return prod(self.batch[i] for i in self.sites)

    @property
    def n_variables(self) -> int:
        return prod(self.batch[i] for i in self.variables)

    def split(self, values: Tensor, ndim: int) -> Tensor:
        """[*any batch that broadcasts, *last ndim] → [n_sites or 1, n_variables, *last ndim]."""
        last = values.shape[values.ndim - ndim :]
        lead = values.shape[: values.ndim - ndim]
        lead = (1,) * (len(self.batch) - len(lead)) + tuple(lead)
        shared = all(lead[i] == 1 for i in self.sites)
        target = tuple(1 if shared and i in self.sites else size for i, size in enumerate(self.batch))
        values = values.reshape([*lead, *last]).expand([*target, *last])
        order = [*self.sites, *self.variables, *range(len(lead), len(lead) + ndim)]
        return values.permute(order).reshape(1 if shared else self.n_sites, self.n_variables, *last)

    def join(self, values: Tensor) -> np.ndarray:
        """[n_sites, n_variables, *last] → NumPy [*batch, *last]."""
        last = values.shape[2:]
        order = [*self.sites, *self.variables]
        values = values.reshape([*(self.batch[i] for i in order), *last])
        back = [order.index(i) for i in range(len(order))]
        return values.permute([*back, *range(len(order), values.ndim)]).contiguous().cpu().numpy()

    def name(self, site: int, variable: int) -> str:
        """Which probe of the stack this is, for error messages; empty for a single probe."""
        if not self.batch:
            return ""
        index: list[int] = [0] * len(self.batch)
        for axes, flat in ((self.sites, site), (self.variables, variable)):
            for i, value in zip(axes, np.unravel_index(flat, [self.batch[i] for i in axes] or [1]), strict=False):
                index[i] = int(value)
        return f" of probe {index}"


def as_activations(X: Array) -> Tensor:
    """X as a float32 or float64 tensor [*batch, n, d] on its own device; refuses other shapes and non-finite values."""
    if isinstance(X, Tensor):
        x = X.detach()
    else:
        array = np.asarray(X)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"X must hold real numbers, got dtype {array.dtype}")
        plain = array.flags.writeable and min(array.strides, default=0) >= 0
        x = torch.from_numpy(array if plain else array.copy())
    if x.is_complex():
        raise TypeError(f"X must hold real numbers, got dtype {x.dtype}")
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if x.ndim < 2:
        raise ValueError(f"X must have shape [n, d] or [*batch, n, d], got {list(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"X must not be empty, got shape {list(x.shape)}")
    if not torch.isfinite(x.sum()) and not torch.isfinite(x).all():
        raise ValueError(f"X must be finite, got {int((~torch.isfinite(x)).sum())} NaN or infinite values")
    return x


def as_labels(y: Array, *, n: int, device: torch.device | None = None) -> Tensor:
    """y as an int64 tensor [*batch, n] with values >= -1; refuses other shapes, types and values."""
    if isinstance(y, Tensor):
        labels = y.detach()
        integral = not (labels.is_floating_point() or labels.is_complex())
    else:
        array = np.asarray(y)
        integral = array.dtype.kind in "iub"
        labels = torch.from_numpy(array.astype(np.int64)) if integral else torch.empty(0)
    if not integral:
        raise TypeError(f"y must hold integer class labels, got dtype {getattr(y, 'dtype', type(y).__name__)}")
    if labels.ndim < 1 or labels.shape[-1] != n:
        raise ValueError(f"y must have one label a row of X, shape [*batch, {n}], got {list(labels.shape)}")
    labels = labels.to(device=device, dtype=torch.int64)
    if labels.numel() and int(labels.min()) < -1:
        raise ValueError(f"y must hold labels >= 0, or -1 where undefined, got {int(labels.min())}")
    return labels


@dataclass(frozen=True)
class Problem:
    """Probes that are solved together: the same rows of some sites, and variables with as many classes each."""

    sites: slice
    variables: Tensor  # int64 [v]: which variables of the stack
    labels: Tensor  # int64 [v, m] in 0 … c-1, on the rows where these variables are defined
    seen: Tensor  # int64 [v, c]: position in the stack's classes of each of those labels


@dataclass(frozen=True)
class Stack:
    """Checked training data, and how results go back to the caller's batch shape."""

    x: Tensor  # [s, n, d]
    y: Tensor  # int64 [1 or s, v, n]: positions in classes, -1 where undefined
    classes: Tensor  # int64 [C]: every label, ascending
    counts: Tensor  # int64 [1 or s, v, C]: rows of each class
    axes: Axes

    @staticmethod
    def of(X: Array, y: Array) -> "Stack":
        x = as_activations(X)
        labels = as_labels(y, n=x.shape[-2], device=x.device)
        axes = Axes.of(tuple(x.shape[:-2]), tuple(labels.shape[:-1]))
        classes, labels = _positions(axes.split(labels, 1))
        counts = torch.stack([_counts(site, len(classes)) for site in labels])
        _refuse_thin(counts, axes)
        return Stack(x.reshape(axes.n_sites, *x.shape[-2:]), labels, classes, counts, axes)

    def designs(self, *, budget: int) -> Iterator[tuple[Tensor, list[Problem]]]:
        """Yield (X [s, m, d], problems): one set of rows a time, with all the problems that share it.

        At most about `budget` numbers of X are handed out at once, one site at least.
        """
        shared = len(self.y) == 1
        per_site = self.x.shape[1] * self.x.shape[2]
        width = max(1, budget // per_site) if shared else 1
        for start in range(0, len(self.x), width):
            sites = slice(start, min(start + width, len(self.x)))
            labels = self.y[0] if shared else self.y[start]
            for rows, variables in _same_rows(labels):
                x = self.x[sites] if rows is None else self.x[sites][:, rows]
                y = labels[variables] if rows is None else labels[variables][:, rows]
                groups = _by_classes(y, _counts(y, len(self.classes)) > 0)
                yield x, [Problem(sites, variables[members], local, seen) for members, local, seen in groups]


def _positions(y: Tensor) -> tuple[Tensor, Tensor]:
    """(classes [C] ascending, y with each label >= 0 replaced by its position among them)."""
    classes = y.unique() if int(y.max()) > 1 << 16 else torch.bincount(y.flatten() + 1).nonzero()[:, 0] - 1
    classes = classes[classes >= 0]
    if len(classes) and int(classes[-1]) == len(classes) - 1:
        return classes, y.contiguous()
    return classes, torch.where(y >= 0, torch.searchsorted(classes, y.contiguous()), -1)


def _counts(y: Tensor, n_classes: int) -> Tensor:
    """int64 [v, n_classes]: rows of each class of y [v, n], -1 left out."""
    width = n_classes + 1
    flat = y + 1 + width * torch.arange(len(y), device=y.device)[:, None]
    return torch.bincount(flat.flatten(), minlength=len(y) * width).view(len(y), width)[:, 1:]


def _refuse_thin(counts: Tensor, axes: Axes) -> None:
    rows, n_classes = counts.sum(-1), (counts > 0).sum(-1)
    for value, need, what in ((rows, MIN_ROWS, "labelled rows"), (n_classes, 2, "classes")):
        few = (value < need).nonzero()
        if len(few):
            site, variable = few[0].tolist()
            got = int(value[site, variable])
            raise ValueError(f"y{axes.name(site, variable)} must have at least {need} {what}, got {got}")


def _by_classes(y: Tensor, present: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Group labels y [v, m] by number of classes present [v, C]: yield (members, labels in 0 … c-1, seen)."""
    sizes = present.sum(1)
    local = present.cumsum(1) - 1
    for c in sizes.unique().tolist():
        members = (sizes == c).nonzero()[:, 0]
        seen = present[members].nonzero()[:, 1].view(len(members), c)
        mapped = y[members] if c == present.shape[1] else local[members].gather(1, y[members])
        yield members, mapped, seen


def _same_rows(y: Tensor) -> list[tuple[Tensor | None, Tensor]]:
    """Group variables [v, n] by the rows where they are defined: [(rows or None for all, variables)]."""
    defined = y >= 0
    if bool(defined.all()):
        return [(None, torch.arange(len(y), device=y.device))]
    groups: dict[bytes, list[int]] = {}
    for variable, mask in enumerate(np.packbits(defined.cpu().numpy(), axis=1)):
        groups.setdefault(mask.tobytes(), []).append(variable)
    found: list[tuple[Tensor | None, Tensor]] = []
    for variables in groups.values():
        mask = defined[variables[0]]
        rows = None if bool(mask.all()) else mask.nonzero()[:, 0]
        found.append((rows, torch.tensor(variables, device=y.device)))
    return found
