"""`counting`: whole numbers that count up by one from a random start, separated by commas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Variable
from interp.worlds.strings.rule import Do, Rule, State, digit, n_digits, one_hot, variable, ways

_COMMA = 10
PLACES = ("ones", "tens", "hundreds", "thousands")


@dataclass(frozen=True)
class Counting(Rule):
    """`97,98,99,100,1`: the first number is uniform from 1 to 10^digits − 1; a string is cut after `length` characters.

    The state: 0 in the first number and 1 after it; the number read so far, or the last whole one; digits written.

    Raises:
        ValueError: a setting is out of range.
    """

    digits: int = 3
    length: int = 20

    name = "counting"
    stratum_title = "what is due"
    stratum_names = ("first number", "digit as before", "digit after a carry", "last digit", "comma")

    def __post_init__(self) -> None:
        if not (1 <= self.digits <= 3 and self.length >= 1):
            raise ValueError(f"counting takes 1 to 3 digits and a length from 1, got {self.digits} and {self.length}")

    @property
    def alphabet(self) -> str:
        """Digits and the comma."""
        return "0123456789,"

    @property
    def context(self) -> int:
        """The number before, the comma, and what is written of this one, each of at most digits + 1."""
        return 2 * (self.digits + 1)

    def start(self) -> tuple[int, ...]:
        """Nothing read."""
        return 0, 0, 0

    def distribution(self, state: State, do: Do | None = None) -> NDArray[np.float64]:
        """As in Rule; in the first number nothing can be set."""
        first, written = state[:, 0] == 0, state[:, 2]
        last, due = self._due(state, do or {})
        expected = one_hot(np.where(written == n_digits(last + 1), _COMMA, due), 11)
        expected[written > n_digits(last + 1)] = 0
        begun = np.empty_like(expected)  # of the first number
        total = np.maximum(ways(self.digits, written), 1)[:, None]
        begun[:, :10] = ways(self.digits, written + 1)[:, None] / total
        begun[:, 10:] = 1 / total
        begun[written == 0] = np.array([0.0, *[1 / 9] * 9, 0.0])
        if do:
            begun[:] = 0
        return np.where(first[:, None], begun, expected)

    def _due(self, state: State, do: Do) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The last whole number, and the digit that is due of the next one."""
        last = state[:, 1].copy()
        for place, name in enumerate(PLACES[: self.digits]):
            if name in do:
                last += (np.asarray(do[name]) - digit(last, np.full_like(last, place))) * 10**place
        place = n_digits(last + 1) - 1 - state[:, 2]
        carry = np.asarray(do.get("carry", self._carry(last, place)))
        return last, (digit(last, place) + carry) % 10

    @staticmethod
    def _carry(last: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
        """Whether 1 is added at a place of the last number: all digits behind it are 9."""
        below = 10 ** np.maximum(place, 0)
        return ((last + 1) % below == 0).astype(np.int64)

    def advance(self, state: State, character: NDArray[np.int64]) -> State:
        """As in Rule."""
        later, value, written = state.T
        comma = character == _COMMA
        read = np.where(comma, value, value * 10 + character)
        counted = np.where(comma, value + 1, value)
        return np.stack([later | comma, np.where(later == 1, counted, read), np.where(comma, 0, written + 1)], axis=1)

    def variables(self) -> dict[str, Variable]:
        """The digits of the last whole number, how much of the next one is written, and the carry into its digit."""
        places = {
            name: variable(name, "latent", (), 10, f"the digit of the last whole number at its {name}")
            for name in PLACES[: self.digits]
        }
        equation = "1 if the digits of the last number behind the one that is due are all 9"
        written = variable("written", "latent", (), self.digits + 2, "digits of the next number so far", settable=False)
        return {
            **places,
            "written": written,
            "carry": variable("carry", "decide", (*places, "written"), 2, equation),
        }

    def read(self, state: State, name: str) -> NDArray[np.int64]:
        """As in Rule; nothing is defined in the first number, and no carry where a comma is due."""
        later, last, written = state.T
        place = n_digits(last + 1) - 1 - written
        if name in PLACES:
            values = digit(last, np.full_like(last, PLACES.index(name)))
        else:
            values = {"written": written, "carry": np.where(place >= 0, self._carry(last, place), -1)}[name]
        return np.where(later == 1, values, -1)

    def stratum(self, state: State) -> NDArray[np.int64]:
        """As in Rule."""
        later, last, written = state.T
        place = n_digits(last + 1) - 1 - written
        due = np.where(place == 0, 3, np.where(self._carry(last, place) == 1, 2, 1))
        return np.where(later == 0, 0, np.where(place < 0, 4, due))

    def reason(self, state: State, character: str) -> str:
        """As in Rule."""
        later, last, written = (int(value) for value in state[0])
        if not later:
            return "a number is missing before the comma" if character == "," else (
                "the first number begins with 0" if not written else f"the first number has over {self.digits} digits"
            )  # fmt: skip
        rest = str(last + 1)[written:]
        return f"{last} is followed by {last + 1}: {rest[0] if rest else 'a comma'} is due"

    def in_words(self) -> str:
        """As in Rule."""
        return f"that count up by one from a number of at most {self.digits} digits"
