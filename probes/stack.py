"""Stacks of probes: how activations and labels line up, what is refused, and which probes share a computation.

Activations `X [*batch, n, d]` and labels `y [*batch, n]` broadcast over their batch dimensions as NumPy arrays do:

    X [n, d],       y [n]        one probe
    X [k, n, d],    y [n]        k sites, one variable
    X [n, d],       y [v, n]     one site, v variables
    X [k, n, d],    y [k, n]     k sites, each with its own labels
    X [k, 1, n, d], y [v, n]     every variable at every site: k × v probes

A label of -1 means "undefined here": that row is left out of that probe, and of no other. A row of weight 0 is too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from probes.activations import Array, as_activations, refuse_underflow
from probes.labels import encode, read_labels
from probes.row_weights import ClassWeight, as_sample_weight, class_factors

MIN_ROWS = 10  # fewer labelled rows than this fit no probe worth a number


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
    y: Tensor  # int64 [1 or s, v, n]: positions in labels, -1 where undefined
    labels: np.ndarray  # [C]: every label, ascending, as the caller wrote it
    counts: Tensor  # int64 [1 or s, v, C]: rows of each class
    weights: Tensor | None  # float64 like y, above 0 where y is defined; None: all alike
    axes: Axes

    @staticmethod
    def of(
        X: Array, y: Array, sample_weight: ArrayLike | Tensor | None = None, class_weight: ClassWeight = None
    ) -> "Stack":
        x = as_activations(X)
        n = x.shape[-2]
        codes, names = encode(read_labels(y, n=n))
        given = None if sample_weight is None else as_sample_weight(sample_weight, n=n)
        if given is not None:
            try:
                codes, given = np.broadcast_arrays(codes, given)
            except ValueError:
                raise ValueError(
                    f"sample_weight {list(given.shape)} must broadcast with y {list(codes.shape)}"
                ) from None
            codes = np.where(given > 0, codes, -1)
        axes = Axes.of(tuple(x.shape[:-2]), tuple(codes.shape[:-1]))
        x = x.reshape(axes.n_sites, *x.shape[-2:])
        refuse_underflow(x)
        weights = None if given is None else axes.split(torch.tensor(given, device=x.device), 1)
        positions = axes.split(torch.tensor(codes, device=x.device), 1)
        classes, positions = _positions(positions)
        labels = classes.cpu().numpy() if names is None else names[classes.cpu().numpy()]
        factors = class_factors(positions, weights, labels, class_weight)
        if factors is not None:
            weights = factors if weights is None else factors * weights
        counts = torch.stack([_counts(site, len(labels)) for site in positions])
        _refuse_thin(counts, axes)
        return Stack(x, positions, labels, counts, weights, axes)

    def designs(self, *, budget: int) -> Iterator[tuple[Tensor, Tensor | None, list[Problem]]]:
        """Yield (X [s, m, d], row weights [m] or None, problems): one set of rows a time, with all that share it.

        At most about `budget` numbers of X are handed out at once, one site at least.
        """
        shared = len(self.y) == 1
        per_site = self.x.shape[1] * self.x.shape[2]
        width = max(1, budget // per_site) if shared else 1
        for start in range(0, len(self.x), width):
            sites = slice(start, min(start + width, len(self.x)))
            labels = self.y[0] if shared else self.y[start]
            weights = None if self.weights is None else self.weights[0] if shared else self.weights[start]
            counts = self.counts[0 if shared else start]
            for rows, variables in _same_rows(labels, weights):
                x = self.x[sites] if rows is None else self.x[sites][:, rows]
                y = labels[variables] if rows is None else labels[variables][:, rows]
                r = None if weights is None else weights[variables[0]]
                r = r if r is None or rows is None else r[rows]
                groups = _by_classes(y, counts[variables] > 0)  # rows are all those where these are defined
                yield x, r, [Problem(sites, variables[members], local, seen) for members, local, seen in groups]


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


def _same_rows(y: Tensor, weights: Tensor | None) -> list[tuple[Tensor | None, Tensor]]:
    """Group variables [v, n] by the rows where they are defined and their weights: (rows or None, variables)."""
    defined = y >= 0
    if weights is None and bool(defined.all()):
        return [(None, torch.arange(len(y), device=y.device))]
    groups: dict[bytes, list[int]] = {}
    masks = np.packbits(defined.cpu().numpy(), axis=1)
    of_rows = np.empty((len(y), 0)) if weights is None else torch.where(defined, weights, 0.0).cpu().numpy()
    for variable, (mask, row) in enumerate(zip(masks, of_rows, strict=True)):
        groups.setdefault(mask.tobytes() + row.tobytes(), []).append(variable)
    found: list[tuple[Tensor | None, Tensor]] = []
    for variables in groups.values():
        mask = defined[variables[0]]
        rows = None if bool(mask.all()) else mask.nonzero()[:, 0]
        found.append((rows, torch.tensor(variables, device=y.device)))
    return found
