"""`copying`: one field is written and copied, `abc=abc.`, or of several the last one, `ab,c,ba=ba.`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Variable
from interp.worlds.strings.rule import END, Do, Rule, State, one_hot, variable

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Copying(Rule):
    """1 to `fields` fields of 1 to `longest` letters, numbers and lengths uniform; behind `=` the last field again.

    The state: 0 while fields are written, 1 in the copy, 2 after it; which field; its length; how much is copied; it.

    Raises:
        ValueError: a setting is out of range.
    """

    fields: int = 1
    longest: int = 6
    letters: int = 4

    name = "copying"
    ends = True
    stratum_title = "part"
    stratum_names = ("prompt", "copy", "end")

    def __post_init__(self) -> None:
        for field, high in (("fields", 8), ("longest", 64), ("letters", 26)):
            if not 1 <= getattr(self, field) <= high:
                raise ValueError(f"copying {field} must be from 1 to {high}, got {getattr(self, field)}")

    @property
    def alphabet(self) -> str:
        """Letters, comma, equals sign, END."""
        return _LETTERS[: self.letters] + ",=" + END

    @property
    def length(self) -> int:  # type: ignore[override]
        """Of the longest string, with its END."""
        return self.fields * (self.longest + 1) + self.longest + 1

    @property
    def context(self) -> int:
        """From a letter of the field to its copy; in front of the copy all, which says how many fields there are."""
        return self.length - 1

    def start(self) -> tuple[int, ...]:
        """Nothing read."""
        return (0, 1, 0, 0, *[0] * self.longest)

    def distribution(self, state: State, do: Do | None = None) -> NDArray[np.float64]:
        """As in Rule; only in the copy anything can be set."""
        do, k = do or {}, self.letters
        part, field, size, copied = state[:, :4].T
        copied = np.asarray(do.get("copied", copied))
        at = np.minimum(copied, self.longest - 1)
        letter = np.take_along_axis(state[:, 4:], at[:, None], axis=1)[:, 0]
        due = np.where(copied == size, k + 2, np.asarray(do.get("due", letter)))
        asked = one_hot(np.where(part == 2, k + 2, due), k + 3)
        asked[(part == 1) & (copied > size)] = 0
        prompt = np.zeros_like(asked)
        ends = np.where(size == 0, 0.0, 1 / (self.longest - size + 1))
        last = 1 / (self.fields - field + 1)
        prompt[:, :k] = ((1 - ends) / k)[:, None]
        prompt[:, k], prompt[:, k + 1] = ends * (1 - last), ends * last
        if do:
            prompt[:] = 0
        return np.where((part == 0)[:, None], prompt, asked)

    def advance(self, state: State, character: NDArray[np.int64]) -> State:
        """As in Rule."""
        k, moved = self.letters, state.copy()
        part, _, size, _ = state[:, :4].T
        rows = np.flatnonzero((part == 0) & (character < k) & (size < self.longest))
        moved[rows, 4 + size[rows]] = character[rows]
        moved[rows, 2] += 1
        comma = (part == 0) & (character == k)
        moved[comma, 1] += 1
        moved[comma, 2] = 0
        moved[part == 1, 3] += 1
        moved[:, 0] = np.where(character == k + 2, 2, np.where(character == k + 1, 1, part))
        return moved

    def variables(self) -> dict[str, Variable]:
        """How long the field is, how much of it is copied, and the letter that is due."""
        settled = f"letters of the field, at most {self.longest}"
        return {
            "size": variable("size", "latent", (), self.longest + 1, settled, settable=False),
            "copied": variable("copied", "latent", (), self.longest + 1, "letters of the copy so far"),
            "due": variable("due", "decide", ("copied", "size"), self.letters, "the field's letter behind these"),
        }

    def read(self, state: State, name: str) -> NDArray[np.int64]:
        """As in Rule; the size is defined once a letter stands, the rest in the copy."""
        part, _, size, copied = state[:, :4].T
        if name == "size":
            return np.where((part < 2) & (size > 0), size, -1)
        letter = np.take_along_axis(state[:, 4:], np.minimum(copied, self.longest - 1)[:, None], axis=1)[:, 0]
        values = {"copied": copied, "due": np.where(copied < size, letter, -1)}[name]
        return np.where(part == 1, values, -1)

    def stratum(self, state: State) -> NDArray[np.int64]:
        """As in Rule."""
        part, _, size, copied = state[:, :4].T
        return np.where(part == 0, 0, np.where((part == 1) & (copied < size), 1, 2))

    def reason(self, state: State, character: str) -> str:
        """As in Rule."""
        part, field, size, copied = (int(value) for value in state[0, :4])
        if part:
            copy = "".join(_LETTERS[letter] for letter in state[0, 4 : 4 + size])
            due = f"{copy[copied]} is due" if part == 1 and copied < size else "the string ends here"
            return f"{copy} is copied: {due}"
        if size == 0:
            return "a field has at least one letter"
        if character == "," and field == self.fields:
            return f"there are at most {self.fields} fields"
        return f"a field has at most {self.longest} letters, and = follows the last"

    def in_words(self) -> str:
        """As in Rule."""
        return "that end in a copy of their only field" if self.fields == 1 else "that end in a copy of the last field"
