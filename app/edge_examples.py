"""An edge's worst examples: the states whose answer loses most without it, each a click from the Step page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import session
from app.run_access import fingerprint, require_current
from app.session import View
from interp import Run, RunError
from interp.commands import command
from interp.reading import BrokenFileError, reading

if TYPE_CHECKING:  # interp.studies brings torch
    from interp.studies import EdgeExamples

SHOWN = 3


def read(run: Run, op: str) -> EdgeExamples:
    """The strongest edges of an instruction, pair by pair. Raises RunError: not made yet, broken, or of another run."""
    from interp.runs.findings import finding_path

    file = finding_path(run.path, "edges", op)
    mend = command("circuit", run.path, "--measure", "edges")
    if not file.exists():
        raise RunError(f"{file} does not exist yet; make it with: {mend}")
    try:
        provenance, examples = _read(str(run.path), op, fingerprint(file))
    except BrokenFileError as error:
        raise RunError(f"{error}; make it anew with: {mend} --fresh") from None
    require_current(run, file, provenance, mend)
    return examples


@st.cache_resource(show_spinner=False, max_entries=32)
def _read(folder: str, op: str, fingerprint: str):
    from pathlib import Path

    from interp.runs.findings import finding_path, read_finding
    from interp.studies import read_examples

    found = read_finding(Path(folder), "edges", op)
    assert found is not None
    with reading(finding_path(Path(folder), "edges", op), "a whole finding"):
        return found.provenance, read_examples(found.detail)


def draw_examples(view: View, op: str, edge_id: str) -> None:
    """The pairs that lose most when the edge is corrupted, each with a way to its state."""
    try:
        examples = read(view.run, op)
    except RunError as error:
        st.caption(str(error))
        return
    if edge_id not in examples.edges:
        st.caption(f"Its effect was not kept pair by pair: only that of the {len(examples.edges)} strongest edges was.")
        return
    effects = examples.effects[examples.edges.index(edge_id)]
    lost = int((-effects > 0).sum())
    st.markdown(f"It helps in **{lost} of {len(effects)}** pairs. Where it is missed most:")
    for place, row in enumerate(examples.worst(edge_id, k=SHOWN)):
        words, button = st.columns([4, 1], vertical_alignment="center")
        words.markdown(
            f"{view.in_words(examples.clean[row])}: loses **{-effects[row]:.2f}** of {examples.m_clean[row]:.2f} "
            f"logits against {view.against(examples.corrupted[row])}"
        )
        if view.can_show and button.button("Show", key=f"example_{place}", help="This state on the Step page"):
            view.show(examples.clean[row])
            session.go_first(view)
