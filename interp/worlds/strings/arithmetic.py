"""`arithmetic`: two numbers and their sum as text, `12+9=21.`, the sum from the left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Variable
from interp.worlds.strings.rule import END, Do, Rule, State, digit, n_digits, one_hot, variable, ways

_PLUS, _EQUALS, _END = 10, 11, 12


@dataclass(frozen=True)
class Arithmetic(Rule):
    """`a+b=c.` with a and b uniform from 0 to 10^digits − 1, without leading zeros.

    The state: 0 in a, 1 in b, 2 in c, 3 after it; a; b; digits written of the part at hand.

    Raises:
        ValueError: a setting is out of range.
    """

    digits: int = 2

    name = "arithmetic"
    ends = True
    stratum_title = "part"
    stratum_names = ("first number", "second number", "sum", "end")

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= 6:
            raise ValueError(f"arithmetic digits must be from 1 to 6, got {self.digits}")

    @property
    def alphabet(self) -> str:
        """Digits, plus and equals sign, END."""
        return "0123456789+=" + END

    @property
    def length(self) -> int:  # type: ignore[override]
        """Of the longest string, with its END."""
        return 3 * self.digits + 4

    @property
    def context(self) -> int:
        """All but the last characters of the longest string."""
        return self.length - 1

    def start(self) -> tuple[int, ...]:
        """Nothing read."""
        return 0, 0, 0, 0

    def distribution(self, state: State, do: Do | None = None) -> NDArray[np.float64]:
        """As in Rule; only behind the equals sign anything can be set."""
        do = do or {}
        part, written = state[:, 0], state[:, 3]
        total = np.asarray(do.get("a", state[:, 1])) + np.asarray(do.get("b", state[:, 2]))
        place = n_digits(total) - 1 - written
        due = np.where(place < 0, _END, np.asarray(do.get("due", digit(total, place))))
        asked = one_hot(np.where(part == 3, _END, due), 13)
        asked[(part == 2) & (place < -1)] = 0
        begun = self._operand(np.where(part == 0, state[:, 1], state[:, 2]), written, part)
        if do:
            begun[:] = 0
        return np.where((part < 2)[:, None], begun, asked)

    def _operand(self, value: NDArray[np.int64], written: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray:
        """The distribution while a number is written that is uniform over all."""
        found, ends = np.zeros((len(value), 13)), np.where(part == 0, _PLUS, _EQUALS)
        total, more = np.maximum(ways(self.digits, written), 1), ways(self.digits, written + 1)
        found[:, :10] = (more / total)[:, None]
        np.put_along_axis(found, ends[:, None], (1 / total)[:, None], axis=1)
        found[written == 0] = 0
        found[written == 0, 1:10] = ways(self.digits, np.array(1)) / 10**self.digits
        found[written == 0, 0] = 1 / 10**self.digits
        zero = (written == 1) & (value == 0)  # 0 stands alone
        found[zero] = one_hot(ends, 13)[zero]
        return found

    def advance(self, state: State, character: NDArray[np.int64]) -> State:
        """As in Rule."""
        part, a, b, written = state.T
        number = np.where(character < 10, character, 0)
        is_digit = character < 10
        return np.stack(
            [
                np.minimum(part + ~is_digit, 3),
                np.where((part == 0) & is_digit, a * 10 + number, a),
                np.where((part == 1) & is_digit, b * 10 + number, b),
                np.where(is_digit, written + 1, 0),
            ],
            axis=1,
        )

    def variables(self) -> dict[str, Variable]:
        """The two numbers, and the digit of the sum that is due."""
        n = 10**self.digits
        return {
            "a": variable("a", "latent", (), n, "the first number"),
            "b": variable("b", "latent", (), n, "the second number"),
            "due": variable("due", "decide", ("a", "b"), 10, "the next digit of a + b"),
        }

    def read(self, state: State, name: str) -> NDArray[np.int64]:
        """As in Rule; a is defined behind the plus sign, the rest behind the equals sign."""
        part, a, b, written = state.T
        total = a + b
        place = n_digits(total) - 1 - written
        values = {"a": a, "b": b, "due": np.where(place >= 0, digit(total, place), -1)}[name]
        return np.where((part == 2) | ((part == 1) & (name == "a")), values, -1)

    def stratum(self, state: State) -> NDArray[np.int64]:
        """As in Rule."""
        part, a, b, written = state.T
        return np.where((part == 2) & (written == n_digits(a + b)), 3, part)

    def reason(self, state: State, character: str) -> str:
        """As in Rule."""
        part, a, b, written = (int(value) for value in state[0])
        if part >= 2:
            rest = str(a + b)[written:] if part == 2 else ""
            return f"{a}+{b} is {a + b}: " + (f"{rest[0]} is due" if rest else "the string ends here")
        if not written:
            return "a number is due"
        return f"a number of at most {self.digits} digits without leading zeros and then {'+='[part]} are due"

    def in_words(self) -> str:
        """As in Rule."""
        return f"that add two numbers of at most {self.digits} digits"
