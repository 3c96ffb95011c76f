"""What a bounded context costs, and how often random text obeys: exact numbers of `sticky`, by its Markov chain.

The chain runs over classes: within a class characters are independent of everything, so a context of k characters
says what a context of k classes says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from interp.worlds.strings.sticky import Sticky


def context_floor(rule: Sticky, k: int, *, length: int | None = None) -> dict[str, float]:
    """The least KL that a model of the last k characters (and the string's start) can have, and the illegal mass of the
    model that has it: nats and probability a character, over strings of `length` (the rule's) characters.

    Joint probabilities of (state, last k classes) are carried along; the best model gives at each place the mixture of
    the exact distributions of all states that its context leaves open, the same at every place of the string.

    Returns:
        {"kl": …, "illegal": …}.
    """
    length = rule.length if length is None else length
    places: dict[tuple[int, ...], dict[tuple[int, int], float]] = {}
    now: dict[tuple[tuple[int, ...], tuple[int, int]], float] = {((), (-1, 0)): 1.0}
    for _ in range(length):
        for (seen, state), mass in now.items():
            into = places.setdefault(seen, {})
            into[state] = into.get(state, 0.0) + mass
        after: dict[tuple[tuple[int, ...], tuple[int, int]], float] = {}
        for (seen, state), mass in now.items():
            for kind, probability in enumerate(_classes(rule, state)):
                if probability > 0:
                    run = min(state[1] + 1, rule.n + 1) if kind == state[0] else 1
                    # -1 stands for the start of the string, as long as the context reaches it.
                    context = (*(seen or (-1,)), kind)[-k:] if k else ()
                    key = (context, (kind, run))
                    after[key] = after.get(key, 0.0) + mass * probability
        now = after
    kl = illegal = 0.0
    for states in places.values():
        total = sum(states.values())
        mixture = sum((mass / total * _classes(rule, state) for state, mass in states.items()), np.zeros(3))
        for state, mass in states.items():
            exact = _classes(rule, state)
            legal = exact > 0
            kl += mass * float((exact[legal] * np.log(exact[legal] / mixture[legal])).sum())
            illegal += mass * float(mixture[~legal].sum())
    return {"kl": kl / length, "illegal": illegal / length}


def _classes(rule: Sticky, state: tuple[int, int]) -> NDArray[np.float64]:
    return rule.classes(np.array([state]), np.array([state[1] > rule.n]))[0]


def uniform_share(rule: Sticky, length: int) -> float:
    """The share of uniform texts of `length` characters that the rule allows; their end may cut a run."""
    share = np.array(rule.sizes) / sum(rule.sizes)
    mass = {(kind, 1): float(share[kind]) for kind in range(3)}
    for _ in range(length - 1):
        after: dict[tuple[int, int], float] = {}
        for state, probability in mass.items():
            for kind in np.flatnonzero(_classes(rule, state)).tolist():
                run = min(state[1] + 1, rule.n + 1) if kind == state[0] else 1
                after[kind, run] = after.get((kind, run), 0.0) + probability * float(share[kind])
        mass = after
    return sum(mass.values())
