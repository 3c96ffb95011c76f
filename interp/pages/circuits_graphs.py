"""The circuits of all instructions as small drawings side by side, and how faithful they are at every size."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

from interp.figures.style import OP_COLORS, op_words
from interp.figures.svg import FAINT, INK, QUIET, curve, dot, drawing, line, text
from interp.runs.circuit_files import Circuit

_DRAWN = 40  # edges a panel; more cannot be told apart
_OWN, _SOME, _ALL = "#D55E00", "#2E86C8", "#A9B0BA"
_WIDTH, _HEIGHT = 300.0, 176.0


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
    parts = [text(10, 18, f"The {_DRAWN} strongest edges of each circuit; width: |score|, 1 = the strongest", size=13)]
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


def _panel(circuit: Circuit, left: float, top: float, shared: set[str], own: set[str]) -> list[str]:
    places = _node_places(circuit, left + 14, top + 26)
    edges = [edge for edge in circuit.edges if edge.in_circuit]
    edges = sorted(edges, key=lambda edge: -abs(edge.score))[:_DRAWN]
    most = max((abs(edge.score) for edge in edges), default=0.0) or 1.0
    parts = [text(left, top + 14, f"{op_words(circuit.op)}: {circuit.n_connected} edges", size=12)]
    for edge in reversed(edges):
        name = f"{edge.source}->{edge.target}"
        colour = _ALL if name in shared else _OWN if name in own else _SOME
        start, end = places[edge.source], places[edge.target.split("<")[0]]
        parts.append(line(*start, *end, stroke=colour, width=0.6 + 3.4 * abs(edge.score) / most))
    touched = {end for edge in edges for end in (edge.source, edge.target.split("<")[0])}
    for node, (x, y) in places.items():
        parts.append(dot(x, y, fill=INK if node in touched else FAINT, radius=3.5))
        if node in ("input", "logits"):
            parts.append(text(x, y + 15, node, size=9, fill=QUIET, anchor="start" if node == "input" else "end"))
    for layer in range(circuit.n_layers):
        x = places[f"a{layer}.h0"][0]
        parts.append(text(x, top + _HEIGHT - 12, f"L{layer}", size=9, fill=QUIET, anchor="middle"))
        parts.append(text(places[f"m{layer}"][0], top + _HEIGHT - 12, "MLP", size=9, fill=QUIET, anchor="middle"))
    return parts


def _node_places(circuit: Circuit, left: float, top: float) -> dict[str, tuple[float, float]]:
    """Heads stand one below the other, a layer's MLP to the right of them."""
    step = (_WIDTH - 46) / (2 * circuit.n_layers + 1)
    gap = (_HEIGHT - 62) / max(1, circuit.n_heads - 1)
    middle = top + (_HEIGHT - 62) / 2
    places = {"input": (left, middle), "logits": (left + step * (2 * circuit.n_layers + 1), middle)}
    for layer in range(circuit.n_layers):
        for head in range(circuit.n_heads):
            places[f"a{layer}.h{head}"] = (left + step * (2 * layer + 1), top + gap * head)
        places[f"m{layer}"] = (left + step * (2 * layer + 2), middle)
    return places


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
