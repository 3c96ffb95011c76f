"""The demo's first table: places ranked by what a probe reads beyond the strongest of its controls."""

from __future__ import annotations

from typing import Any

import pytest

from interp.demo import clearest
from interp.results import Control, Metric, rows_frame


def place(variable: str, position: str, probe: float, **controls: float) -> list[dict[str, Any]]:
    """The rows of one probe: its accuracy, and that of each control."""
    common = {"variable": variable, "site": "blocks.0.hook_resid_post", "position": position, "method": "logistic"}
    common["metric"] = Metric.ACCURACY
    values = [(None, probe), *((Control[name.upper()], value) for name, value in controls.items())]
    return [{**common, "control": control, "estimate": value} for control, value in values]


def test_a_trivial_read_does_not_open_the_table() -> None:
    """`op` at the slot that holds it: 100 %, as its embedding; elsewhere less accurate, and more telling."""
    rows = [
        *place("op", "instructions[0]", 1.0, embedding_only=1.0, control_task=0.2, majority_class=0.1),
        *place("op", "cells[0]", 0.9, embedding_only=0.1, control_task=0.4, majority_class=0.1),
        *place("operand", "cells[0]", 0.95, embedding_only=0.3, untrained_model=0.35),
        *place("trivial", "cells[0]", 1.0, embedding_only=1.0),
        *place("without_controls", "cells[0]", 1.0),
    ]
    found = clearest(rows_frame(rows))
    assert [(probe["variable"], probe["position"], control["control"]) for probe, control in found] == [
        ("operand", "cells[0]", Control.UNTRAINED_MODEL),
        ("op", "cells[0]", Control.CONTROL_TASK),
        ("trivial", "cells[0]", Control.EMBEDDING_ONLY),
    ]
    margins = [probe["estimate"] - control["estimate"] for probe, control in found]
    assert margins == pytest.approx([0.6, 0.5, 0.0])


def test_each_method_is_held_against_its_own_controls() -> None:
    ridge = [{**row, "method": "ridge"} for row in place("op", "cells[0]", 0.8, control_task=0.7)]
    (probe, control), *rest = clearest(rows_frame([*place("op", "cells[0]", 0.6, control_task=0.1), *ridge]))
    assert (probe["method"], control["estimate"], rest) == ("logistic", 0.1, [])


def test_rows_of_a_stratum_are_no_whole_probes() -> None:
    part = [{**row, "stratum": "INC"} for row in place("op", "cells[0]", 1.0, control_task=0.0)]
    assert clearest(rows_frame(part)) == []
