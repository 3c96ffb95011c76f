"""The recipe of the Intervene page: the edits made so far, kept in the address, and places that other pages propose.

Edits are dicts here, as `interp.interventions.Edit.to_dict` writes them: they must be read before torch is imported.
"""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from app import selection
from app.numbers import quoted

MOST = 8  # edits a recipe may hold
_PROPOSED = "edit_proposed"


def edits() -> list[dict[str, Any]]:
    """The edits in order. What an address spells and nobody can read is dropped, with a notice at the next run."""
    text = selection.edits()
    if not text:
        return []
    try:
        found = json.loads(text)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found) or len(found) > MOST:
            raise ValueError
    except (ValueError, RecursionError):
        write([])
        selection.notify(
            f"The link holds the recipe {quoted(text)}; a list of up to {MOST} edits was expected, so none is made."
        )
        st.rerun()
    return found


def add(edit: dict[str, Any]) -> None:
    """One edit more."""
    write([*edits(), edit])


def undo() -> None:
    """Take the last edit back."""
    write(edits()[:-1])


def write(found: list[dict[str, Any]]) -> None:
    """These edits and no others."""
    selection.set_edits(json.dumps(found, separators=(",", ":")) if found else "")


def propose(**edit: Any) -> None:
    """Open the Intervene page with these fields of an edit filled in: kind, hook, head, positions, variable, value."""
    st.session_state[_PROPOSED] = edit
    st.switch_page("views/intervene.py")


def proposed() -> dict[str, Any]:
    """What was proposed, once."""
    return st.session_state.pop(_PROPOSED, {})
