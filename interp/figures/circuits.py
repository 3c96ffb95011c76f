"""A circuit drawn as a layered graph: the one drawing that the report, the pages in docs/ and the app share.

A file holds effects m(corrupted) - m(clean) of the logit difference m: what the answer needs is negative there.
Drawings show the contribution, the effect with its sign turned: positive (solid, blue) is what the answer needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from interp.figures.style import DARK_TEXT, NEGATIVE, PICKED, POSITIVE, node_words, op_words
from interp.figures.svg import INHERITED, Drawing, drawing, text

if TYPE_CHECKING:
    from interp.runs.circuit_files import Circuit, CircuitEdge, CircuitNode

_HELPS, _HURTS, _ASIDE = "#9CC7E6", "#F2B872", "#D3D8DE"  # node fills that dark text reads on
_BENDS = {"q": 0.32, "k": 0.14, "v": -0.22}  # how far an edge leaves the straight line, by which input it feeds
_TOUCHED = 12.0  # width of what can be picked of an edge, thin as it may be


@dataclass(frozen=True)
class Form:
    """How large a graph is drawn."""

    width: float
    height: float
    radius: float  # of a head
    thin: float  # of the weakest edge drawn
    thick: float  # of the strongest
    labels: bool = True  # nodes carry their names, and say what was measured of them


LARGE = Form(width=720, height=430, radius=20, thin=0.6, thick=8.0)
SMALL = Form(width=280, height=140, radius=3.5, thin=0.4, thick=3.6, labels=False)


def circuit_graph(
    circuit: Circuit,
    *,
    kept: Collection[str] | None = None,
    max_edges: int = 60,
    picked: str = "",
    pick: Callable[[str, str, str], str] | None = None,
) -> Drawing:
    """A circuit as a layered node-link drawing: the model's input left, its logits right.

    Width is |score|; blue and solid is what the answer needs, orange and dashed what works against it. A node's colour
    is its measured effect: blue it is needed, orange in the way, grey neither beyond its interval, dotted outside the
    circuit. Edges into one head bend apart: queries, keys, values. Where the mouse rests, words and numbers appear.

    Args:
        circuit: what `interp.circuits.read_circuit` returns.
        kept: names of the edges that make the circuit (default: those of the chosen circuit).
        max_edges: draw at most so many, those of largest |score|; the heading says how many there are.
        picked: id of a node or name of an edge to be outlined.
        pick: (kind, id, words) to the attributes that make an element pickable; kind is "node" or "edge".

    Raises:
        ValueError: the circuit has no edges.
    """
    members = strongest(circuit, kept)
    if not members:
        raise ValueError(f"the circuit of {circuit.op} has no edges to draw")
    shown = members[:max_edges]
    count = f"{len(members)} edges" if len(shown) == len(members) else f"strongest {len(shown)} of {len(members)} edges"
    words = f"{op_words(circuit.op)}: {count} (the model has {len(circuit.edges)})"
    top = 24.0 if pick is None else 0.0  # the app says the heading in its own words
    parts = [] if pick is not None else [text(4, 15, words, size=13, fill=INHERITED)]
    parts += graph_parts(circuit, members, shown=shown, form=LARGE, top=top, picked=picked, pick=pick)
    return drawing(
        parts, width=LARGE.width, height=LARGE.height + top, title=words, inside=True, pickable=pick is not None
    )


def strongest(circuit: Circuit, kept: Collection[str] | None = None) -> list[CircuitEdge]:
    """The edges of a circuit, or those named, by falling |score|."""
    members = [edge for edge in circuit.edges if (edge.in_circuit if kept is None else edge.name in kept)]
    return sorted(members, key=lambda edge: -abs(edge.score))


def graph_parts(
    circuit: Circuit,
    members: Sequence[CircuitEdge],
    *,
    shown: Sequence[CircuitEdge],
    form: Form,
    left: float = 0.0,
    top: float = 0.0,
    colour: Callable[[CircuitEdge], str] | None = None,
    picked: str = "",
    pick: Callable[[str, str, str], str] | None = None,
) -> list[str]:
    """The elements of one graph: edges, over them nodes, below them layers.

    Args:
        circuit: whose nodes are drawn.
        members: the edges that make it; nodes that none of them touches are outside.
        shown: of these, the edges that are drawn, strongest first.
        form: how large.
        left: where it begins.
        top: where it begins.
        colour: of an edge (default: by its sign).
        picked: see `circuit_graph`.
        pick: see `circuit_graph`.
    """
    places = _places(circuit, form, left, top)
    largest = max((abs(edge.score) for edge in shown), default=0.0) or 1.0
    parts = []
    for edge in reversed(shown):  # the strongest lie on top
        stroke = PICKED if edge.name == picked else colour(edge) if colour else _sign(edge.score)
        parts.append(_edge(edge, places, form, share=abs(edge.score) / largest, stroke=stroke, pick=pick))
    inside = {end for edge in members for end in (edge.source, edge.node)}
    most = max((abs(node.effect or 0.0) for node in circuit.nodes), default=0.0) or 1.0
    for node in circuit.nodes:
        parts.append(_node(node, places[node.id], form, node.id in inside, most, outlined=node.id == picked, pick=pick))
    return parts + _layers(circuit, places, form, top)


def _places(circuit: Circuit, form: Form, left: float, top: float) -> Mapping[str, tuple[float, float]]:
    """x along the model (a column for a layer's heads, then one for its MLP), y down the heads."""
    n_layers, n_heads = circuit.n_layers, circuit.n_heads
    margin = 1.6 * form.radius + 2
    step = (form.width - 2 * margin) / (2 * n_layers + 1)
    room = form.height - 2 * margin - 16  # words on layers stand below
    gap = room / (n_heads + 0.1 if form.labels else n_heads)

    def at(x: float, y: float) -> tuple[float, float]:
        return left + margin + step * x, top + margin + gap * y

    middle = (n_heads - 1) / 2
    places = {"input": at(0, middle), "logits": at(2 * n_layers + 1, middle)}
    for layer in range(n_layers):
        for head in range(n_heads):
            # every other head stands a little aside, so that edges along a row do not hide behind nodes
            places[f"a{layer}.h{head}"] = at(2 * layer + 1 + 0.22 * (head % 2), head)
            if 0 < circuit.n_encoder <= layer:  # cross-attention stands between a layer's own heads and its MLP
                places[f"c{layer}.h{head}"] = at(2 * layer + 1.5 + 0.22 * (head % 2), head + 0.5)
        places[f"m{layer}"] = at(2 * layer + 2, n_heads)
    return places


def _edge(
    edge: CircuitEdge,
    places: Mapping[str, tuple[float, float]],
    form: Form,
    *,
    share: float,
    stroke: str,
    pick: Callable[[str, str, str], str] | None,
) -> str:
    """A quadratic curve from source to target."""
    (x0, y0), (x1, y1) = places[edge.source], places[edge.node]
    bend = _BENDS.get(edge.edge.target.kind, 0.08) * form.height / 8 * min(1.0, (x1 - x0) / form.width * 3)
    path = f'd="M{x0:.5g},{y0:.5g}Q{(x0 + x1) / 2:.5g},{(y0 + y1) / 2 + bend:.5g},{x1:.5g},{y1:.5g}" fill="none"'
    width = form.thin + (form.thick - form.thin) * share**0.5
    dash = "" if edge.score <= 0 else ' stroke-dasharray="5,4"'
    opacity = 1.0 if stroke == PICKED else 0.25 + 0.65 * share**0.25
    line = f'<path {path} stroke="{stroke}" stroke-width="{width:.3g}" opacity="{opacity:.2g}"{dash}/>'
    if not form.labels:
        return line
    touched = f'<path {path} stroke="transparent" stroke-width="{max(width, _TOUCHED):.3g}"/>' if pick else ""
    return _group("edge", edge.name, f"{line}{touched}", edge_words(edge), pick)


def _node(
    node: CircuitNode,
    place: tuple[float, float],
    form: Form,
    inside: bool,
    most: float,
    *,
    outlined: bool,
    pick: Callable[[str, str, str], str] | None,
) -> str:
    """A disc for a head, a box for all others, the larger the more is lost without it."""
    (x, y), r = place, form.radius
    if not form.labels:
        fill = DARK_TEXT if inside else _ASIDE
        return f'<circle cx="{x:.5g}" cy="{y:.5g}" r="{r:g}" fill="{fill}"/>'
    if node.effect is not None:
        r *= 0.75 + 0.45 * (abs(node.effect) / most) ** 0.5
    look = f'fill="{_fill(node) if inside else "none"}" stroke="{PICKED if outlined else "#4A5563"}"'
    look += f' stroke-width="{4 if outlined else 1}"' + ("" if inside or outlined else ' stroke-dasharray="2,2"')
    if node.kind == "head":
        shape = f'<circle cx="{x:.5g}" cy="{y:.5g}" r="{r:.3g}" {look}/>'
    else:
        w, h = (26.0, 15.0) if node.effect is None else (1.3 * r, 0.8 * r)
        shape = f'<rect x="{x - w:.5g}" y="{y - h:.5g}" width="{2 * w:.3g}" height="{2 * h:.3g}" rx="4" {look}/>'
    ink = DARK_TEXT if inside else INHERITED
    label = text(x, y + 4, node_words(node.id), size=11, fill=ink, anchor="middle")
    return _group("node", node.id, shape + label, _node_tip(node, inside), pick)


def _layers(circuit: Circuit, places: Mapping[str, tuple[float, float]], form: Form, top: float) -> list[str]:
    """Which columns are which layer; in small graphs also what the dots at the ends are."""
    y, parts = top + form.height - 4, []
    size = 11 if form.labels else 9
    for layer in range(circuit.n_layers):
        x = places[f"a{layer}.h0"][0]
        words = f"layer {layer}" if form.labels else f"L{layer}"
        parts.append(text(x, y, words, size=size, fill=INHERITED, anchor="middle"))
        if not form.labels:
            parts.append(text(places[f"m{layer}"][0], y, "MLP", size=size, fill=INHERITED, anchor="middle"))
    if not form.labels:
        for node, anchor in (("input", "start"), ("logits", "end")):
            x, y = places[node]
            parts.append(text(x, y + 15, node, size=size, fill=INHERITED, anchor=anchor))
    return parts


def _group(kind: str, id_: str, body: str, tip: str, pick: Callable[[str, str, str], str] | None) -> str:
    """An element that says what it is where the mouse rests, and perhaps can be picked."""
    attributes = f" {pick(kind, id_, tip)}" if pick else ""
    return f"<g{attributes}><title>{escape(tip)}</title>{body}</g>"


def edge_words(edge: CircuitEdge) -> str:
    """An edge in words: where from, where to, its contribution by score and, where it was patched, as measured."""
    words = f"{node_words(edge.source)} → {node_words(edge.target)}: contribution by score {-edge.score:+.3f}"
    if edge.exact is None or edge.exact_low is None or edge.exact_high is None:
        return words
    return f"{words}, really patched {-edge.exact:+.3f} [{-edge.exact_high:+.3f}, {-edge.exact_low:+.3f}]"


def _node_tip(node: CircuitNode, inside: bool) -> str:
    words = node_words(node.id)
    if node.effect is not None and node.effect_low is not None and node.effect_high is not None:
        words += f": contribution {-node.effect:+.3f} [{-node.effect_high:+.3f}, {-node.effect_low:+.3f}]"
    return words if inside else f"{words}, not in the circuit"


def _sign(score: float) -> str:
    return POSITIVE if score <= 0 else NEGATIVE


def _fill(node: CircuitNode) -> str:
    if node.effect is None or node.effect_low is None or node.effect_high is None:
        return _ASIDE
    if node.effect_low <= 0 <= node.effect_high:
        return _ASIDE
    return _HELPS if node.effect < 0 else _HURTS
