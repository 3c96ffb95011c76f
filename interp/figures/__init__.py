"""Figures: pure functions from a tidy frame (`interp.results`) to a plotly Figure or an SVG drawing.

For notebooks, the report, pages and the app.
Every figure reads rows and computes nothing heavy. Colour scales have fixed limits, so that two figures of one kind
compare by eye; a hover shows the estimate, its interval and n; controls stand beside what they control. A frame
without the rows that a figure needs raises ValueError.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.figures.accuracy import accuracy_by_block, accuracy_by_op, final_evaluation, learning_curve
    from interp.figures.circuits import circuit_graph
    from interp.figures.dissociation import along_curves, dissociation_matrices
    from interp.figures.faithfulness import circuits_overview, faithfulness_curve
    from interp.figures.heatmaps import iia_heatmap, probe_heatmap
    from interp.figures.interventions import where_kept
    from interp.figures.reliability import reliability_diagram, survival_curves
    from interp.figures.states import best_parts, state_delay
    from interp.figures.style import GLYPHS, OP_COLORS, node_words, op_words, site_words

__all__ = [
    "GLYPHS",
    "OP_COLORS",
    "accuracy_by_block",
    "accuracy_by_op",
    "along_curves",
    "best_parts",
    "circuit_graph",
    "circuits_overview",
    "dissociation_matrices",
    "faithfulness_curve",
    "final_evaluation",
    "iia_heatmap",
    "learning_curve",
    "node_words",
    "op_words",
    "probe_heatmap",
    "reliability_diagram",
    "site_words",
    "state_delay",
    "survival_curves",
    "where_kept",
]

_PLACES = {
    "accuracy": (
        "accuracy_by_block",
        "accuracy_by_op",
        "final_evaluation",
        "learning_curve",
    ),
    "circuits": ("circuit_graph",),
    "dissociation": (
        "along_curves",
        "dissociation_matrices",
    ),
    "reliability": (
        "reliability_diagram",
        "survival_curves",
    ),
    "faithfulness": (
        "circuits_overview",
        "faithfulness_curve",
    ),
    "heatmaps": (
        "iia_heatmap",
        "probe_heatmap",
    ),
    "interventions": ("where_kept",),
    "states": (
        "best_parts",
        "state_delay",
    ),
    "style": (
        "GLYPHS",
        "OP_COLORS",
        "node_words",
        "op_words",
        "site_words",
    ),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """The public names, imported at their first use: colours and words are wanted without plotly."""
    if name in _MODULES:
        return getattr(import_module(f"interp.figures.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
