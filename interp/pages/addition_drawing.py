"""The figure of docs/addition.md, as SVG made from rows: where each head looks while a digit of one sum is said."""

from __future__ import annotations

import pandas as pd

from interp.figures.svg import INK, PALETTE, QUIET, drawing, line, text
from interp.results import Metric, records, select

_STEP, _LEFT, _TOP, _HEIGHT, _GAP = 17, 14, 42, 96, 34
_LEAST = 0.08  # of a query's attention that is drawn


def attention_drawing(rows: pd.DataFrame) -> str:
    """A panel a head: the sum's tokens below, the digits that are said above, a line for each look; darker is more."""
    measured = [row for row in records(select(rows, metric=Metric.ATTENTION)) if row["position"] is not None]
    if not measured:
        return drawing([text(10, 20, "no attention was measured on one sum")], width=320, height=40, title="Nothing")
    heads = list(dict.fromkeys(row["site"] for row in measured))
    keys = list(dict.fromkeys(row["part"] for row in measured if row["site"] == heads[0]))
    queries = list(dict.fromkeys(row["position"] for row in measured))
    shown, n_columns = measured[0]["stratum"], 4
    width = _STEP * (len(keys) + 1) + _GAP
    parts = [
        text(_LEFT, 20, f"{shown}: where each head looks (bottom) while a digit of the sum is said (top)", size=13)
    ]
    for number, head in enumerate(heads):
        x, y = _LEFT + width * (number % n_columns), _TOP + (_HEIGHT + _GAP) * (number // n_columns)
        parts.append(text(x, y + 2, _name(head), size=11, fill=QUIET))
        low, high = y + _HEIGHT, y + 22
        own = {(row["position"], row["part"]): row["estimate"] for row in measured if row["site"] == head}
        for place, key in enumerate(keys):
            parts.append(text(x + _STEP * place, low, _token(key, shown), size=11, anchor="middle"))
        for place, query in enumerate(queries):
            top = x + _STEP * keys.index(query)
            parts.append(text(top, high - 4, f"{place}", size=10, fill=INK, anchor="middle"))
            for at, key in enumerate(keys):
                share = own.get((query, key), 0.0)
                if share >= _LEAST:
                    stroke = PALETTE[place % len(PALETTE)]
                    parts.append(
                        f'<g opacity="{min(1.0, 0.15 + share):.2f}">'
                        + line(top, high, x + _STEP * at, low - 11, stroke=stroke, width=0.6 + 2.4 * share)
                        + "</g>"
                    )
    n_rows = -(-len(heads) // n_columns)
    return drawing(
        parts,
        width=_LEFT + width * min(n_columns, len(heads)),
        height=_TOP + (_HEIGHT + _GAP) * n_rows,
        title=f"Attention of {len(heads)} heads on {shown}",
    )


def _token(key: str, shown: str) -> str:
    """What stands at a position: a plus, the digit that the sum's text has there, or a dot where nothing is shown."""
    field, _, slot = key.partition("[")
    if not slot:
        return "+"
    if field == "sum":
        return "·"
    number, index = shown.strip("+").split("+")["ab".index(field)], int(slot[:-1])
    return number[index] if index < len(number) else "·"


def _name(head: str) -> str:
    layer, number = head.split(".")[1], head.partition("[")[2][:-1]
    return f"layer {layer}, head {number}"
