"""Rule strings as a world: drawn by the rule's own automaton, held out string by string."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Split, Strata, Variable, World, in_split
from interp.worlds.rows import Rows, hash_rows, mix
from interp.worlds.strings.arithmetic import Arithmetic
from interp.worlds.strings.copying import Copying
from interp.worlds.strings.counting import Counting
from interp.worlds.strings.markov import Markov
from interp.worlds.strings.rule import END, Fault, Rule, State
from interp.worlds.strings.sticky import Sticky

RULES: dict[str, type[Rule]] = {each.name: each for each in (Sticky, Counting, Arithmetic, Copying, Markov)}
_MAX_ATTEMPTS = 4000  # a string is in a split of a twentieth in one of twenty draws
_AT_ONCE = 4  # attempts a row that are drawn together


@dataclass(frozen=True, eq=False)
class NextCharacter:
    """What should come after the characters read: the exact distribution, and its likeliest character."""

    distribution: NDArray[np.float64]  # [n, characters]; zeros where the values that were set cannot be

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether there is an answer, bool [n]."""
        return self.distribution.sum(axis=1) > 0

    @property
    def values(self) -> NDArray[np.int64]:
        """The likeliest character, [n, 1]; −1 where two are equally likely, and where there is no answer."""
        top = self.distribution.max(axis=1, keepdims=True)
        alone = np.isclose(self.distribution, top, rtol=1e-9, atol=0).sum(axis=1) == 1
        return np.where(alone & self.valid, self.distribution.argmax(axis=1), -1)[:, None]


class StringWorld(World):
    """Strings of one rule, as rows of character numbers [n, length]; a string that ended is filled up with END.

    A step is a character: what is read or set at step t concerns what the first t characters say of the next one.
    """

    name, unit = "strings", "string"
    capabilities = frozenset({"do", "language"})

    def __init__(self, rule: Rule):
        self.rule = rule
        self.stratum_title, self.stratum_names = rule.stratum_title, rule.stratum_names  # type: ignore[misc]

    def to_dict(self) -> dict[str, Any]:
        """As in World: the rule's name and its settings."""
        return {"rule": self.rule.name} | {each.name: getattr(self.rule, each.name) for each in fields(self.rule)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """As in World.

        Raises:
            ValueError, TypeError: no such rule, or settings that it does not take.
        """
        settings = dict(values)
        rule = settings.pop("rule")
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(RULES)}, got {rule!r}")
        return cls(RULES[rule](**settings))

    def variables(self) -> dict[str, Variable]:
        """As in World."""
        return self.rule.variables()

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: NDArray[np.float64] | None = None,
    ) -> Rows:
        """As in World: strings by the exact distribution, those outside the split drawn again.

        Raises:
            ValueError: weights are given (a string belongs to no stratum), or hardly a string is of the split.
        """
        if weights is not None:
            raise ValueError("a string belongs to no one stratum: leave weights out")
        found = np.zeros((n, self.rule.length), dtype=np.int64)
        pending = np.arange(n)
        for first in range(0, _MAX_ATTEMPTS, _AT_ONCE):
            attempts = np.tile(np.arange(first, first + _AT_ONCE), len(pending))
            drawn = self._drawn(np.repeat(pending + start, _AT_ONCE), attempts, seed=seed)
            kept = in_split(hash_rows(drawn), split).reshape(-1, _AT_ONCE)
            has = kept.any(axis=1)
            earliest = np.arange(len(pending)) * _AT_ONCE + kept.argmax(axis=1)
            found[pending[has]] = drawn[earliest[has]]
            pending = pending[~has]
            if not len(pending):
                return Rows(found)
        raise ValueError(f"found no string of the split {split!r} for {len(pending)} of {n} rows")

    def _drawn(self, rows: NDArray[np.int64], attempts: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        """One string each, a function of (seed, row, attempt)."""
        length = self.rule.length
        state = np.tile(np.array(self.rule.start(), dtype=np.int64), (len(rows), 1))
        found = np.zeros((len(rows), length), dtype=np.int64)
        for at in range(length):
            cumulated = self.rule.distribution(state).cumsum(axis=1)
            chosen = _unit(rows, seed, attempts * length + at)[:, None] * cumulated[:, -1:]
            found[:, at] = (cumulated <= chosen).sum(axis=1)
            state = self.rule.advance(state, found[:, at])
        return found

    def states(self, examples: Rows, at: int | NDArray[np.int64] = 0) -> State:
        """The rule's state once `at` characters are read, [n, k], or [n, m, k] for `at` [n, m]."""
        everything = self.rule.states(examples.values)
        at = np.asarray(at, dtype=np.int64)
        rows = np.arange(len(examples))
        return everything[rows[:, None] if at.ndim == 2 else rows, at]

    def read(self, examples: Rows, name: str, at: int | NDArray[np.int64] = 0) -> NDArray[np.int64]:
        """As in World; −1 also at a step −1 or past the end."""
        self.variable(name)
        at = np.asarray(at, dtype=np.int64)
        states = self.states(examples, np.clip(at, 0, self.rule.length))
        values = self.rule.read(states.reshape(-1, states.shape[-1]), name).reshape(states.shape[:-1])
        return np.where(at >= 0, values, -1).astype(np.int64)

    def answer(
        self, examples: Rows, do: Mapping[str, NDArray[np.integer]] | None = None, at: int | NDArray[np.int64] = 0
    ) -> NextCharacter:
        """The next character once `at` characters are read, as it is, or if these variables had these values then."""
        for name in do or {}:
            self.settable(name)
        set_to = {name: np.asarray(values, dtype=np.int64) for name, values in (do or {}).items()}
        found = self.rule.distribution(self.states(examples, at), set_to or None)
        undefined = np.zeros(len(examples), dtype=bool)
        for values in set_to.values():
            undefined |= values < 0
        found[undefined] = 0
        return NextCharacter(found)

    def groups(self, examples: Rows) -> NDArray[np.uint64]:
        """As in World: of the whole string."""
        return hash_rows(examples.values)

    def strata(self, examples: Rows, at: int | NDArray[np.int64] = 0) -> Strata:
        """What is due once `at` characters are read; its numbers are [n, m] for `at` [n, m]."""
        states = self.states(examples, at)
        number = self.rule.stratum(states.reshape(-1, states.shape[-1])).reshape(states.shape[:-1])
        return Strata(self.stratum_title, self.stratum_names, number.astype(np.int64))

    # Language: what is asked of worlds whose examples are texts with an exact distribution.

    def conditionals(self, examples: Rows) -> NDArray[np.float64]:
        """The exact distribution of each character given those before it, [n, length, characters]."""
        states = self.rule.states(examples.values)[:, :-1]
        flat = self.rule.distribution(states.reshape(-1, states.shape[-1]))
        return flat.reshape(*states.shape[:2], -1)

    def lengths(self, examples: Rows) -> NDArray[np.int64]:
        """How many characters each string has, the first END included, [n]."""
        if not self.rule.ends:
            return np.full(len(examples), self.rule.length)
        return (examples.values == len(self.rule.alphabet) - 1).argmax(axis=1) + 1

    def texts(self, examples: Rows) -> list[str]:
        """The strings as text, without END."""
        alphabet, ends = self.rule.alphabet, self.rule.ends
        lengths = self.lengths(examples) - ends
        return ["".join(alphabet[c] for c in row[:size]) for row, size in zip(examples.values, lengths, strict=True)]

    def encode(self, texts: list[str]) -> Rows:
        """Texts as examples, cut after the rule's length and filled up with END where strings end.

        Raises:
            ValueError: a character that the rule lacks, or a text of another length than strings have.
        """
        rule = self.rule
        found = np.full((len(texts), rule.length), len(rule.alphabet) - 1)
        for row, text in enumerate(texts):
            if len(text) > rule.length - rule.ends or (len(text) < rule.length and not rule.ends):
                raise ValueError(f"text {row} has {len(text)} characters; strings have {rule.length - rule.ends}")
            if unknown := set(text) - set(rule.ids):
                raise ValueError(f"text {row} has the character {min(unknown)!r}, which the rule lacks")
            found[row, : len(text)] = [rule.ids[character] for character in text]
        return Rows(found)

    def fault(self, text: str) -> Fault | None:
        """The first fault of a text by the rule, None where there is none; see `Rule.fault`."""
        return self.rule.fault(text)

    def obey(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether `fault` finds nothing in each text, bool [n]: many texts at a time."""
        rule = self.rule
        found = np.zeros(len(texts), dtype=bool)
        by_length: dict[int, list[int]] = {}
        whole = [text + END if rule.ends and not text.endswith(END) else text for text in texts]
        for row, text in enumerate(whole):
            if set(text) <= set(rule.ids):
                by_length.setdefault(len(text), []).append(row)
        for length, some in by_length.items():
            rows = np.array(some)
            numbers = np.array([[rule.ids[each] for each in whole[row]] for row in some]).reshape(len(some), length)
            state = np.tile(np.array(rule.start(), dtype=np.int64), (len(some), 1))
            for at in range(length):
                legal = rule.distribution(state)[np.arange(len(rows)), numbers[:, at]] > 0
                rows, numbers = rows[legal], numbers[legal]
                state = rule.advance(state[legal], numbers[:, at])
            found[rows] = True
        return found

    def every_string(self, most: int, *, length: int | None = None) -> tuple[Rows, NDArray[np.float64]] | None:
        """All strings, or what their first `length` characters can be, with exact probabilities, which sum to 1; None
        where they are more than `most`."""
        rows = np.zeros((1, 0), dtype=np.int64)
        state, mass = np.array([self.rule.start()], dtype=np.int64), np.ones(1)
        for _ in range(self.rule.length if length is None else length):
            distribution = self.rule.distribution(state)
            row, character = np.nonzero(distribution > 0)
            if len(row) > most:
                return None
            mass = mass[row] * distribution[row, character]
            rows = np.concatenate([rows[row], character[:, None]], axis=1)
            state = self.rule.advance(state[row], character)
        return Rows(rows), mass

    def describe(self, example: Rows) -> str:
        """The string."""
        return self.texts(example[:1])[0]

    def in_words(self) -> str:
        """As in World."""
        return f"strings {self.rule.in_words()}"

    @property
    def title(self) -> str:
        """As in World."""
        return "the rule"


def _unit(rows: NDArray[np.int64], seed: int, streams: NDArray[np.int64]) -> NDArray[np.float64]:
    """Numbers in [0, 1), each a function of (seed, stream, row)."""
    of_stream = mix(streams.astype(np.uint64))
    words = mix(mix(np.uint64(seed) ^ of_stream) ^ mix(rows.astype(np.uint64)))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
