"""The circuits of all instructions as small drawings side by side, and how faithful they are at every size."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from interp.figures.circuits import SMALL, graph_parts, strongest
from interp.figures.style import OP_COLORS, op_words
from interp.figures.svg import FAINT, QUIET, curve, dot, drawing, line, text
from interp.runs.circuit_files import Circuit, CircuitEdge

_DRAWN = 40  # edges a panel; more cannot be told apart
_OWN, _SOME, _ALL = "#D55E00", "#2E86C8", "#A9B0BA"
_WIDTH, _HEIGHT = SMALL.width + 20, SMALL.height + 36


def circuits_drawing(
    circuits: Sequence[Circuit], *, shared: Collection[str], own: Callable[[str], Collection[str]]
) -> str:
    """A panel a circuit: nodes from the input (left) to the logits (right), and its strongest edges.

    Args:
        circuits: of one model.
        shared: names of the edges that all of them hold, grey.
        own: for an instruction, names of the edges that it alone holds, orange; all others are blue.
    """
    n_columns = min(3, len(circuits))
    n_rows = math.ceil(len(circuits) / n_columns)
    parts = [
        text(
            10, 18, f"The {_DRAWN} strongest edges of each circuit; wider: larger |score|; dashed: in the way", size=13
        )
    ]
    for place, (colour, words) in enumerate(
        ((_ALL, "in every circuit"), (_SOME, "in some"), (_OWN, "in this one alone"))
    ):
        x = 12 + 150 * place
        parts += [line(x, 34, x + 20, 34, stroke=colour, width=3), text(x + 26, 38, words, size=11, fill=QUIET)]
    for place, circuit in enumerate(circuits):
        left, top = 10 + _WIDTH * (place % n_columns), 50 + _HEIGHT * (place // n_columns)
        parts += _panel(circuit, left, top, set(shared), set(own(circuit.op)))
    width, height = 20 + _WIDTH * n_columns, 60 + _HEIGHT * n_rows
    return drawing(parts, width=width, height=height, title="The circuit of each instruction")


def _panel(circuit: Circuit, left: float, top: float, shared: Collection[str], own: Collection[str]) -> list[str]:
    def colour(edge: CircuitEdge) -> str:
        return _ALL if edge.name in shared else _OWN if edge.name in own else _SOME

    members = strongest(circuit)
    graph = graph_parts(circuit, members, shown=members[:_DRAWN], form=SMALL, left=left, top=top + 20, colour=colour)
    return [text(left, top + 14, f"{op_words(circuit.op)}: {circuit.n_connected} edges", size=12), *graph]


def faithfulness_drawing(circuits: Sequence[Circuit]) -> str:
    """Faithfulness over the number of edges kept (log axis), a line an instruction; random circuits in grey."""
    width, left, right, top, bottom = 650.0, 48.0, 500.0, 34.0, 290.0
    sizes = [point.n_edges for circuit in circuits for point in circuit.faithfulness]
    low, high = min(sizes), max(max(sizes), min(sizes) + 1)
    values = [point.estimate for circuit in circuits for point in circuit.faithfulness]
    ends = min(-0.1, *values), max(1.1, *values)

    def at(size: float, value: float) -> tuple[float, float]:
        x = left + (right - left) * math.log(size / low) / math.log(high / low)
        return x, bottom - (bottom - top) * (value - ends[0]) / (ends[1] - ends[0])

    parts = [text(10, 18, "Faithfulness over edges kept: 1 = the full model, 0 = nothing", size=13)]
    for value in (0, 0.5, 0.9, 1):
        y = at(low, value)[1]
        parts += [line(left, y, right, y), text(left - 6, y + 4, f"{value:g}", size=10, fill=QUIET, anchor="end")]
    for size in sorted(set(sizes)):
        parts.append(text(at(size, 0)[0], bottom + 16, str(size), size=9, fill=QUIET, anchor="middle"))
    parts.append(text((left + right) / 2, bottom + 34, "edges kept", size=11, fill=QUIET, anchor="middle"))
    for circuit in circuits:
        null = [at(point.n_edges, point.null_mean) for point in circuit.faithfulness if point.null_mean is not None]
        if null:
            parts.append(curve(null, stroke=FAINT, width=2))
    for place, circuit in enumerate(circuits):
        colour, dash = OP_COLORS.get(circuit.op, QUIET), "4,3" if circuit.op == "ENDW" else ""
        points = [at(point.n_edges, point.estimate) for point in circuit.faithfulness]
        parts += [curve(points, stroke=colour, dash=dash), *(dot(*point, fill=colour, radius=2) for point in points)]
        y = 40 + 18 * place
        parts += [
            line(right + 16, y, right + 32, y, stroke=colour, width=3),
            text(right + 38, y + 4, circuit.op, size=10),
        ]
    parts.append(text(right + 16, 48 + 18 * len(circuits), "random circuits (grey)", size=10, fill=QUIET))
    return drawing(parts, width=width, height=bottom + 46, title="Faithfulness of each instruction's circuit by size")
