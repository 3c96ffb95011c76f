"""Rows of the tidy frame as cells and tables of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.calibration import score
from interp.figures import site_words
from interp.figures.style import named_rows, present
from interp.report.page import code, escape, table
from interp.results import Control, select, site_order

INPUT_SITE = "blocks.0.hook_resid_pre"


def percent(share: float, digits: int = 2) -> str:
    """ "99.94 %", with further digits where it would else read 100 % without being so."""
    for more in range(digits, 6):
        text = f"{100 * share:.{more}f} %"
        if not text.startswith("100"):
            return text
    return f"{100 * share:.{digits}f} %"


def signed(value: float, digits: int = 2) -> str:
    """ "+1.20", "−0.35"."""
    return f"{value:+.{digits}f}".replace("-", "−")


def certain(row: Any, digits: int = 2) -> str:
    """ "0.93 [0.91, 0.95]"; an absent interval is left out."""
    interval = "" if pd.isna(row.ci_low) else f" <small>[{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]</small>"
    return f"{row.estimate:.{digits}f}{interval}".replace("-", "−")


def calibration(names: Mapping[str, str]) -> tuple[str, ...]:
    """A paragraph (HTML) with what calibration says of methods, method -> its name in words; () where nothing is."""
    found = [f"{escape(words)} {escape(phrase)}" for method, words in names.items() if (phrase := score(method))]
    known = "on compiled models, whose mechanism is known and which are easier than any trained one"
    return (f"<b>Calibration</b> {known}: {'; '.join(found)}.",) if found else ()


def place(row: Any) -> str:
    """Where a row was measured: its position and layer."""
    return f"{code(row.position)}&nbsp;{escape(site_words(str(row.site)))}"


def beside(rows: pd.DataFrame, controls: list[Control], row: Any, digits: int = 2) -> list[str]:
    """The estimates of the controls of one row, each as a cell; empty where there is none."""
    here = select(rows, variable=str(row.variable), site=str(row.site), position=str(row.position))
    found = [select(here, control=control).estimate for control in controls]
    return [f"{values.iloc[0]:.{digits}f}" if len(values) else "" for values in found]


def by_layer(rows: pd.DataFrame, control: Control) -> str:
    """A table, variables by layers: the estimate, with that of one control in parentheses."""
    own = select(rows, control=None)
    sites = site_order(own.site)
    value = {(row.variable, row.site): row.estimate for row in named_rows(own)}
    against = {(row.variable, row.site): row.estimate for row in named_rows(select(rows, control=control))}
    sizes = {row.variable: row.n for row in named_rows(own)}

    def cell(name: str, site: str) -> str:
        if (name, site) not in value:
            return ""
        other = f" <small>({against[name, site]:.2f})</small>" if (name, site) in against else ""
        return f"{value[name, site]:.3f}{other}"

    lines = [
        [code(name), *(cell(name, site) for site in sites), f"{int(sizes[name]):,}"]
        for name in present(own, "variable")
    ]
    headings = ["variable", *map(site_words, sites), "n"]
    return table(headings, lines, numbers=range(1, len(headings)))
