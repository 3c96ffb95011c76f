"""What the pages share that fit probes here and now: which activation, and the button that begins."""

from __future__ import annotations

import streamlit as st

from app import live_probes
from app.live_probes import LiveProbes
from app.results_view import site_words
from app.run_access import LoadedModel


def carriers(loaded: LoadedModel) -> list[str]:
    """What a model with a state carries past a token; () of a model whose earlier tokens are looked up again."""
    model = loaded.run.model
    return list(model.carrier_hooks()) if getattr(loaded.run.config.model, "has_state", False) else []


def choose_hook(loaded: LoadedModel) -> str:
    """A box with every place where a token's whole state may stand: the stream after each layer, and carriers."""
    residual, carried = list(loaded.run.model.residual_hooks()), carriers(loaded)
    hooks = [*residual[1:], *carried]
    # Of a state its last part; of a stream the middle, where both what was told and what will be said are at hand.
    first = carried[-1] if carried else residual[(len(residual)) // 2]
    chosen = st.selectbox("Read from", hooks, index=hooks.index(first), format_func=hook_words, key="read_from")
    return chosen or first


def hook_words(hook: str) -> str:
    """A hook as a person says it; carriers by their last name."""
    words = site_words(hook)
    if not words.partition(" L")[0].count("."):
        return words
    part, _, layer = words.rpartition(" L")
    named = {"hook_ssm_state": "state", "hook_carry": "state", "hook_window": "convolution's window"}
    name = part.rpartition(".")[2]
    return f"{named.get(name, name)} of layer {layer}"


def fitted_or_offer(loaded: LoadedModel, hook: str) -> LiveProbes | None:
    """The probes of a hook, or a button that fits them, with progress."""
    found = live_probes.known(loaded, hook)
    if found is not None:
        return found
    pressed = st.button(
        "Fit probes and read", icon=":material/sensors:", key="fit_probes", type="primary",
        help=f"Draws {live_probes.N_FIT + live_probes.N_SCORED} streams, fits a linear probe a variable, and scores it "
        "on streams that were kept apart.",
    )  # fmt: skip
    if not pressed:
        st.caption(f"Nothing is read yet at: {hook_words(hook)}. Fitting takes some ten seconds, once a place.")
        return None
    bar = st.progress(0.0, "Fitting probes …")
    try:
        live_probes.fit(loaded, hook, lambda share, what: bar.progress(min(1.0, share), f"Fitting probes: {what}"))
    except ValueError as error:
        bar.empty()
        st.warning(f"Nothing can be read here: {error}.", icon=":material/block:")
        return None
    st.rerun()
