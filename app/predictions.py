"""The model's answer on machine states, slot by slot, from forward passes made here and now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.run_access import LoadedModel
from app.theme import token_text
from cython_vm import MachineSpec, States, encode, sample, step

SEARCH_BATCH = 256  # states a forward pass of the search for a mistake
SEARCH_LIMIT = 4096  # states after which the search gives up


@dataclass(frozen=True)
class Prediction:
    """Greedy next states, and how sure the model is of each slot. n states of L slots."""

    tokens: np.ndarray  # int64 [n, L], what the model says
    truth: np.ndarray  # int64 [n, L], what the machine does
    p: np.ndarray  # float32 [n, L], probability of the predicted token
    p_truth: np.ndarray  # float32 [n, L], probability of the true token

    @property
    def right(self) -> np.ndarray:
        """Whether the whole state is right, bool [n]."""
        return (self.tokens == self.truth).all(axis=1)

    @property
    def p_state(self) -> np.ndarray:
        """Probability that the model gives to the whole state it predicts: the product over slots, [n]."""
        return self.p.prod(axis=1)


def predict(loaded: LoadedModel, states: States) -> Prediction:
    """The model's greedy next state for each of `states`, beside the machine's."""
    return _predict(loaded, loaded.key, states, encode(states), step(states).tokens())


@st.cache_data(show_spinner=False, max_entries=64)
def _predict(_loaded: LoadedModel, key: str, _states: States, tokens: np.ndarray, truth: np.ndarray) -> Prediction:
    """`tokens` spell `_states`, which the cache does not look at."""
    import torch

    from interp.tasks.answers import read_answers

    task, model, parts = _loaded.run.task, _loaded.run.model, []
    with _loaded.lock, torch.no_grad():
        for start in range(0, len(_states), SEARCH_BATCH):
            batch = task.render(_states[start : start + SEARCH_BATCH])
            answer = task.answer(model, batch)
            shown = task.render(batch.examples, answer.numpy()) if task.shows_answer else batch
            parts.append((answer, read_answers(model(shown.tokens), task.answer_positions).softmax(dim=-1)))
    answers = torch.cat([answer for answer, _ in parts])
    probabilities = torch.cat([p for _, p in parts])
    p = probabilities.gather(-1, answers[..., None])[..., 0]
    right = torch.from_numpy(truth.astype(np.int64))
    p_truth = probabilities.gather(-1, right[..., None])[..., 0]
    return Prediction(answers.numpy(), right.numpy(), p.numpy(), p_truth.numpy())


def search_mistake(loaded: LoadedModel, *, seed: int) -> Iterator[tuple[int, States | None]]:
    """Draw held-out states until the model errs on one. Yields (states tried so far, the state or None).

    Held-out means that the program's hash keeps it out of training; states come from the machine's natural
    distribution, so the number tried tells how rare mistakes are.
    """
    spec: MachineSpec = loaded.run.config.spec
    for start in range(0, SEARCH_LIMIT, SEARCH_BATCH):
        states = sample(spec, SEARCH_BATCH, seed=seed, start=start, split="evaluation")
        wrong = np.flatnonzero(~predict(loaded, states).right)
        if len(wrong):
            yield start + int(wrong[0]) + 1, states[wrong[:1]]
            return
        yield start + SEARCH_BATCH, None


def difference(prediction: Prediction, row: int, spec: MachineSpec) -> str:
    """What the model gets wrong at one state, in a plain sentence; that all is right, if it is."""
    layout = spec.layout
    answered, real = prediction.tokens[row], prediction.truth[row]
    if (answered == real).all():
        return f"All {layout.length} slots of the predicted state are right."
    parts = []
    for block, noun in (("instruction_ptr", "instruction pointer"), ("array_ptr", "array pointer")):
        part = layout.slice(block)
        if (answered[part] != real[part]).any():
            marked = np.flatnonzero(answered[part] == spec.token_id("1"))
            where = f"at {' and '.join(map(str, marked))}" if len(marked) else "nowhere"
            parts.append(
                f"puts the {noun} {where} (the machine: at {int(np.argmax(real[part] == spec.token_id('1')))})"
            )
    for block, noun in (
        ("cells", "cell"),
        ("input", "input slot"),
        ("output", "output slot"),
        ("instructions", "instruction"),
    ):
        part = layout.slice(block)
        for index in np.flatnonzero(answered[part] != real[part]):
            said, true = (token_text(spec.vocab[int(tokens[part][index])]) for tokens in (answered, real))
            parts.append(f"says {said} in {noun} {index} (the machine: {true})")
    slots = np.concatenate([np.arange(layout.length)[layout.slice(block)] for block in layout.blocks])
    brackets = np.setdiff1d(np.flatnonzero(answered != real), slots)
    parts += [f"changes the bracket {layout.name(int(position))}" for position in brackets]
    shown = parts[:3] + ([f"errs in {len(parts) - 3} more places"] if len(parts) > 3 else [])
    listed = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
    rest = int((answered == real).sum())
    others = f"The other {rest} of {layout.length} slots are right." if rest else "No slot is right."
    return f"The model {listed}. {others}"
