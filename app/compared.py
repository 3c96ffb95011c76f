"""What the Compare page shows: the answers of two runs, each read once, and what is left of them under the filters."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.run_access import fingerprint
from interp import Run
from interp.studies.comparing import answers_of, side_by_side

_FILES = ("config.json", "metrics.parquet", "probes.parquet", "interventions.parquet", "circuits.parquet")
ENOUGH = 20  # examples below which a number is written and nothing is drawn


def together(first: Run, second: Run) -> tuple[pd.DataFrame, tuple[str, str]]:
    """What both runs were asked, side by side, and what each is called: by its path where they share a name."""
    alike = first.name == second.name
    names = (str(first.path), str(second.path)) if alike else (first.name, second.name)
    parts = [_answers(run, name) for run, name in zip((first, second), names, strict=True)]
    return side_by_side(pd.concat(parts, ignore_index=True), *names), names


def questions_of(run: Run) -> set[str]:
    """The questions that a run's files answer."""
    return set(_answers(run, run.name)["question"])


def _answers(run: Run, name: str) -> pd.DataFrame:
    prints = tuple(fingerprint(run.path / file) for file in _FILES)
    return _read(run, name, str(run.path), run.config.digest, prints)


@st.cache_data(show_spinner=False, max_entries=32)
def _read(_run: Run, name: str, path: str, digest: str, fingerprints: tuple[str, ...]) -> pd.DataFrame:
    found = pd.DataFrame([vars(each) for each in answers_of(_run, name=name)])
    return found if len(found) else pd.DataFrame(columns=["run", "question", "item", "op", *_NUMBERS])


_NUMBERS = ("estimate", "low", "high", "n", "control", "control_name", "place")


def filtered(rows: pd.DataFrame, *, question: str, variable: str = "", op: str = "") -> pd.DataFrame:
    """Of one question: one variable or all, of one instruction or of all together.

    Questions about instructions have them as items, and then `op` picks the item; of one about variables it picks what
    was measured under that instruction alone.
    """
    of = rows.loc[rows["question"] == question]
    if about_variables(of):
        of = of.loc[(of["op"] == op) if op else of["op"].isna()]
        return of.loc[of["item"] == variable] if variable else of
    return of.loc[of["op"] == op] if op else of


def about_variables(rows: pd.DataFrame) -> bool:
    """Whether the items of a question's rows are variables, not instructions."""
    named = rows.loc[rows["op"].notna()]
    return bool(((rows["op"].isna()) & (rows["item"] != "all")).any()) or bool((named["op"] != named["item"]).any())


def drawn(rows: pd.DataFrame) -> pd.DataFrame:
    """Those that rest on enough examples in both runs."""
    few = (rows[["n_1", "n_2"]].astype("float64") < ENOUGH).any(axis=1)
    return rows.loc[~few]
