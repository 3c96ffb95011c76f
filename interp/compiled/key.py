"""The answer key of a compiled model: where each variable is, when it matters, and which edges each instruction uses.

Stream points are the hooks on the residual stream, in order: `blocks.0.hook_resid_pre`, then for each layer
`blocks.{l}.hook_resid_mid` and `blocks.{l}.hook_resid_post`. Positions are spelt as in interp.tasks.sites,
nodes and edges as in interp.circuits.graph.

*Live* is not *readable*: the stream keeps what has been written until the end, so a probe reads a variable long after
the last component has. A variable is live at a point where it stands and some component, on a path to the logits, is
yet to read it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.compiled.config import KEY_FILE
from interp.files import atomic_path, write_json
from interp.reading import BrokenFileError, read_json, read_tensors, reading
from interp.tasks.sites import Site

DIRECTIONS_FILE = "compiled.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Place:
    """A subspace at a set of positions."""

    positions: str
    space: str
    features: tuple[int, ...]  # rows of `AnswerKey.directions`


@dataclass(frozen=True)
class Carrier:
    """Something that holds a variable."""

    place: Place
    kind: Literal["stored", "written"]  # a slot of S_t that the variable is, or is fetched from; or a component's work
    writers: tuple[str, ...]  # nodes: "input", "a1.h0", "m1"
    readers: tuple[str, ...]  # inputs of nodes that read it on a path to the logits: "a2.h0<q>", "m2", "logits"
    first: int  # the first stream point at which it stands
    last: int  # the last one at which a reader is still to come; below `first` if nothing reads it


@dataclass(frozen=True)
class Swap:
    """Places that, taken from the source together at one hook, amount to do(variable): IIA is 1."""

    hook: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class VariableKey:
    """Where a variable of the machine is. No carriers: the model does not represent it."""

    variable: str
    carriers: tuple[Carrier, ...]
    swaps: tuple[
        Swap, ...
    ]  # one for each stream point where the variable stands and no other has been computed from it


@dataclass(frozen=True)
class CircuitKey:
    """What an instruction uses, for one way to ablate.

    An edge is true where replacing what it alone carries changes the metric of interp.circuits.pairs in at least one
    of `n` pairs, and a node where replacing what it writes, for all its readers at once, does.
    """

    op: str
    outcome: str | None  # None: the machine's natural distribution of outcomes
    ablation: str  # resample, mean or zero
    n: int
    edges: dict[str, float]  # edge -> mean of |change of the metric|; the true ones alone
    nodes: dict[str, float]  # node -> the same


@dataclass(frozen=True, eq=False)
class AnswerKey:
    """All of it, for one model."""

    task: str
    n_layers: int
    spaces: dict[str, int]  # subspace -> number of features, in order
    directions: Tensor  # direction of each feature in the residual stream, [n_features, d_model]
    components: dict[str, str]  # node -> what it does, in words; nodes of no effect are absent
    variables: dict[str, VariableKey]  # by variable, only those that the model represents
    circuits: tuple[CircuitKey, ...]
    noise: dict[str, Any]  # the knobs that it was compiled with
    sharpness: float = 12.0  # nats by which the key attended to outscores every other

    @cached_property
    def hooks(self) -> tuple[str, ...]:
        """The stream points in order."""
        return stream_hooks(self.n_layers)

    def basis(self, place: Place) -> Tensor:
        """Orthonormal rows that span a place's subspace, float32 [k, d_model]."""
        return orthonormal(self.directions[list(place.features)])

    def live(self, variable: str) -> list[Site]:
        """Every stream point and position set where the variable is live; empty if it is nowhere."""
        if variable not in self.variables:
            return []
        return [
            Site(self.hooks[point], carrier.place.positions)
            for carrier in self.variables[variable].carriers
            for point in range(carrier.first, carrier.last + 1)
        ]

    def circuit(self, op: str, *, outcome: str | None = None, ablation: str = "resample") -> CircuitKey:
        """The circuit of an instruction. Raises ValueError where the key has none."""
        for found in self.circuits:
            if (found.op, found.outcome, found.ablation) == (op, outcome, ablation):
                return found
        raise ValueError(f"the key has no circuit of {op} with outcome {outcome} under {ablation} ablation")

    def save(self, folder: Path) -> None:
        """Write compiled.json and compiled.safetensors."""
        from safetensors.torch import save_file

        with atomic_path(folder / DIRECTIONS_FILE) as temporary:
            save_file({"directions": self.directions.contiguous()}, temporary)
        values = {
            name: getattr(self, name) for name in ("task", "n_layers", "spaces", "components", "noise", "sharpness")
        }
        values["variables"] = [asdict(found) for found in self.variables.values()]
        values["circuits"] = [asdict(found) for found in self.circuits]
        write_json(folder / KEY_FILE, {"format": FORMAT, **values})

    @classmethod
    def load(cls, folder: str | Path) -> AnswerKey:
        """Read the key of a compiled run.

        Raises:
            ValueError: the folder has none.
            BrokenFileError: it is broken, or of another format.
        """
        file = Path(folder) / KEY_FILE
        if not file.exists():
            raise ValueError(f"{folder} has no {KEY_FILE}: only compiled runs have an answer key; see tapelens compile")
        values = read_json(file, "an answer key")
        if values.pop("format", None) != FORMAT:
            raise BrokenFileError(f"{file} is not a key of format {FORMAT}; compile the run again")
        tensors = file.with_name(DIRECTIONS_FILE)
        if not tensors.exists():
            raise BrokenFileError(f"{folder} has {KEY_FILE} without {DIRECTIONS_FILE}; compile the run again")
        directions, _ = read_tensors(tensors, "pt")
        with reading(file, "an answer key"):
            variables = {found["variable"]: _variable(found) for found in values.pop("variables")}
            circuits = tuple(CircuitKey(**found) for found in values.pop("circuits"))
            return cls(directions=directions["directions"], variables=variables, circuits=circuits, **values)


def stream_hooks(n_layers: int) -> tuple[str, ...]:
    """The hooks on the residual stream, in order."""
    layers = [(f"blocks.{layer}.hook_resid_mid", f"blocks.{layer}.hook_resid_post") for layer in range(n_layers)]
    return ("blocks.0.hook_resid_pre", *(hook for pair in layers for hook in pair))


def orthonormal(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same space, float32 [rank, d]."""
    _, values, basis = torch.linalg.svd(rows.to(torch.float64), full_matrices=False)
    return basis[values > 1e-6 * values.max()].float()


def _place(values: dict[str, Any]) -> Place:
    return Place(values["positions"], values["space"], tuple(values["features"]))


def _variable(values: dict[str, Any]) -> VariableKey:
    carriers = [
        Carrier(
            place=_place(found["place"]),
            kind=found["kind"],
            writers=tuple(found["writers"]),
            readers=tuple(found["readers"]),
            first=found["first"],
            last=found["last"],
        )
        for found in values["carriers"]
    ]
    swaps = [Swap(found["hook"], tuple(map(_place, found["places"]))) for found in values["swaps"]]
    return VariableKey(values["variable"], tuple(carriers), tuple(swaps))


def edge_matrix(graph: Any, circuit: CircuitKey) -> np.ndarray:
    """A circuit's true edges on a model's graph, bool [reader, writer]; rows are targets, columns sources."""
    found = np.zeros(graph.mask.shape, dtype=bool)
    for row, column in np.argwhere(graph.mask):
        found[row, column] = graph.edge(row, column).name in circuit.edges
    return found
