"""What a rule of strings is: an automaton over characters with an exact distribution of the next one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Kind, Variable

END = "."  # the last character of the alphabet of a rule whose strings end; rows are filled up with it

State = NDArray[np.int64]  # [n, k]: k integers that sum up all that was read
Do = Mapping[str, NDArray[np.int64]]  # values [n] that variables of the rule are set to


@dataclass(frozen=True)
class Fault:
    """The first character of a text that the rule does not allow."""

    position: int  # from 0; the text's length where it ends too early
    reason: str


class Rule(ABC):
    """A frozen dataclass whose fields are its settings.

    Attributes:
        name: its key in `RULES`.
        length: characters of a drawn string, END included where its strings end.
        ends: whether strings end by themselves, with END; else they are cut after `length` characters.
        stratum_title, stratum_names: the rule's word for what is due next, and what that can be.
    """

    name: ClassVar[str]
    length: int
    ends: ClassVar[bool] = False
    stratum_title: ClassVar[str] = "state"
    stratum_names: tuple[str, ...]

    @property
    @abstractmethod
    def alphabet(self) -> str:
        """The characters, in id order; END last where strings end."""

    @property
    @abstractmethod
    def context(self) -> int | None:
        """How many of the last characters decide the next one's distribution; None: no fixed number does."""

    @abstractmethod
    def start(self) -> tuple[int, ...]:
        """The state before the first character."""

    @abstractmethod
    def distribution(self, state: State, do: Do | None = None) -> NDArray[np.float64]:
        """The exact distribution of the next character [n, characters], with `do` that in which variables were set;
        a row of zeros where these values cannot be."""

    @abstractmethod
    def advance(self, state: State, character: NDArray[np.int64]) -> State:
        """The states after these characters [n], which the rule allows."""

    @abstractmethod
    def variables(self) -> dict[str, Variable]:
        """What may be read of a state, in causal order."""

    @abstractmethod
    def read(self, state: State, name: str) -> NDArray[np.int64]:
        """A variable's value [n]; −1 where it is undefined."""

    @abstractmethod
    def stratum(self, state: State) -> NDArray[np.int64]:
        """What is due next, as a number in `stratum_names`, [n]; −1 for none."""

    @abstractmethod
    def reason(self, state: State, character: str) -> str:
        """Why a character is not allowed in a state [1, k], in a sentence."""

    @abstractmethod
    def in_words(self) -> str:
        """The rule in a phrase that follows "strings": "in which …"."""

    @cached_property
    def ids(self) -> dict[str, int]:
        """The number of each character."""
        return {character: index for index, character in enumerate(self.alphabet)}

    def states(self, characters: NDArray[np.int64]) -> State:
        """The state before each character and after the last, [n, length + 1, k], of strings [n, length]."""
        state = np.tile(np.array(self.start(), dtype=np.int64), (len(characters), 1))
        found = [state]
        for column in characters.T:
            state = self.advance(state, column)
            found.append(state)
        return np.stack(found, axis=1)

    def fault(self, text: str) -> Fault | None:
        """The first fault of a text, or None where the rule allows it all. A text may be shorter or longer than drawn
        strings; what the rule ends by itself must have come to its end."""
        if self.ends and not text.endswith(END):
            text += END
        state = np.array([self.start()], dtype=np.int64)
        for position, character in enumerate(text):
            if character not in self.ids:
                return Fault(position, f"{character!r} is no character of the rule")
            number = self.ids[character]
            if not self.distribution(state)[0, number] > 0:
                return Fault(position, self.reason(state, character))
            state = self.advance(state, np.array([number]))
        return None


def variable(
    name: str, kind: Kind, parents: tuple[str, ...], n_values: int, equation: str, *, settable: bool = True
) -> Variable:
    """A variable of a rule: it stands nowhere in the text."""
    return Variable(name, name.partition("[")[0], kind, parents, n_values, None, settable, equation)


def one_hot(numbers: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """1 at each number, [n, size]; zeros where it is outside."""
    return (numbers[:, None] == np.arange(size)).astype(np.float64)


def n_digits(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many decimal digits whole numbers from 0 up have."""
    return np.maximum(1, np.searchsorted(10 ** np.arange(1, 18), numbers, side="right") + 1)


def digit(numbers: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """The decimal digit at a place from the right, 0 beyond the number's length."""
    return numbers // 10 ** np.maximum(place, 0) % 10


def ways(digits: int, written: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many numbers of at most `digits` digits begin with a prefix of so many digits that is not 0."""
    return (10 ** (np.maximum(digits - written, -1) + 1) - 1) // 9
