"""Our own drawings, clickable and reachable by keyboard.

Python draws HTML; an element with `data-pick="value"`, `role="button"` and `tabindex="0"` reports its value when it
is clicked, or when Enter or Space is pressed on it. Colours come from the theme's CSS variables, so light and dark
both work without Python knowing which is on.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import streamlit as st
from streamlit.components import v2

_FOLDER = Path(__file__).parent
_NAME = "tapelens.clickable"


_CSS, _JS = ((_FOLDER / name).read_text("utf-8") for name in ("clickable.css", "clickable.js"))
_mount = v2.component(_NAME, html='<div class="drawing"></div>', css=_CSS, js=_JS)


def clickable(html: str, *, key: str, on_pick: Callable[[str], object] | None = None) -> None:
    """Show trusted HTML (escape what a person typed); `on_pick(value)` is called when something is picked."""

    def picked() -> None:
        value = st.session_state[key].get("picked")
        if on_pick is not None and value is not None:
            on_pick(str(value))

    _mount(key=key, data={"html": html}, on_picked_change=picked)


def pickable(value: str, label: str) -> str:
    """The attributes that make an element report `value`; `label` is what a screen reader says."""
    return (
        f'role="button" tabindex="0" data-pick="{escape(value, quote=True)}" aria-label="{escape(label, quote=True)}"'
    )
