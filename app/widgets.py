"""Widgets that show the shared selection instead of a state of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from app import selection


def selectbox(
    label: str,
    options: Sequence[str],
    value: str | None,
    *,
    key: str,
    on_pick: Callable[[str], object],
    format_func: Callable[[str], str] = str,
    help: str | None = None,
) -> None:
    """A selectbox that shows `value` and reports what a person picks; nothing is picked if `value` is no option."""
    st.session_state[key] = value if value in options else None

    def picked() -> None:
        if st.session_state[key] is not None:
            on_pick(st.session_state[key])

    st.selectbox(
        label, list(options), key=key, format_func=format_func, on_change=picked, help=help, placeholder="none picked"
    )  # fmt: skip


def pickable_chart(
    spec: dict[str, Any],
    *,
    key: str,
    on_pick: Callable[[str, int], object],
    height: int,
    alt: str,
    renderer: str = "canvas",
) -> None:
    """An ECharts chart; `on_pick(data_type, index)` is called once for each click on an item.

    The chart's own selection cannot be set from Python, so the key changes after every pick and the chart draws
    what the shared selection holds.
    """
    nonce_key = f"{key}_nonce"
    chart_key = f"{key}_{st.session_state.get(nonce_key, 0)}"

    def selected() -> None:
        for group in st.session_state[chart_key]["selection"]["selected"]:
            if group["data_indices"]:
                st.session_state[nonce_key] = st.session_state.get(nonce_key, 0) + 1
                on_pick(group["data_type"], int(group["data_indices"][-1]))
                return

    st.echarts_chart(spec, key=chart_key, on_select=selected, height=height, alt=alt, renderer=renderer)  # type: ignore[call-overload]


def time_slider(what: str, n: int) -> None:
    """Where in time we are, one of `n` steps: Back and Next (by the arrow keys, too) and a slider between them.

    Bound to `Selection.step`, and so to the address: what was picked to explain follows the step.
    """
    step, key = min(selection.current().step, n - 1), f"time_of_{n}"
    if n > 1:
        st.session_state[key] = step + 1

    def go(to: int) -> None:
        selection.emit(step=to, op="")

    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Back", icon=":material/chevron_left:", key="back", shortcut="Left", disabled=step == 0,
            on_click=go, args=(step - 1,),
        )  # fmt: skip
        if n > 1:
            st.slider(
                f"{what.capitalize()} of {n}", 1, n, key=key, label_visibility="collapsed", format=f"{what} %d of {n}",
                on_change=lambda: go(int(st.session_state[key]) - 1),
            )  # fmt: skip
        st.button(
            "Next", icon=":material/chevron_right:", key="next", shortcut="Right", disabled=step >= n - 1,
            on_click=go, args=(step + 1,),
        )  # fmt: skip
