"""Rows of state interchange as a table for the console."""

from __future__ import annotations

import pandas as pd
from rich.markup import escape
from rich.table import Table

from interp.evaluation.tables import plain_table
from interp.results import Control, records

_CONTROLS = {
    Control.UNPATCHED: "alone",
    Control.RANDOM_PART: "random",
    Control.WRONG_TIME: "time",
    Control.SAME_VALUE: "same",
    Control.UNTRAINED_MODEL: "untrained",
}


def state_table(headlines: pd.DataFrame, kept: pd.DataFrame | None = None) -> Table:
    """IIA of each part and its controls; where `kept` is given, what it holds for the same part beside.

    Args:
        headlines: pooled rows of IIA, measured now.
        kept: such rows of the run's file, measured with other numbers.
    """
    rows = records(headlines)
    controls = [control for control in _CONTROLS if any(row["control"] == control for row in rows)]
    right = ("floats", "pairs", "IIA", *(_CONTROLS[each] for each in controls), *(["kept"] if kept is not None else []))
    table = plain_table("state interchange, where the answer should change", "variable", "part", right=right)
    found = {(row["variable"], row["part"], row["control"]): row for row in rows}
    before = {(row["variable"], row["part"], row["control"]): row for row in ([] if kept is None else records(kept))}
    for (variable, part, control), row in found.items():
        if control is not None:
            continue
        beside = [found.get((variable, part, each)) for each in controls]
        beside += [] if kept is None else [before.get((variable, part, None))]
        cells = ["" if each is None else f"{each['estimate']:.2f}" for each in beside]
        sizes = f"{row['part_size']}/{row['carrier_size']}", f"{row['n']}"
        table.add_row(escape(variable), part, *sizes, f"{row['estimate']:.2f}", *cells)
    return table
