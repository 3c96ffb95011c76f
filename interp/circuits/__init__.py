"""Circuits: which edges of the residual stream carry an instruction, and the evidence for it."""

from interp.circuits.attention import AttentionSummary, attention_patterns, read_attention, write_attention
from interp.circuits.attribution import eap, eap_ig, incompleteness
from interp.circuits.config import CircuitConfig
from interp.circuits.criteria import Completeness, NodeNeed, completeness, minimality
from interp.circuits.discovery import find_circuit, find_circuits
from interp.circuits.exact import exact_effects
from interp.circuits.faithfulness import areas, faithfulness, ranked, run_circuits, size_grid
from interp.circuits.graph import Edge, Graph, Reader, Writer
from interp.circuits.mending import Mending, mend
from interp.circuits.nodes import attribution_patching, node_effects
from interp.circuits.overlap import Sharing, Stability, sharing, stability
from interp.circuits.pairs import Pairs, draw_pairs, main_contrasts, other_contrasts
from interp.circuits.paths import parse_path, path_effects
from interp.circuits.positions import eap_ig_by_position, exact_by_position
from interp.circuits.roles import HeadRole, head_roles
from interp.circuits.routes import Route, edge_routes, read_routes, traced
from interp.circuits.scorers import SCORERS, Scorer, Scoring, score_edges
from interp.circuits.search import Search, acdc, acdc_scores
from interp.runs.circuit_files import Circuit, CircuitFileError, circuit_rows, read_circuit, write_circuit

__all__ = [
    "SCORERS",
    "AttentionSummary",
    "Circuit",
    "CircuitConfig",
    "CircuitFileError",
    "Completeness",
    "Edge",
    "Graph",
    "HeadRole",
    "Mending",
    "NodeNeed",
    "Pairs",
    "Reader",
    "Route",
    "Scorer",
    "Scoring",
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
    "completeness",
    "draw_pairs",
    "eap",
    "eap_ig",
    "eap_ig_by_position",
    "edge_routes",
    "exact_by_position",
    "exact_effects",
    "faithfulness",
    "find_circuit",
    "find_circuits",
    "head_roles",
    "incompleteness",
    "main_contrasts",
    "mend",
    "minimality",
    "node_effects",
    "other_contrasts",
    "parse_path",
    "path_effects",
    "ranked",
    "read_attention",
    "read_circuit",
    "read_routes",
    "run_circuits",
    "score_edges",
    "sharing",
    "size_grid",
    "stability",
    "traced",
    "write_attention",
    "write_circuit",
]
