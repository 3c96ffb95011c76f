"""In-context Markov chains (Edelman et al. 2024): each string is drawn from a chain of its own, to be learned from it.

Every row of a chain's transition matrix is drawn from a flat Dirichlet distribution. Given what was read, the exact
distribution of the next character is then the posterior mean, (count of last → next + 1) / (count of last + k): what
an induction head comes to. The string is sampled from it character by character, which has the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Variable
from interp.worlds.strings.rule import Do, Rule, State, variable

_LETTERS = "abcdefghij"
_MOST_SEEN = 7


@dataclass(frozen=True)
class Markov(Rule):
    """Chains over `symbols` letters; the first one is uniform.

    The state: the last letter (−1 for none), then how often each letter followed each, [k × k].

    Raises:
        ValueError: a setting is out of range.
    """

    symbols: int = 3
    length: int = 64

    name = "markov"
    stratum_title = "earlier uses of the last letter"
    stratum_names = ("start", "none", "1 to 3", "4 to 9", "10 and more")

    def __post_init__(self) -> None:
        if not (2 <= self.symbols <= 10 and self.length >= 2):
            raise ValueError(f"markov takes 2 to 10 symbols and a length from 2, got {self.symbols} and {self.length}")

    @property
    def alphabet(self) -> str:
        """The letters."""
        return _LETTERS[: self.symbols]

    @property
    def context(self) -> None:
        """None: every character counts."""
        return None

    def start(self) -> tuple[int, ...]:
        """No letter, no counts."""
        return (-1, *[0] * self.symbols**2)

    def counts(self, state: State) -> NDArray[np.int64]:
        """How often each letter (column) followed each (row), [n, k, k]."""
        return state[:, 1:].reshape(len(state), self.symbols, self.symbols)

    def posterior(self, state: State, order: int) -> NDArray[np.float64]:
        """The posterior mean of the next letter from counts of letters (order 0) or of those behind the last (1)."""
        counts, last = self.counts(state), state[:, 0]
        row = np.take_along_axis(counts, np.maximum(last, 0)[:, None, None], axis=1)[:, 0]
        seen = counts.sum(axis=1) if order == 0 else np.where((last >= 0)[:, None], row, 0)
        return (seen + 1) / (seen.sum(axis=1, keepdims=True) + self.symbols)

    def distribution(self, state: State, do: Do | None = None) -> NDArray[np.float64]:
        """As in Rule. With `last` set the row of another letter is looked up; with `bigram` set its likeliest letter
        changes places with another."""
        do = do or {}
        if "last" in do:
            state = np.concatenate([np.asarray(do["last"])[:, None], state[:, 1:]], axis=1)
        found = self.posterior(state, 1)
        if "bigram" in do:
            rows, to, top = np.arange(len(state)), np.maximum(np.asarray(do["bigram"]), 0), found.argmax(axis=1)
            found[rows, top], found[rows, to] = found[rows, to], found[rows, top]
        if do:
            found[state[:, 0] < 0] = 0
        return found

    def advance(self, state: State, character: NDArray[np.int64]) -> State:
        """As in Rule."""
        moved, rows = state.copy(), np.flatnonzero(state[:, 0] >= 0)
        moved[rows, 1 + state[rows, 0] * self.symbols + character[rows]] += 1
        moved[:, 0] = character
        return moved

    def variables(self) -> dict[str, Variable]:
        """The last letter, how often it was seen before, and what the posteriors of order 0 and 1 hold likeliest."""
        k = self.symbols
        return {
            "last": variable("last", "latent", (), k, "the last letter"),
            "seen": variable(
                "seen", "latent", ("last",), _MOST_SEEN + 1, "its earlier uses, at most 7", settable=False
            ),
            "unigram": variable("unigram", "latent", (), k, "the letter that followed most often", settable=False),
            "bigram": variable("bigram", "decide", ("last",), k, "the letter that followed the last one most often"),
        }

    def read(self, state: State, name: str) -> NDArray[np.int64]:
        """As in Rule; the likeliest letters are undefined where two are equally likely."""
        last = state[:, 0]
        if name in ("unigram", "bigram"):
            likely = self.posterior(state, int(name == "bigram"))
            values = np.where((likely == likely.max(axis=1, keepdims=True)).sum(axis=1) == 1, likely.argmax(axis=1), -1)
        else:
            values = {"last": last, "seen": np.minimum(self._uses(state), _MOST_SEEN)}[name]
        return np.where(last >= 0, values, -1)

    def _uses(self, state: State) -> NDArray[np.int64]:
        """How often something followed the last letter."""
        return self.counts(state).sum(axis=2)[np.arange(len(state)), np.maximum(state[:, 0], 0)]

    def stratum(self, state: State) -> NDArray[np.int64]:
        """As in Rule."""
        return np.where(state[:, 0] < 0, 0, 1 + np.digitize(self._uses(state), (1, 4, 10)))

    def reason(self, state: State, character: str) -> str:
        """Never asked: every string over the letters is allowed."""
        return f"{character} is not allowed"

    def in_words(self) -> str:
        """As in Rule."""
        return f"over {self.symbols} letters, each from a Markov chain of its own"
