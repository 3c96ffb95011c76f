"""Figures show the frame's own numbers, on fixed scales, the right rows and no others."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from interp import figures
from interp.circuits import Circuit, circuit_rows
from interp.figures.style import OP_COLORS, PICKED
from interp.results import rows_frame, site_order
from interp.runs.circuit_files import CircuitEdge, CircuitNode, FaithfulnessPoint

STRATA = [("NEXT", "RAN"), ("PREV", "ARRAY_UNDERFLOW"), ("INC", "VALUE_OVERFLOW")]


def traces(drawn: go.Figure) -> list[Any]:
    return list(drawn.data)


def evaluation(step: int, n: int, share: float, *, blocks: bool = False) -> list[dict[str, Any]]:
    """Rows of one evaluation; the shares of the strata are share, share + .01, share + .02."""
    common = {"checkpoint_step": step, "method": "greedy", "aggregation": "mean", "n": n, "interval_kind": "wilson"}
    rows: list[dict[str, Any]] = [
        {"checkpoint_step": step, "method": "greedy", "metric": "exact_match", "aggregation": "macro",
         "estimate": share + 0.01, "n": 3 * n}
    ]  # fmt: skip
    for place, (op, outcome) in enumerate(STRATA):
        estimate = share + place / 100
        bounds = {"ci_low": estimate - 0.02, "ci_high": min(1.0, estimate + 0.01)}
        key = {**common, "op": op, "stratum": outcome, **bounds}
        rows.append({**key, "metric": "exact_match", "estimate": estimate})
        if blocks:
            rows.append({**key, "metric": "block_accuracy", "position": "cells", "estimate": estimate + 0.001})
            rows.append({**key, "metric": "block_accuracy", "position": "output", "estimate": 1.0})
    return rows


@pytest.fixture
def metrics() -> pd.DataFrame:
    """A curve of two evaluations, the first by far the largest of all, and a final one at the last step."""
    training = [
        {
            "checkpoint_step": step,
            "method": "training",
            "metric": metric,
            "aggregation": "mean",
            "estimate": value,
            "n": 8,
        }
        for step, loss in ((10, 0.5), (20, 0.05))
        for metric, value in (("loss", loss), ("records", step * 8.0))
    ]
    return rows_frame(
        [*training, *evaluation(10, 90_000, 0.5), *evaluation(20, 100, 0.7), *evaluation(20, 4000, 0.9, blocks=True)]
    )


def test_accuracy_shows_the_last_and_largest_evaluation(metrics: pd.DataFrame) -> None:
    drawn = figures.accuracy_by_op(metrics)
    points = traces(drawn)[0]
    assert points.x == pytest.approx((0.90, 0.91, 0.92))
    assert [label.split(" · ")[0] for label in points.y] == ["> NEXT", "&lt; PREV", "+ INC"]  # plotly reads HTML
    assert np.subtract(points.x, points.error_x.arrayminus) == pytest.approx((0.88, 0.89, 0.90))
    assert np.add(points.x, points.error_x.array) == pytest.approx((0.91, 0.92, 0.93))
    assert [note.text for note in drawn.layout.annotations] == [f"{n} of 4,000 wrong" for n in (400, 360, 320)]
    assert drawn.layout.xaxis.range == (0.8, 1) and "starts at 0.8" in drawn.layout.xaxis.title.text
    assert list(points.marker.color) == [OP_COLORS[op] for op, _ in STRATA]


def test_the_axis_of_a_poor_model_starts_at_zero() -> None:
    drawn = figures.accuracy_by_op(rows_frame(evaluation(5, 50, 0.1)))
    assert drawn.layout.xaxis.range == (0, 1) and "starts" not in drawn.layout.xaxis.title.text


def test_blocks_show_each_share_once(metrics: pd.DataFrame) -> None:
    heatmap = traces(figures.accuracy_by_block(metrics))[0]
    assert list(heatmap.x) == ["cells", "output"] and (heatmap.zmin, heatmap.zmax) == (0, 1)
    assert np.array(heatmap.z, dtype=float) == pytest.approx(np.array([[0.901, 1], [0.911, 1], [0.921, 1]]))
    assert "n = 4,000" in heatmap.hovertext[0][0]


def test_the_learning_curve_leaves_the_final_evaluation_out(metrics: pd.DataFrame) -> None:
    drawn = figures.learning_curve(metrics)
    by_name = {trace.name: trace for trace in traces(drawn)}
    macro = by_name["macro average"]
    assert list(macro.x) == [80, 160] and list(macro.y) == pytest.approx([0.51, 0.71])
    assert list(by_name["&lt; PREV"].y) == pytest.approx([0.51, 0.71])
    assert list(by_name["loss"].y) == [0.5, 0.05] and drawn.layout.yaxis.range == (0, 1.02)


def grid_rows(value: Callable[[int, int], float], **columns: Any) -> list[dict[str, Any]]:
    """Rows of two variables at three sites; the sites are not in the model's order."""
    sites = ("blocks.10.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.2.hook_resid_post")
    return [
        {"variable": name, "site": site, "aggregation": "mean", "n": 40, "estimate": value(v, s),
         "ci_low": value(v, s) - 0.1, "ci_high": value(v, s) + 0.1, **columns}
        for v, name in enumerate(("op", "result"))
        for s, site in enumerate(sites)
    ]  # fmt: skip


@pytest.fixture
def probes() -> pd.DataFrame:
    here = {"position": "cells[@array_ptr]", "method": "logistic", "metric": "accuracy"}
    rows = grid_rows(lambda v, s: 0.3 + v / 10 + s / 100, **here)
    rows += grid_rows(lambda v, s: 0.2 + v / 10 + s / 100, control="control_task", **here)
    rows += grid_rows(lambda v, s: 0.1 + v / 10, control="majority_class", **here)
    rows += grid_rows(lambda v, s: 0.1 - v / 5, **{**here, "metric": "selectivity"})
    rows += grid_rows(lambda v, s: 0.99, **{**here, "position": "{"})
    return rows_frame(rows[1:])  # the first, op after layer 10, was not measured


def test_probe_panels_hold_the_accuracy_and_its_controls(probes: pd.DataFrame) -> None:
    drawn = figures.probe_heatmap(probes, position="cells[@array_ptr]")
    accuracy, control, majority, selectivity = traces(drawn)
    assert list(accuracy.x) == ["input", "L2", "L10"] and list(accuracy.y) == ["op", "result"]
    assert np.array(accuracy.z, dtype=float) == pytest.approx(
        np.array([[0.31, 0.32, np.nan], [0.41, 0.42, 0.4]]), nan_ok=True
    )
    assert np.array(control.z)[1] == pytest.approx([0.31, 0.32, 0.30])
    assert [panel.name for panel in traces(drawn)] == ["probe accuracy", "control task", "majority", "selectivity"]
    assert np.array(majority.z).tolist() == [[pytest.approx(0.1)], [pytest.approx(0.2)]]
    assert np.array(selectivity.z)[1] == pytest.approx([-0.1, -0.1, -0.1])
    assert selectivity.coloraxis == "coloraxis2" and {p.coloraxis for p in traces(drawn)[:3]} == {"coloraxis"}
    assert (drawn.layout.coloraxis.cmin, drawn.layout.coloraxis.cmax) == (0, 1)
    assert [getattr(drawn.layout.coloraxis2, end) for end in ("cmin", "cmid", "cmax")] == [-1, 0, 1]
    assert "0.410 [0.310, 0.510], n = 40" in accuracy.hovertext[1][0]


def test_iia_keeps_strata_designs_methods_and_places_apart() -> None:
    here = {"metric": "iia", "position": "cells", "pair_design": "independent", "method": "full_vector"}
    rows = grid_rows(lambda v, s: 0.4 + v / 10 + s / 100, stratum="changes", **here)
    rows += grid_rows(lambda v, s: 0.05, stratum="changes", control="unpatched", **here)
    rows += grid_rows(lambda v, s: 0.07, stratum="changes", control="wrong_site", **here)
    rows += grid_rows(lambda v, s: 1.0, stratum="same", **here)
    rows += grid_rows(lambda v, s: 1.0, stratum="changes", **{**here, "pair_design": "minimal"})
    rows += grid_rows(lambda v, s: 1.0, stratum="changes", rank=3, **{**here, "method": "probe_subspace"})
    rows += grid_rows(lambda v, s: 1.0, stratum="changes", **{**here, "position": "all"})
    frame = rows_frame(rows)
    drawn = figures.iia_heatmap(frame, position="cells")
    own, wrong, unpatched = traces(drawn)
    assert np.array(own.z) == pytest.approx(np.array([[0.41, 0.42, 0.40], [0.51, 0.52, 0.50]]))
    assert set(np.ravel(wrong.z)) == {0.07} and set(np.ravel(unpatched.z)) == {0.05} and len(unpatched.x) == 1
    subspace = traces(figures.iia_heatmap(frame, position="cells", method="probe_subspace"))[0]
    assert set(np.ravel(subspace.z)) == {1.0} and "rank 3" in subspace.hovertext[0][0]


def point(n_edges: int, estimate: float) -> FaithfulnessPoint:
    null = estimate / 10
    return FaithfulnessPoint(
        n_edges, n_edges, n_edges / 17, estimate, estimate - 0.1, estimate + 0.1, estimate / 2,
        null, null - 0.05, null + 0.05, 9,
    )  # fmt: skip


@pytest.fixture
def circuit() -> Circuit:
    """One layer of one head; the circuit has four edges, of which m0->logits hurts, and one lies outside."""
    nodes = (
        CircuitNode("input", "input", None, None, -3.0, -4.0, -5.0, -3.0, True),
        CircuitNode("a0.h0", "head", 0, 0, -1.0, 0.1, -0.2, 0.4, True),
        CircuitNode("m0", "mlp", 0, None, 0.5, 0.6, 0.5, 0.7, True),
        CircuitNode("logits", "logits", None, None, None, None, None, None, True),
    )
    edges = (
        CircuitEdge("input", "a0.h0<v>", -4.0, -4.2, -5.0, -3.0, True),
        CircuitEdge("input", "a0.h0<q>", -0.01, None, None, None, True),
        CircuitEdge("a0.h0", "logits", -1.0, None, None, None, True),
        CircuitEdge("m0", "logits", 0.5, 0.6, 0.5, 0.7, True),
        CircuitEdge("input", "logits", -0.001, None, None, None, False),
    )
    return Circuit(
        op="PREV", task="step_inplace", method="eap_ig", steps=3, metric="logit_difference", ablation="resample",
        granularity="edge", ranking="absolute", n_layers=1, n_heads=1, n_scored=8, n=8, n_effects=8, n_null_pairs=4,
        redraw_rate=0.1,
        outcomes={"RAN": 8}, exact_match=1.0, m_clean=9.0, m_corrupted=-9.0, m_empty=-9.0, cpr=0.8, cmd=0.2,
        cpr_null=0.3, cmd_null=0.7, spearman=0.9, threshold=0.9, size=4, n_connected=4, seed=0, nodes=nodes,
        edges=edges, faithfulness=(point(2, 0.3), point(4, 0.95)),
        faithfulness_signed=(point(2, 0.6), point(4, 1.2)),
    )  # fmt: skip


def drawn_parts(drawn: str) -> tuple[dict[str, ElementTree.Element], dict[str, ElementTree.Element]]:
    """The curves and the shapes of a graph, by what they say where the mouse rests, up to the colon or comma."""
    groups = [group for group in ElementTree.fromstring(drawn).iter("g") if group.find("title") is not None]
    said = {re.split("[:,]", str(group.findtext("title")))[0]: group for group in groups}
    edges = {words: path for words, group in said.items() if (path := group.find("path")) is not None}
    return edges, {words: group[1] for words, group in said.items() if words not in edges}


def ends(path: ElementTree.Element) -> tuple[float, float]:
    """Where a curve begins and where it ends, from left to right."""
    numbers = [float(number) for number in re.findall(r"[-\d.]+", path.attrib["d"])]
    return numbers[0], numbers[-2]


def test_a_circuit_is_drawn_edge_by_edge(circuit: Circuit) -> None:
    drawn = figures.circuit_graph(circuit)
    edges, _ = drawn_parts(drawn)
    assert len(edges) == 4  # those of the circuit, of five
    strongest, hurting = edges["input → the values of L0H0"], edges["MLP 0 → logits"]
    assert float(strongest.attrib["stroke-width"]) == max(float(path.attrib["stroke-width"]) for path in edges.values())
    assert ends(strongest)[0] < ends(strongest)[1] < ends(hurting)[1]
    dashed = [words for words, path in edges.items() if "stroke-dasharray" in path.attrib]
    assert dashed == ["MLP 0 → logits"] and hurting.attrib["stroke"] != strongest.attrib["stroke"]
    assert "contribution by score +4.000, really patched +4.200 [+3.000, +5.000]" in drawn
    assert "MLP 0 → logits: contribution by score -0.500" in drawn
    assert "_repr_html_" in dir(drawn)  # so a notebook shows it


def test_node_colours_say_what_is_beyond_its_interval(circuit: Circuit) -> None:
    _, nodes = drawn_parts(figures.circuit_graph(circuit))
    fills = {words: found.attrib["fill"] for words, found in nodes.items()}
    assert len({fills["input"], fills["L0H0"], fills["MLP 0"]}) == 3  # needed, no clear effect, in the way
    assert fills["logits"] == fills["L0H0"]


def test_what_is_picked_is_outlined_and_what_can_be_says_so(circuit: Circuit) -> None:
    def pick(kind: str, id_: str, words: str) -> str:
        return f'data-pick="{kind} {escape(id_)}"'

    drawn = figures.circuit_graph(circuit, picked="m0", pick=pick)
    picks = re.findall('data-pick="([^"]*)"', drawn)
    assert {"node input", "node m0", "edge m0-&gt;logits"} <= set(picks) and len(picks) == 4 + 4
    outlined = [words for words, shape in drawn_parts(drawn)[1].items() if shape.attrib["stroke"] == PICKED]
    assert outlined == ["MLP 0"]


def test_nodes_that_no_kept_edge_touches_are_outside(circuit: Circuit) -> None:
    drawn = figures.circuit_graph(circuit, kept={"input->logits"})
    outside = re.findall("<title>([^<]*), not in the circuit</title>", drawn)
    assert [words.split(":")[0] for words in outside] == ["L0H0", "MLP 0"]


def test_a_large_circuit_keeps_its_strongest_edges(circuit: Circuit) -> None:
    drawn = figures.circuit_graph(circuit, max_edges=2)
    edges, _ = drawn_parts(drawn)
    assert len(edges) == 2 and "strongest 2 of 4 edges" in drawn
    assert all("stroke-dasharray" not in path.attrib for path in edges.values())  # |score| 4 and 1, not 0.5


@pytest.mark.parametrize("ranking", ["absolute", "signed"])
def test_a_circuit_and_its_rows_give_the_same_curve(circuit: Circuit, ranking: str) -> None:
    frame = rows_frame(circuit_rows(circuit))
    drawn = [
        figures.faithfulness_curve(circuit, ranking=ranking),
        figures.faithfulness_curve(frame, "PREV", ranking=ranking),
    ]
    points = circuit.faithfulness if ranking == "absolute" else circuit.faithfulness_signed
    for each in drawn:
        curve = {trace.name: trace for trace in traces(each) if trace.name}
        assert list(curve["this circuit"].x) == [2, 4]
        assert list(curve["this circuit"].y) == [p.estimate for p in points]
        assert list(curve["random circuits"].y) == [p.null_mean for p in points]
        assert list(curve["whole states right"].y) == [p.exact_match for p in points]
        null, band = (trace for trace in traces(each) if trace.fill)
        assert list(null.y) == [*(p.null_high for p in points), *(p.null_low for p in reversed(points))]
        assert list(band.y) == [*(p.ci_high for p in points), *(p.ci_low for p in reversed(points))]
        low, high = each.layout.yaxis.range
        assert low < 0 and high > max(p.estimate for p in points)


def test_the_overview_has_one_panel_an_opcode(circuit: Circuit) -> None:
    other = replace(circuit, op="INC", faithfulness=(point(2, 0.5), point(4, 0.99)))
    drawn = figures.circuits_overview(rows_frame([*circuit_rows(circuit), *circuit_rows(other)]))
    curves = {trace.xaxis: list(trace.y) for trace in traces(drawn) if trace.name == "this circuit"}
    assert list(curves.values()) == [[0.3, 0.95], [0.5, 0.99]]
    assert {note.text for note in drawn.layout.annotations} == {"&lt; PREV", "+ INC"}


EMPTY: list[Callable[[pd.DataFrame], go.Figure]] = [
    figures.accuracy_by_op,
    figures.accuracy_by_block,
    figures.learning_curve,
    figures.circuits_overview,
    lambda frame: figures.probe_heatmap(frame, position="{"),
    lambda frame: figures.iia_heatmap(frame, position="all"),
    lambda frame: figures.faithfulness_curve(frame, "INC"),
]


@pytest.mark.parametrize("draw", EMPTY)
def test_a_frame_without_the_rows_gets_one_sentence(draw: Callable[[pd.DataFrame], go.Figure]) -> None:
    with pytest.raises(ValueError, match="^(the frame has no|the frame's last|there is no)") as caught:
        draw(rows_frame([]))
    assert "\n" not in str(caught.value)


def test_a_wrong_place_is_told_what_there_is(probes: pd.DataFrame, circuit: Circuit) -> None:
    with pytest.raises(ValueError, match=re.escape("at position 'cells'; it has cells[@array_ptr], {")):
        figures.probe_heatmap(probes, position="cells")
    with pytest.raises(ValueError, match="op="):
        figures.faithfulness_curve(rows_frame([]))
    with pytest.raises(ValueError, match="no edges"):
        figures.circuit_graph(replace(circuit, edges=()))


def test_words() -> None:
    assert [figures.node_words(name) for name in ("a1.h3", "m2", "logits", "a0.h1<k>")] == [
        "L1H3", "MLP 2", "logits", "the keys of L0H1",
    ]  # fmt: skip
    assert site_order(["blocks.10.hook_resid_post", "blocks.2.hook_resid_post", "hook_embed"]) == [
        "hook_embed", "blocks.2.hook_resid_post", "blocks.10.hook_resid_post",
    ]  # fmt: skip
    shared = {op for op, color in OP_COLORS.items() if list(OP_COLORS.values()).count(color) > 1}
    assert shared == {"WHILE", "ENDW"}  # told apart by glyph
    assert len(set(figures.GLYPHS.values())) == len(figures.GLYPHS)
