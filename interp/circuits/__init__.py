"""Circuits: which edges of the residual stream carry an instruction, and the evidence for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from interp.circuits.along import AlongConfig, circuits_at
from interp.circuits.approximations import compare_approximations
from interp.circuits.attention import AttentionSummary, attention_patterns, read_attention, write_attention
from interp.circuits.attribution import eap, eap_ig
from interp.circuits.criteria import Completeness, NodeNeed, completeness, minimality
from interp.circuits.discovery import CircuitConfig, find_circuit, node_effects
from interp.circuits.dissociation import Dissociation, DissociationConfig, dissociate, dissociation_rows
from interp.circuits.evaluation import areas, faithfulness, ranked, run_circuits, size_grid
from interp.circuits.evidence import EvidenceConfig, gather_evidence
from interp.circuits.exact import exact_effects
from interp.circuits.examples import EdgeExamples, edge_examples, read_examples
from interp.circuits.freezes import FREEZES, freezes
from interp.circuits.graph import Edge, Graph, Reader, Writer
from interp.circuits.nodes import attribution_patching
from interp.circuits.overlap import Sharing, Stability, sharing, stability
from interp.circuits.pairs import Contrast, Pairs, draw_pairs
from interp.circuits.paths import parse_path, path_effects
from interp.circuits.positions import eap_ig_by_position, exact_by_position
from interp.circuits.roles import HeadRole, head_roles
from interp.circuits.search import Search, acdc, acdc_scores
from interp.circuits.seeds import match_heads, seed_agreement
from interp.circuits.store import Circuit, CircuitFileError, circuit_rows, read_circuit, write_circuit
from interp.tasks import Task

__all__ = [
    "FREEZES",
    "AlongConfig",
    "AttentionSummary",
    "Circuit",
    "CircuitConfig",
    "CircuitFileError",
    "Completeness",
    "Contrast",
    "Dissociation",
    "DissociationConfig",
    "Edge",
    "EdgeExamples",
    "EvidenceConfig",
    "Graph",
    "HeadRole",
    "NodeNeed",
    "Pairs",
    "Reader",
    "Search",
    "Sharing",
    "Stability",
    "Writer",
    "acdc",
    "acdc_scores",
    "areas",
    "attention_patterns",
    "attribution_patching",
    "circuit_rows",
    "circuits_at",
    "compare_approximations",
    "completeness",
    "dissociate",
    "dissociation_rows",
    "draw_pairs",
    "eap",
    "eap_ig",
    "eap_ig_by_position",
    "edge_examples",
    "exact_by_position",
    "exact_effects",
    "faithfulness",
    "find_circuit",
    "find_circuits",
    "freezes",
    "gather_evidence",
    "head_roles",
    "match_heads",
    "minimality",
    "node_effects",
    "parse_path",
    "path_effects",
    "ranked",
    "read_attention",
    "read_circuit",
    "read_examples",
    "run_circuits",
    "seed_agreement",
    "sharing",
    "size_grid",
    "stability",
    "write_attention",
    "write_circuit",
]

log = logging.getLogger(__name__)


def find_circuits(
    model: Any,
    task: Task,
    *,
    ops: Sequence[Contrast] | None = None,
    config: CircuitConfig = CircuitConfig(),  # noqa: B008  # frozen
    seed: int = 0,
    done: Collection[str] = (),
    save: Callable[[Circuit], None] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> tuple[list[Circuit], list[dict[str, Any]]]:
    """The circuit of each opcode, and its rows of the tidy frame.

    Args:
        model: the hooked transformer, in eval mode.
        task: draws the pairs.
        ops: opcodes and ways to freeze; all opcodes of the machine by default.
        config: numbers of pairs, sizes, null circuits and so on.
        seed: of pairs, null circuits and bootstrap.
        done: names of opcodes to leave out, being done already.
        save: called with each circuit as soon as it is found.
        progress: called with (opcodes done, of how many, what is going on); the first may be fractional.
    """
    left = [op for op in (task.spec.ops if ops is None else ops) if op.name not in done]
    circuits: list[Circuit] = []
    for index, op in enumerate(left):

        def report(share: float, index: int = index, op: Contrast = op) -> None:
            if progress is not None:
                progress(index + share, len(left), op.name)

        circuit = find_circuit(model, task, op, config=config, seed=seed, progress=report)
        log.info("%s: %d of %d edges, CMD %.3f", op.name, circuit.size, len(circuit.edges), circuit.cmd)
        circuits.append(circuit)
        if save is not None:
            save(circuit)
    return circuits, [row for circuit in circuits for row in circuit_rows(circuit)]
