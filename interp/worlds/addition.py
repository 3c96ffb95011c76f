"""Addition: sums of numbers in any base, place by place, with what is carried between the places.

    digit_sum[i]      what the digits of place i add up to, without a carry
    generate[i]       1 if that reaches the base: a carry leaves the place whatever comes in
    propagate[i]      1 if it is base - 1: a carry leaves the place if one comes in
    carry_in[i]       what comes into place i from below
    result_digit[i]   the digit of the sum
    cascade[i]        how many places the carry into i has come; 0 without one. Can be read, not set

Places count from 0, the lowest. Two causal models share these values and differ in what depends on what: in "ripple" a
carry comes from the carry before it, so that setting one goes on through places that propagate; in "look_ahead" each
carry comes from all places below at once (Quirke and Barez 2024 find both in trained models), so that setting one
changes its own digit alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from interp.worlds.addition_digits import LOOK_AHEAD, Ints, lengths, sum_of_places, to_digits, to_numbers, written
from interp.worlds.addition_draws import Way, draw_digits, possible, units
from interp.worlds.base import Capability, Split, Strata, Variable, World, in_split
from interp.worlds.rows import Rows, RowsAnswer, hash_rows, mix

NAMES = "abcdefgh"  # of summands
_UNSEEN = 50  # one operand value of this many, of two digits and more, is kept out of training
_AGAIN = 400  # tries of a row before another stratum is drawn for it
_SAME = 32  # tries of a row with the same lengths
_AT_ONCE = {"fit": 1, "train": 1, "all": 1}  # tries at a time; a held-out pair is one of twenty


@dataclass(frozen=True)
class Sums:
    """What is chosen about a world of sums. JSON-ready.

    Raises:
        ValueError: a value is out of range.
    """

    n_digits: int = 4  # of the longest summand
    base: int = 10  # 2 to 16
    n_operands: int = 2  # summands
    least_digits: int = 1  # of the shortest summand
    carries: Literal["ripple", "look_ahead"] = "ripple"  # the causal model that `answer(do=…)` follows

    def __post_init__(self) -> None:
        for name, low, high in (
            ("n_digits", 1, 1000), ("base", 2, 16), ("n_operands", 2, min(self.base, len(NAMES))),
            ("least_digits", 1, self.n_digits),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
        if self.carries not in ("ripple", LOOK_AHEAD):
            raise ValueError(f"carries must be 'ripple' or 'look_ahead', got {self.carries!r}")


class Addition(World):
    """Sums of `n_operands` numbers of `least_digits` to `n_digits` digits. Examples are Rows of all their digits.

    Held out: one unordered set of summands in twenty, by its hash (the unit), and beside that some operand values
    altogether, which no training and no validation example has; evaluation has both kinds, and tells them apart.
    """

    name, unit, stratum_title = "addition", "operand pair", "longest cascade"
    part_title = "length"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"do", "edit", "contrasts"})
    edits_change_units: ClassVar[bool] = True

    def __init__(self, **settings: Any):
        self.sums = Sums(**settings)
        self.base, self.n_digits, self.n_operands = self.sums.base, self.sums.n_digits, self.sums.n_operands
        self.stratum_names = ("no carry", *(f"cascade {c}" for c in range(1, self.n_digits + 1)))
        self.part_names = tuple(f"{n} digit{'s' * (n > 1)}" for n in range(1, self.n_digits + 1))

    @property
    def contrast_names(self) -> tuple[str, ...]:
        """A carry into each place, and cascades of two places and more; for two summands."""
        if self.n_operands != 2:
            return ()
        return (*(f"carry into {i}" for i in range(1, self.n_digits + 1)), *self.stratum_names[2:])

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self.sums))

    # Numbers.

    def examples(self, numbers: list[tuple[int, ...]]) -> Rows:
        """Examples of given summands. Raises ValueError where one has too many digits, or there are too few."""
        if any(len(row) != self.n_operands for row in numbers):
            raise ValueError(f"each sum must have {self.n_operands} summands, got {numbers}")
        flat = [number for row in numbers for number in row]
        return Rows(to_digits(flat, self.base, self.n_digits).reshape(len(numbers), -1))

    def digits(self, examples: Rows) -> Ints:
        """Of each summand, least significant first, [n, operands, n_digits]."""
        return examples.values.reshape(-1, self.n_operands, self.n_digits)

    def numbers(self, examples: Rows) -> list[tuple[int, ...]]:
        """The summands as Python's integers."""
        flat = to_numbers(self.digits(examples).reshape(-1, self.n_digits), self.base)
        return [tuple(flat[at : at + self.n_operands]) for at in range(0, len(flat), self.n_operands)]

    # What is true.

    @cached_property
    def _variables(self) -> dict[str, Variable]:
        m, b, found = self.n_operands, self.base, {}

        def add(family: str, i: int, kind: Any, parents: Any, n_values: int, words: str, settable: bool = True) -> None:
            name = f"{family}[{i}]"
            place = name if family in NAMES else None
            found[name] = Variable(name, family, kind, tuple(parents), n_values, place, settable, words)

        for operand in NAMES[:m]:
            for i in range(self.n_digits):
                add(operand, i, "root", (), b, "given")
        for i in range(self.n_digits):
            came = (f"carry_in[{i}]",) if i else ()
            below = (f"generate[{i - 1}]", f"propagate[{i - 1}]")
            if i:
                add("carry_in", i, "decide", self._carry_parents(i), m, "what leaves the place below")
            add("digit_sum", i, "fetch", (f"{each}[{i}]" for each in NAMES[:m]), m * (b - 1) + 1, "the digits' sum")
            add("generate", i, "decide", (f"digit_sum[{i}]",), m, f"1 if digit_sum[{i}] reaches {b}")
            add("propagate", i, "decide", (f"digit_sum[{i}]",), m, f"1 if digit_sum[{i}] is {b - 1}")
            add("result_digit", i, "result", (f"digit_sum[{i}]", *came), b, "digit_sum + carry_in, modulo the base")
            if i:
                add("cascade", i, "latent", (*below, *came), self.n_digits + 1, "places that the carry came", False)
        last = self.n_digits
        add("carry_in", last, "decide", self._carry_parents(last), m, "what leaves the highest place")
        add("result_digit", last, "result", (f"carry_in[{last}]",), b, "the carry out of the highest place")
        below = (f"generate[{last - 1}]", f"propagate[{last - 1}]", f"carry_in[{last}]")
        add("cascade", last, "latent", below, last + 1, "how many places the carry has come", False)
        return found

    def _carry_parents(self, i: int) -> list[str]:
        below = range(i - 1, -1, -1) if self.sums.carries == LOOK_AHEAD else [i - 1]
        parents = [f"{family}[{j}]" for j in below for family in ("generate", "propagate")]
        return parents if self.sums.carries == LOOK_AHEAD or i == 1 else [*parents, f"carry_in[{i - 1}]"]

    def variables(self) -> Mapping[str, Variable]:
        return self._variables

    def main_variables(self) -> list[str]:
        """Every computed variable of the places up to 3, and the carry and the digit above these."""
        shown = [name for name, each in self._variables.items() if each.kind != "root"]
        return [name for name in shown if int(name.partition("[")[2][:-1]) <= min(4, self.n_digits)]

    def read(self, examples: Rows, name: str, at: Any = 0) -> Ints:
        found, digits = self.variable(name), self.digits(examples)
        place = int(name.partition("[")[2][:-1])
        if found.kind == "root":
            values = digits[:, NAMES.index(found.family), place]
        else:
            values = sum_of_places(digits, self.base, {}, self.sums.carries)[found.family][:, place]
        when = np.asarray(at)
        return np.where(when == 0, values[:, None] if when.ndim == 2 else values, -1).astype(np.int64)

    def answer(self, examples: Rows, do: Mapping[str, NDArray[np.integer]] | None = None, at: Any = 0) -> RowsAnswer:
        """The digits of the sum, least significant first, values [n, n_digits + 1]."""
        digits, setting = self.digits(examples), dict(do or {})
        valid = np.ones(len(examples), dtype=bool)
        for name, values in setting.items():
            each, given = self.settable(name), np.asarray(values)
            valid &= (given >= 0) & (given < each.n_values)
            if each.kind == "root":
                digits = digits.copy()
                digits[:, NAMES.index(each.family), int(name.partition("[")[2][:-1])] = np.maximum(given, 0)
        found = sum_of_places(digits, self.base, setting, self.sums.carries)
        return RowsAnswer(found["result_digit"], valid)

    def edit(self, examples: Rows, name: str, values: NDArray[np.integer]) -> Rows:
        self.variable(name)
        if not self.editable(name):
            raise ValueError(f"variable {name!r} is computed; an edit takes a digit of a summand")
        family, _, place = name.partition("[")
        return examples.with_column(NAMES.index(family) * self.n_digits + int(place[:-1]), values)

    # Strata and splits.

    def longest_cascade(self, examples: Rows) -> Ints:
        """How far the longest carry of each sum comes, [n]; 0 where nothing is carried."""
        return sum_of_places(self.digits(examples), self.base, {}, "ripple")["cascade"].max(axis=1)

    def strata(self, examples: Rows) -> Strata:
        """The longest cascade; its part is the length of the longest summand."""
        longest = lengths(self.digits(examples)).max(axis=1)
        return Strata(
            self.stratum_title, self.stratum_names, self.longest_cascade(examples), self.part_names, longest - 1
        )

    def types(self, examples: Rows, name: str) -> Ints:
        """The digits of its own place; for a carry and a cascade, those of the place below."""
        family, _, place = name.partition("[")
        at = int(place[:-1]) - (family in ("carry_in", "cascade"))
        at = min(at, self.n_digits - 1)
        return self.digits(examples)[:, :, at] @ (self.base ** np.arange(self.n_operands))

    def groups(self, examples: Rows) -> NDArray[np.uint64]:
        """A hash of the summands in any order, whatever zeros stand before them."""
        return hash_rows(np.sort(self._hashes(examples), axis=1))

    def _hashes(self, examples: Rows) -> NDArray[np.uint64]:
        """Of each summand, [n, operands]."""
        digits = self.digits(examples)
        n_digits, found = lengths(digits), np.zeros(digits.shape[:2], dtype=np.uint64)
        for place in range(self.n_digits):
            found = np.where(place < n_digits, mix(found ^ digits[:, :, place].astype(np.uint64)), found)
        return found

    def unseen(self, examples: Rows) -> NDArray[np.bool_]:
        """Whether a summand is one that no training example has, bool [n]."""
        held = (self._hashes(examples) % np.uint64(_UNSEEN) == 0) & (lengths(self.digits(examples)) > 1)
        return held.any(axis=1)

    def allowed(self, examples: Rows, split: Split) -> NDArray[np.bool_]:
        if split in ("all", "evaluation"):
            return np.ones(len(examples), dtype=bool)
        return ~self.unseen(examples)

    def strata_weights(self, balance: str) -> NDArray[np.float64] | None:
        """Equal shares of the cascades, inside each in proportion to the longest summand's length; "natural": None."""
        return None if balance == "natural" else self._weights

    @cached_property
    def _weights(self) -> NDArray[np.float64]:
        weights = np.zeros((self.n_digits + 1, self.n_digits))
        for longest in range(self.sums.least_digits, self.n_digits + 1):
            rest = list(combinations_with_replacement(range(self.sums.least_digits, longest + 1), self.n_operands - 1))
            for cascade in range(longest + 1):
                ways = (Way(self.base, self.n_digits, tuple(sorted((*each, longest))), cascade) for each in rest)
                if any(map(possible, ways)):
                    weights[cascade, longest - 1] = longest
        shares = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1)
        return shares / shares.sum()

    # Drawing.

    def draw(self, n: int, *, seed: int, start: int = 0, split: Split = "evaluation", weights: Any = None) -> Rows:
        """`n` sums. As they come: every length equally often, digits uniform; `weights`: see `strata_weights`."""
        return self.draw_where(
            lambda rows: in_split(self.groups(rows), split) & self.allowed(rows, split),
            n, seed=seed, start=start, weights=weights, at_once=_AT_ONCE.get(split, 16),
        )  # fmt: skip

    def draw_where(
        self,
        keep: Callable[[Rows], NDArray[np.bool_]],
        n: int,
        *,
        seed: int,
        start: int = 0,
        weights: NDArray[np.float64] | None = None,
        at_once: int = 16,
    ) -> Rows:
        """`n` sums for which `keep` holds, bool [m] of each of m; row i depends only on (seed, start + i).

        Raises:
            ValueError: there are none, or hardly any.
        """
        rows, found = np.arange(start, start + n), np.zeros((n, self.n_operands * self.n_digits), dtype=np.int64)
        waiting, tried = np.arange(n), 0
        while len(waiting):
            if tried > 100 * _AGAIN:
                raise ValueError(f"no such sum in {tried} draws with {self!r}")
            tries = np.tile(np.arange(tried, tried + at_once), len(waiting))
            drawn, there = self._drawn(np.repeat(rows[waiting], at_once), tries, seed, weights)
            kept = (keep(drawn) & there).reshape(len(waiting), at_once)
            first = kept.argmax(axis=1) + at_once * np.arange(len(waiting))
            done = kept.any(axis=1)
            found[waiting[done]] = drawn.values[first[done]]
            waiting, tried = waiting[~done], tried + at_once
        return Rows(found)

    def _drawn(
        self, rows: Ints, tries: Ints, seed: int, weights: NDArray[np.float64] | None
    ) -> tuple[Rows, NDArray[np.bool_]]:
        """One try of each row, and whether its stratum is possible at the lengths drawn for it."""
        m, least = self.n_operands, self.sums.least_digits
        n_of_digits, n_of_lengths = m * self.n_digits, m + 1
        random = _random(rows, n_of_digits, seed=seed, streams=2 * tries * n_of_digits)
        sized = _random(rows, n_of_lengths, seed=seed, streams=2 * (tries // _SAME) * n_of_lengths + 1)
        if weights is None:
            n_each = least + (sized[:, 1:] * (self.n_digits - least + 1)).astype(np.int64)
            cascades = np.full(len(rows), -1)
        else:
            # Where a stratum has no pair of the split, tries without end find none: draw another stratum then.
            ends = np.cumsum(weights.ravel() / weights.sum())
            chosen = np.searchsorted(ends, units(rows, seed=seed, stream=-1 - tries // _AGAIN), side="right")
            cascades, longest = np.divmod(np.minimum(chosen, len(ends) - 1), self.n_digits)
            n_each = least + (sized[:, 1:] * (longest + 2 - least)[:, None]).astype(np.int64)
            n_each[np.arange(len(rows)), (sized[:, 0] * m).astype(np.int64)] = longest + 1
        digits, there = draw_digits(self.base, self.n_digits, n_each, cascades, random)
        return Rows(digits.reshape(len(rows), -1)), there

    # In words.

    def in_words(self) -> str:
        counted = {2: "two", 3: "three"}.get(self.n_operands, str(self.n_operands))
        lowest = self.sums.least_digits
        size = f"{lowest} to {self.n_digits}" if lowest < self.n_digits else str(lowest)
        return f"sums of {counted} numbers of {size} digits in base {self.base}"

    @property
    def title(self) -> str:
        return "arithmetic"

    def text(self, examples: Rows, reverse: bool = False) -> list[str]:
        """Each sum as a string, "+1342+879+2221+"; `reverse`: every number least significant digit first."""
        digits, total = self.digits(examples), self.answer(examples).values
        found = []
        for row in range(len(examples)):
            parts = [written(each) for each in (*digits[row].tolist(), total[row].tolist())]
            found.append("+" + "".join((each[::-1] if reverse else each) + "+" for each in parts))
        return found

    def describe(self, example: Rows) -> str:
        parts = self.text(example)[0].strip("+").split("+")
        return f"{' + '.join(parts[:-1])} = {parts[-1]} in base {self.base}"

    def reading_notes(self) -> tuple[str, ...]:
        return (
            "A carry that leaves a place whose digits add up to one less than the base was carried on: it cascades. "
            "Random sums hardly do, so sums are drawn with every longest cascade equally often.",
        )

    def sizes(self) -> Mapping[str, tuple[str, ...]]:
        return {"digits": ("n_digits",)}


def _random(rows: Ints, n: int, *, seed: int, streams: Ints) -> NDArray[np.float64]:
    """`n` numbers from 0 up to 1 a row, [rows, n], of every second stream from `streams` [rows] on."""
    return units(np.repeat(rows[:, None], n, axis=1), seed=seed, stream=streams[:, None] + 2 * np.arange(n))
