"""Which parts of the model speak for its answer at one state: direct logit attribution (Elhage et al. 2021).

The logits at a position are linear in what the components wrote there, once the final norm's scale is held. The lead
of one token over another is then a sum over heads, MLPs and embeddings, plus the unembedding's bias; the sum is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.answers import shown_tokens
from app.predictions import Prediction
from app.run_access import LoadedModel
from app.theme import token_text
from cython_vm import MachineSpec, States, encode


@dataclass(frozen=True)
class Contrast:
    """The question: at which slot, why this token rather than that one."""

    slot: int  # position in the state
    answer: int  # token id that the model gives
    rival: int  # the right token where the answer is wrong, else the token that stands there now


@dataclass(frozen=True)
class Attribution:
    """The lead of the answer over its rival in logits, and what each component adds to it."""

    lead: float
    parts: tuple[tuple[str, float], ...]  # (node id as in circuits, or "input" or "bias"; logits), largest first


def contrasts(state: States, prediction: Prediction, row: int) -> list[Contrast]:
    """What is worth asking at a state: the wrong slots; where all are right, the slots that change. May be empty.

    Values come before pointers, and where a pointer goes before where it was.
    """
    layout, one = state.spec.layout, state.spec.token_id("1")
    now = encode(state)[0].astype(np.int64)
    answered, truth = prediction.tokens[row], prediction.truth[row]
    rival = truth if (answered != truth).any() else now
    found = [Contrast(int(slot), int(answered[slot]), int(rival[slot])) for slot in np.flatnonzero(answered != rival)]
    pointers = ("array_ptr[", "instruction_ptr[")
    return sorted(found, key=lambda c: (layout.name(c.slot).startswith(pointers), c.answer != one))


def attribute(loaded: LoadedModel, state: States, contrast: Contrast) -> Attribution:
    """The components' shares of the lead at one state (a batch of one), from a forward pass made now.

    Where the answer follows the state, it is the model's own, and logits stand one position earlier.
    """
    return _attribute(loaded, loaded.key, shown_tokens(loaded, state), contrast)


@st.cache_data(show_spinner=False, max_entries=128, hash_funcs={Contrast: repr})
def _attribute(_loaded: LoadedModel, key: str, tokens: np.ndarray, contrast: Contrast) -> Attribution:
    import torch

    run, model = _loaded.run, _loaded.run.model
    x = torch.from_numpy(tokens.astype(np.int64))
    with _loaded.lock, torch.no_grad():
        position = int(run.task.answer_positions[contrast.slot])
        logits, cache = model.run_with_cache(x)
        stack, labels = cache.get_full_resid_decomposition(expand_neurons=False, pos_slice=position, return_labels=True)
        shares = cache.logit_attrs(
            stack, tokens=contrast.answer, incorrect_tokens=contrast.rival, pos_slice=position, has_batch_dim=True
        )[:, 0]
    bias = (model.b_U[contrast.answer] - model.b_U[contrast.rival]).item()
    parts: dict[str, float] = {"bias": bias}
    for label, share in zip(labels, shares.tolist(), strict=True):
        node = _node(label)
        parts[node] = parts.get(node, 0.0) + share
    lead = float(logits[0, position, contrast.answer] - logits[0, position, contrast.rival])
    return Attribution(lead, tuple(sorted(parts.items(), key=lambda part: -abs(part[1]))))


def _node(label: str) -> str:
    """TransformerLens's label of a component as a node id: "L1H3" is a1.h3, "0_mlp_out" is m0."""
    if label.startswith("L") and "H" in label:
        layer, head = label[1:].split("H")
        return f"a{layer}.h{head}"
    if label.endswith("_mlp_out"):
        return f"m{label.split('_')[0]}"
    return "input" if label in ("embed", "pos_embed") else "bias"


def question(contrast: Contrast, spec: MachineSpec, *, wrong: bool) -> str:
    """The contrast in words."""
    answer, rival = words(contrast, spec)
    return f"{spec.layout.name(contrast.slot)}: why {answer}, {'and not' if wrong else 'and no longer'} {rival}"


def words(contrast: Contrast, spec: MachineSpec) -> tuple[str, str]:
    """The answer and its rival as a person reads them."""
    answer, rival = (token_text(spec.vocab[token]) for token in (contrast.answer, contrast.rival))
    return answer, rival
