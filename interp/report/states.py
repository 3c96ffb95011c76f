"""The report's section on state interchange: where a model keeps what it is never shown."""

from __future__ import annotations

import pandas as pd

from interp.figures import state_delay
from interp.figures.style import named_rows, present
from interp.report.material import Material
from interp.report.page import Page, code, escape, how_to_read, missing, table
from interp.report.rows import certain
from interp.results import Control, Metric, select
from interp.runs import RunError
from interp.runs.further_frames import STATES

_CONTROLS = {
    Control.UNPATCHED: "left alone",
    Control.RANDOM_PART: "random part",
    Control.WRONG_TIME: "another time",
    Control.SAME_VALUE: "same value",
    Control.UNTRAINED_MODEL: "untrained model",
}


def has_states(material: Material) -> bool:
    """Whether state interchange can be asked of the run."""
    return material.run.task.has_state_pairs


def states_section(material: Material, page: Page) -> str:
    """Each variable at each part of what is carried, beside its controls, and the curve over the delay."""
    try:
        frame = STATES.read(material.run)
    except RunError:
        return missing("The run has no state interchange yet.", STATES.command(material.run))
    rows = frame.loc[frame["op"].isna() & (frame["metric"] == Metric.IIA) & (frame["stratum"] == "changes")]
    pooled = rows.loc[rows["lag"].isna()]
    body = how_to_read(
        "What a model carries from token to token is its only memory of what came before. Take two streams, read both "
        "up to the same position, and exchange a part of what is carried there. If that part holds the variable X, the "
        "first answer that hangs on X must now be the machine's with X set to its value in the other stream. "
        "<b>IIA</b> is the share of pairs where it is. Beside it stands how many numbers were exchanged, of how many "
        "carried.",
        "Controls on the same pairs: the model <b>left alone</b>; a <b>random part</b> of equal size; the same part at "
        "<b>another time</b>; from a stream in which X has the <b>same value</b>, where the answer must stay; the same "
        "fit on an <b>untrained model</b>. Exchanging everything exchanges the pointer too, so a single cell need not "
        "answer as if it alone were set.",
    )
    body += _table(pooled)
    if not rows.loc[rows["lag"].notna()].empty:
        body += page.figure(
            state_delay(rows),
            alt="IIA of each variable's best part over the steps from the edit to the answer.",
            caption="The best part of each variable, by how many instructions lie between the exchange and the answer.",
        )
    return body


def _table(pooled: pd.DataFrame) -> str:
    controls = [control for control in _CONTROLS if len(select(pooled, control=control))]
    lines = []
    for name in present(pooled, "variable"):
        for row in named_rows(select(pooled, variable=name, control=None)):
            here = select(pooled, variable=name, part=row.part)
            found = [select(here, control=control).estimate for control in controls]
            cells = [f"{values.iloc[0]:.2f}" if len(values) else "" for values in found]
            size = f"{int(row.part_size):,} of {int(row.carrier_size):,}"
            lines.append([code(name), escape(row.part), size, certain(row), *cells, f"{int(row.n):,}"])
    headings = ["variable", "part", "numbers", "IIA", *(_CONTROLS[control] for control in controls), "pairs"]
    return table(headings, lines, numbers=range(2, len(headings)))
