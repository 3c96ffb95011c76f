"""Data: what a run is made of: its config and hashes, versions, splits, commands, and its files to take along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import run_access, run_list, session
from interp import Run, RunError
from interp.files import sha256_of
from interp.reading import read_json
from interp.runs import frame_command

KINDS = {
    "metrics": "accuracy during training",
    "probes": "what can be read",
    "interventions": "interchange",
    "circuits": "circuits and their evidence",
}
MOST = 50_000_000  # bytes of a file that is offered
READY = 8_000_000  # bytes of a file that lies ready for a download; larger ones are read when they are asked for


def draw_identity(run: Run) -> None:
    """What the run is, and what it was made with."""
    config = run.config
    rows = {
        "config": config.digest, "task": config.task, "world": config.world.in_words(), "seed": str(config.seed),
        "architecture": str(config.model.architecture), "unit held out whole": config.world.unit,
    }  # fmt: skip
    try:
        rows["weights of step"] = f"{run.step:,}"
        rows["weights, SHA-256"] = sha256_of(run.weights)
        card = read_json(run_access.whole_run().path / "card.json", "a card")
        rows |= {name: str(version) for name, version in card["versions"].items()}
        rows["made with"] = card["command"]
    except (FileNotFoundError, KeyError, RunError, ValueError):
        pass
    st.dataframe(
        pd.DataFrame({"what": list(rows), "value": list(rows.values())}), hide_index=True, width="stretch",
        height="content",
    )  # fmt: skip


def draw_splits(run: Run) -> None:
    """How examples are kept apart."""
    unit = run.config.world.unit
    validation = getattr(run.config.training, "validation", False)
    st.markdown(
        f"A hash of the {unit} decides the split: 0 modulo 20 is **evaluation**, 1 is **validation**, the rest is for "
        "training. "
        + (
            "This run was trained without both."
            if validation
            else "This run was made before there was a validation split: it was trained on all but evaluation."
        )
    )


def draw_files(run: Run) -> None:
    """Each frame: whether it is there, how to make it, and the file itself."""
    for kind, words in KINDS.items():
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            try:
                frame = run_access.frame(run, kind)
            except RunError as error:
                st.markdown(f"**{kind}.parquet**, {words}: not measured, or not on these weights", width="stretch")
                st.caption(str(error).split(":")[0][:160])
                st.code(frame_command(kind, Path(run_list.address_of(run.path))), language="bash")
                continue
            st.markdown(f"**{kind}.parquet**, {words}: {len(frame):,} rows", width="stretch")
            file = run.path / f"{kind}.parquet"
            data = _csv(frame, str(file), run_access.fingerprint(file))
            offer("CSV", data, f"{run.name}_{kind}.csv", "text/csv", key=f"csv_{kind}")
            if kind != "metrics":
                st.code(frame_command(kind, Path(run_list.address_of(run.path))), language="bash")
    for name, words in (("config.json", "the config"), ("card.md", "the run's card"), ("model.safetensors", "weights")):
        file = run.weights if name == "model.safetensors" else run_access.whole_run().path / name
        if file.is_file() and file.stat().st_size <= MOST:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.markdown(f"**{name}**, {words}: {file.stat().st_size:,} bytes", width="stretch")
                small = file.stat().st_size <= READY
                data = file.read_bytes() if small else lambda file=file: file.read_bytes()
                offer("Download", data, f"{run.name}_{name}", key=f"file_{name}")


def offer(label: str, data: Any, name: str, mime: str | None = None, *, key: str) -> None:
    """A download that a redraw of the page does not lose: what is asked for lies at an address of its own contents, and
    asking draws nothing anew."""
    st.download_button(label, data, name, mime, key=key, icon=":material/download:", on_click="ignore")


@st.cache_data(show_spinner=False, max_entries=8)
def _csv(_frame: pd.DataFrame, file: str, fingerprint: str) -> bytes:
    return _frame.to_csv(index=False).encode()


def page() -> None:
    view = session.view()
    session.show_status(view)
    run = view.run
    st.markdown("#### What this run is made of")
    draw_identity(run)
    st.markdown("**Splits**")
    draw_splits(run)
    st.markdown("**Files**")
    draw_files(run)
    with st.expander("The whole config", icon=":material/data_object:"):
        st.code(json.dumps(run.config.to_dict(), indent=2), language="json")
    st.markdown("**In Python**")
    folder, step = run_list.address_of(run_access.whole_run().path), run_access.selection.weights()
    at = f".at_step({step})" if step else ""
    st.code(f'import interp\n\nrun = interp.load("{folder}"){at}\nframe = run.frame("metrics")', language="python")


page()
