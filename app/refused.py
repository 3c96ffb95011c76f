"""In place of a page that has nothing to show for a run: why, and where there is something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from app.pages import Page
from interp import Run


def draw(sentence: str, run: Run, entries: Mapping[str, Any], pages: Mapping[str, Page]) -> None:
    """The sentence of `Page.refuses`, and links to the pages that do not refuse."""
    st.info(sentence, icon=":material/block:")
    st.markdown("What there is for this run:")
    with st.container(horizontal=True, gap="small"):
        for name, page in pages.items():
            if page.refuses(run) is None:
                st.page_link(entries[name], label=page.title, icon=page.icon)
