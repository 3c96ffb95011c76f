"""`sticky`: characters come in runs of one class, lower case, upper case or digits, of at least (or exactly) N + 1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Variable
from interp.worlds.strings.rule import Do, Rule, State, variable

CLASSES = ("lower case", "upper case", "digits")
_CHARACTERS = ("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789")


@dataclass(frozen=True)
class Sticky(Rule):
    """A class may be left once its run has N + 1 characters; `strict`: it must be left then.

    Where it may be left, the class goes on, is followed by the next one (lower, upper, digits, lower …) or by the third
    with odds 1 : 2 : 1, where it must be left with odds 2 : 1 for the next one. Within a class the first character is
    twice as likely as each other, so that one character is the likeliest. The last run of a string may be cut.

    Raises:
        ValueError: a setting is out of range.
    """

    n: int = 2
    strict: bool = False
    letters: int = 2  # of each class, at most 26 (digits: at most 10)
    length: int = 12

    name = "sticky"
    stratum_title = "run"

    def __post_init__(self) -> None:
        for field, low, high in (("n", 0, 64), ("letters", 1, 26), ("length", 1, 4096)):
            if not low <= getattr(self, field) <= high:
                raise ValueError(f"sticky {field} must be from {low} to {high}, got {getattr(self, field)}")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many characters each class has."""
        return self.letters, self.letters, min(10, self.letters)

    @property
    def alphabet(self) -> str:
        """As in Rule."""
        return "".join(some[:size] for some, size in zip(_CHARACTERS, self.sizes, strict=True))

    @property
    def class_of(self) -> NDArray[np.int64]:
        """The class of each character, [characters]."""
        return np.repeat(np.arange(3), self.sizes)

    @property
    def in_class(self) -> NDArray[np.float64]:
        """Each class's distribution over characters, [3, characters]."""
        weights = (self.class_of == np.arange(3)[:, None]).astype(np.float64)
        weights[np.arange(3), np.cumsum((0, *self.sizes[:2]))] *= 2
        return weights / weights.sum(axis=1, keepdims=True)

    @property
    def context(self) -> int:
        """N + 1 characters; none where every text is allowed and the class that was last does not matter."""
        return self.n + 1

    @property
    def stratum_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The first character, then by the run's length so far; the last is where the class may be left."""
        return ("start", *(f"run {run}" for run in range(1, self.n + 1)), f"run {self.n + 1}, free")

    def start(self) -> tuple[int, ...]:
        """No class, a run of 0."""
        return -1, 0

    def classes(
        self, state: State, allowed: NDArray[np.bool_], class_now: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """The distribution of the next class, [n, 3], where the class may be left or not."""
        now = state[:, 0] if class_now is None else class_now
        ahead = (np.arange(3) - now[:, None]) % 3  # 0: the class goes on, 1: the next one, 2: the third
        odds = np.array([0.0, 2.0, 1.0]) if self.strict else np.array([1.0, 2.0, 1.0])
        free, stay = (odds / odds.sum())[ahead], np.array([1.0, 0.0, 0.0])[ahead]
        found = np.where(allowed[:, None], free, stay)
        found[now < 0] = 1 / 3  # the first character
        return found

    def distribution(self, state: State, do: Do | None = None) -> NDArray[np.float64]:
        """As in Rule; a class or a run cannot be set before the first character."""
        do = do or {}
        run = np.asarray(do.get("run", state[:, 1]))
        allowed = np.asarray(do.get("switch_allowed", run > self.n)) == 1
        probabilities = self.classes(state, allowed, do.get("class")) @ self.in_class
        if do:
            probabilities[state[:, 1] == 0] = 0
        return probabilities

    def advance(self, state: State, character: NDArray[np.int64]) -> State:
        """The class of the character, and the run capped at N + 1."""
        kind = self.class_of[character]
        run = np.where(kind == state[:, 0], np.minimum(state[:, 1] + 1, self.n + 1), 1)
        return np.stack([kind, run], axis=1)

    def variables(self) -> dict[str, Variable]:
        """The class of the last character, the run so far capped at N + 1, and whether the class may be left."""
        return {
            "class": variable("class", "latent", (), 3, "of the last character: 0 lower case, 1 upper case, 2 digits"),
            "run": variable("run", "latent", (), self.n + 2, f"characters of that class so far, at most {self.n + 1}"),
            "switch_allowed": variable("switch_allowed", "decide", ("run",), 2, f"1 if run > {self.n}"),
        }

    def read(self, state: State, name: str) -> NDArray[np.int64]:
        """As in Rule; nothing is defined before the first character."""
        run = state[:, 1]
        values = {"class": state[:, 0], "run": run, "switch_allowed": (run > self.n) * 1}[name]
        return np.where(run > 0, values, -1)

    def stratum(self, state: State) -> NDArray[np.int64]:
        """The run so far."""
        return state[:, 1]

    def reason(self, state: State, character: str) -> str:
        """As in Rule."""
        now, run = (int(value) for value in state[0])
        more = "exactly" if self.strict else "at least"
        if self.class_of[self.ids[character]] == now:
            return f"a run of {CLASSES[now]} goes on after {run} characters, it has {more} {self.n + 1}"
        return f"a run of {CLASSES[now]} ends after {run} of {more} {self.n + 1} characters"

    def in_words(self) -> str:
        """As in Rule."""
        more = "exactly" if self.strict else "at least"
        return f"in which a class of characters (lower case, upper case, digits) lasts {more} {self.n + 1}"
