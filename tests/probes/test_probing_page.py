"""The page, its figures, and what they say of rows; the example at reduced size."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from interp.pages.probing import shown_positions, write_probing_page
from interp.pages.probing_drawings import along_drawing, heatmap_drawing
from interp.results import Control, Metric, rows_frame
from interp.studies.read_and_written import localisation, read_and_written

ROOT = Path(__file__).parents[2]


def row(site: int, variable: str, estimate: float, **more: Any) -> dict[str, Any]:
    columns = {"site": f"blocks.{site}.hook_resid_post", "position": "asked", "method": "logistic"}
    return {**columns, "variable": variable, "metric": Metric.ACCURACY, "estimate": estimate, "n": 10} | more


def edit(site: int, variable: str, estimate: float, **more: Any) -> dict[str, Any]:
    columns = {"method": "probe_mean", "granularity": "logistic", "stratum": "changes", "metric": Metric.EDIT_SUCCESS}
    return row(site, variable, estimate, position="judged") | columns | more


FRAME = rows_frame(
    [
        row(0, "op", 0.95),  # readable, but from the embedding as well
        row(0, "op", 0.94, control=Control.EMBEDDING_ONLY),
        row(0, "operand", 0.9),
        row(0, "operand", 0.3, control=Control.MAJORITY_CLASS),
        row(1, "operand", 0.92),
        row(1, "operand", 0.7, control=Control.CONTROL_TASK),
        edit(0, "operand", 0.05),
        edit(0, "operand", 0.02, control=Control.UNPATCHED),
        edit(1, "operand", 0.8),
        edit(1, "operand", 0.1, control=Control.RANDOM_SUBSPACE),
        row(0, "array_ptr", 0.2),
        row(0, "array_ptr", 0.2, control=Control.MAJORITY_CLASS),
        edit(0, "array_ptr", 0.6),
    ]
)


def test_decodable_and_used_are_told_apart_by_their_controls() -> None:
    lines = read_and_written(FRAME).set_index("variable")
    assert not lines.loc["op", "decodable"]
    assert lines.loc["operand", "decodable"] and lines.loc["operand", "used"]
    assert lines.loc["operand", "read_site"] == "blocks.0.hook_resid_post"  # .9 over .3 beats .92 over .7
    assert lines.loc["operand", "edit_site"] == "blocks.1.hook_resid_post"
    assert not lines.loc["array_ptr", "decodable"] and lines.loc["array_ptr", "used"]
    # operand at layer 0 is decodable and not used, at layer 1 both; array_ptr at layer 0 is used alone
    assert localisation(FRAME).counts() == (1, 1, 1, 0)


def test_the_heat_map_has_a_fixed_scale_and_draws_controls() -> None:
    svg = heatmap_drawing(FRAME, position="asked")
    assert "control task" in svg and "majority" in svg and "embedding" in svg
    whole = heatmap_drawing(rows_frame([row(0, "a", 1.0), row(0, "b", 0.0)]), position="asked")
    half = heatmap_drawing(rows_frame([row(0, "a", 0.5), row(0, "b", 0.4)]), position="asked")
    assert "rgb(0,90,156)" in whole and "rgb(247,247,247)" in whole
    assert "rgb(0,90,156)" not in half and "rgb(247,247,247)" not in half.replace("#ffffff", "")
    with pytest.raises(ValueError, match="no logistic probe"):
        heatmap_drawing(FRAME, position="stream")


def test_curves_along_training_rise_to_the_left_edge_of_the_scale() -> None:
    steps = (0, 10, 100)
    frame = rows_frame(
        [row(0, "operand", value, checkpoint_step=step) for step, value in zip(steps, (0.0, 0.5, 1.0), strict=True)]
        + [{"metric": Metric.EXACT_MATCH, "estimate": 0.25, "checkpoint_step": step} for step in steps]
    )
    points = re.findall(r'polyline points="([^"]+)"', along_drawing(frame))[::2]  # every other one is of the key
    assert len(points) == 2
    heights = [float(point.split(",")[1]) for point in points[0].split()]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2]) and heights[0] > heights[2]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in order, in one namespace, as a notebook runs them; parameters are reduced."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = json.loads((ROOT / "examples" / "probe_hidden_state.ipynb").read_text())["cells"]
    scope: dict[str, Any] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            if "parameters" in cell["metadata"].get("tags", ()):
                source = "steps, n_tokens, n_pairs = 20, 1200, 12"
            exec(compile(source, "notebook", "exec"), scope)
    assert set(scope["rows"].variable.dropna()) >= {"array_ptr", "operand", "cell[2]", "cells"}
    page = write_probing_page([scope["run"]], tmp_path).read_text()
    assert "| `operand` |" in page and "Multiple comparisons" in page and list(tmp_path.glob("probing_*.svg"))


def test_figures_show_the_positions_where_probes_beat_their_controls() -> None:
    def at(position: str, value: float, control: str | None = None) -> dict[str, Any]:
        return row(0, "operand", value, position=position, control=control)

    rows = [at(f"cells[{i}]", 0.5 + 0.1 * i) for i in range(5)]
    rows += [at(f"cells[{i}]", 0.4, Control.MAJORITY_CLASS) for i in range(4)]
    rows += [at("cells[4]", 0.95, Control.EMBEDDING_ONLY)]
    assert shown_positions(rows_frame(rows)) == [f"cells[{i}]" for i in (3, 2, 1, 0)]
