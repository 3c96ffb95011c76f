"""Circuit files as the Circuit page draws them: contributions instead of effects, edges by size, two circuits compared.

A file holds effects m(corrupted) − m(clean), so what the answer needs is negative. A person asks how much of the
answer a part carries: the contribution is the effect with its sign turned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from app.components.lines import SizePoint
from app.run_access import fingerprint, require_current
from interp import Run, RunError
from interp.reading import BrokenFileError
from interp.runs import frame_command

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit


@dataclass(frozen=True)
class DrawnEdge:
    """An edge of the circuit that a person looks at, with its contribution (positive: the answer needs it)."""

    id: str  # its name, "input->a1.h3<q>"
    source: str  # the node that it leaves
    node: str  # the node that it leads to
    contribution: float
    shared: bool = False  # also in the circuit that is compared with


def read(run: Run, op: str) -> Circuit:
    """The circuit of an opcode. Raises RunError: not made yet, broken, or of another run."""
    file = run.path / "circuits" / f"{op}.json"
    mend = frame_command("circuits", run.path)
    if not file.exists():
        raise RunError(f"{file} does not exist yet; make it with: {mend}")
    try:
        circuit, provenance = _read(str(file), fingerprint(file))
    except BrokenFileError as error:
        raise RunError(f"{error}: {mend}") from None
    require_current(run, file, provenance, mend)
    return circuit


@st.cache_resource(show_spinner=False, max_entries=32)
def _read(file: str, fingerprint: str):
    from pathlib import Path

    from interp.circuits import read_circuit

    return read_circuit(Path(file))


def members(circuit: Circuit, n_edges: int) -> set[str]:
    """Ids of the edges of the circuit of `n_edges` edges by absolute score, pruned."""
    from interp.circuits import Graph

    graph = Graph(circuit.n_layers, circuit.n_heads)
    rows = {reader.name: row for row, reader in enumerate(graph.readers)}
    columns = {writer.name: column for column, writer in enumerate(graph.writers)}
    scores = np.zeros(graph.mask.shape)
    for edge in circuit.edges:
        scores[rows[edge.target], columns[edge.source]] = abs(edge.score)
    kept = graph.prune(graph.top(scores, n_edges))
    return {graph.edge(int(row), int(column)).name for row, column in zip(*np.nonzero(kept), strict=True)}


def drawn_edges(circuit: Circuit, kept: set[str], also: set[str]) -> list[DrawnEdge]:
    """The edges in `kept`, strongest first; those in `also` are marked as shared."""
    edges = [
        DrawnEdge(edge.name, edge.source, edge.node, -edge.score, edge.name in also)
        for edge in circuit.edges
        if edge.name in kept
    ]
    return sorted(edges, key=lambda edge: -abs(edge.contribution))


def curve(circuit: Circuit) -> list[SizePoint]:
    """Faithfulness by size, absolute ranking."""
    return [
        SizePoint(p.n_edges, p.estimate, p.ci_low, p.ci_high, p.null_mean, p.null_low, p.null_high)
        for p in circuit.faithfulness
    ]


def overlap(first: set[str], second: set[str], n_edges: int) -> tuple[float, float]:
    """Jaccard overlap of two edge sets, and what two random sets of these sizes have (the ratio of the means)."""
    union = len(first | second)
    by_chance = len(first) * len(second) / n_edges
    null = by_chance / (len(first) + len(second) - by_chance) if union else 0.0
    return (len(first & second) / union if union else 0.0), null
