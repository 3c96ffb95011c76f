"""What a world is: examples with an exact truth, variables that can be read, and (mostly) set.

A world knows nothing of tokens or models. Tasks show it, methods ask it: what a variable's value is, what would come
out if it had another one, which examples belong together and must not be split between training and evaluation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal["root", "fetch", "decide", "result", "latent"]
Capability = Literal[
    "do", "edit", "contrasts", "rollout", "altered", "adaptive", "curriculum", "records", "language", "text"
]
# "train" is all but evaluation, as runs drew before there was a validation split; "fit" leaves out both.
Split = Literal["all", "train", "fit", "validation", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)
_PARTS = 20  # of the hashes of units: one for evaluation, one for validation


@dataclass(frozen=True)
class Variable:
    """One quantity of a world. Values are 0 … n_values − 1; −1 where it is undefined."""

    name: str  # "cell[3]"
    family: str  # "cell"
    kind: Kind
    parents: tuple[str, ...]
    n_values: int
    place: str | None  # where it stands in what a task shows: "cells[3]", "cells[@array_ptr]"
    settable: bool
    equation: str  # in words


class Examples(Protocol):
    """Some examples of a world, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any) -> Self: ...

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self: ...


class Answer(Protocol):
    """What should come out, computed when it is asked for."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether there is an answer, bool [n]: False where a variable was set to what it cannot be."""
        ...


@dataclass(frozen=True)
class Strata:
    """Which stratum each example belongs to, by the world's own word for it: an opcode, the length of a cascade.

    A stratum may have parts (how the instruction ended): `part` numbers them in `parts`.
    """

    title: str  # the world's word for a stratum: "instruction"
    names: tuple[str, ...]
    number: NDArray[np.int64]  # [n]; -1: none
    parts: tuple[str, ...] = ()
    part: NDArray[np.int64] | None = None  # [n]

    def __len__(self) -> int:
        return len(self.number)

    def present(self) -> list[tuple[int, int]]:
        """(stratum, part) of those that occur, in the world's order; part 0 where there are none."""
        part = np.zeros_like(self.number) if self.part is None else self.part
        found = np.unique(np.stack([self.number, part], axis=1), axis=0)
        return [(int(a), int(b)) for a, b in found if a >= 0]

    def members(self, stratum: int, part: int = 0) -> NDArray[np.bool_]:
        """Whether each example belongs there, bool [n]."""
        inside = self.number == stratum
        return inside if self.part is None else inside & (self.part == part)


class World(ABC):
    """What is true, and what would be.

    Attributes:
        name: its key in `WORLDS`.
        unit: what is held out whole: "program", "operand pair", "document".
        capabilities: what may be asked of it. "do": `answer(do=…)`; "edit": stored variables and minimal pairs;
            "contrasts": `contrasts()`; "rollout": `advance`, `rollout_starts`, `different_steps`; "altered": permuted
            meanings; "adaptive", "curriculum", "records": ways to draw training batches; "language": examples are
            texts, each with its exact distribution of the next character (`interp.worlds.strings`); "text": examples
            are stretches of a plain text, with `encode` and `decode` (`interp.worlds.text`).
        edits_change_units: whether the unit is all that is stored, so that whatever is edited, another unit comes out.
        stratum_title, part_title: its words for a stratum, and for a part of one.
        stratum_names, part_names: the strata and their parts, in order; () where examples belong to none.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    edits_change_units: ClassVar[bool] = False
    stratum_title: ClassVar[str] = "stratum"
    part_title: ClassVar[str] = "part"
    stratum_names: tuple[str, ...] = ()
    part_names: tuple[str, ...] = ()
    capabilities: ClassVar[frozenset[Capability]] = frozenset()

    @property
    def strata_words(self) -> str:
        """What a score by strata is broken down by, as pages say it: "longest cascade × length"."""
        return f"{self.stratum_title} × {self.part_title}" if self.part_names else self.stratum_title

    @abstractmethod
    def variables(self) -> Mapping[str, Variable]:
        """Every variable by its concrete name, in causal order."""

    @abstractmethod
    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: NDArray[np.float64] | None = None,
    ) -> Any:
        """`n` examples; row i depends only on (seed, start + i, split, weights).

        weights: shares of the strata, of the shape of `strata_weights`; None for the natural distribution.
        """

    @abstractmethod
    def read(self, examples: Any, name: str, at: int | NDArray[np.int64] = 0) -> NDArray[np.int64]:
        """A variable's value; −1 where it is undefined.

        at: the executed step at which it is read, for all, or one an example [n], or several an example [n, m].

        Returns:
            int64 [n], or [n, m].

        Raises:
            ValueError: no such variable.
        """

    @abstractmethod
    def groups(self, examples: Any) -> NDArray[np.uint64]:
        """A hash of each example's unit, [n]: equal where they must be held out together."""

    @abstractmethod
    def strata(self, examples: Any) -> Strata:
        """The stratum of each example."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready settings, without the name; `from_dict` takes them."""

    def identity(self) -> dict[str, Any]:
        """What of `to_dict` says which world it is: all of it, unless there is a place that may move."""
        return self.to_dict()

    def changed(self, values: Mapping[str, Any] | None = None, /, **settings: Any) -> Self:
        """The world with other values of some `settings`, by a mapping or by name. Raises as `from_dict`."""
        return type(self).from_dict({**self.to_dict(), **(values or {}), **settings})

    def from_source(self, path: Path) -> World:
        """The same kind of world, of the text of another file."""
        raise self.lacks("text")

    def keep_beside(self, folder: Path) -> None:
        """Where files may be kept that are made once and read by every run of this world: here nothing is."""
        del folder

    def settings(self) -> tuple[str, ...]:
        """The names of the settings that `from_dict` takes."""
        return tuple(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The world of these settings. Raises TypeError or ValueError where it does not take them."""
        return cls(**values)

    def answer(
        self, examples: Any, do: Mapping[str, NDArray[np.integer]] | None = None, at: int | NDArray[np.int64] = 0
    ) -> Any:
        """What should come out; with `do`, if at executed step `at` these variables had these values [n]."""
        raise self.lacks("do")

    def types(self, examples: Any, name: str) -> NDArray[np.int64]:
        """The input type of each example for the control task (Hewitt & Liang 2019), [n]; by default its stratum."""
        return self.strata(examples).number

    def altered(self, seed: int = 0) -> World | None:
        """The same examples under permuted meanings, for semantic controls; None where there is no such thing."""
        return None

    def edit(self, examples: Any, name: str, values: NDArray[np.integer]) -> Any:
        """The examples with one stored variable set to `values` [n]."""
        raise self.lacks("edit")

    def ancestors(self, name: str) -> frozenset[str]:
        """Every variable that `name` depends on, directly or not."""
        variables, found, waiting = self.variables(), set(), [name]
        while waiting:
            for parent in variables[waiting.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return frozenset(found)

    def stored_ancestors(self, name: str) -> tuple[str, ...]:
        """The stored variables that decide `name` (itself, if it is one) and that an edit may change, in order."""
        reached = self.ancestors(name) | {name}
        return tuple(each for each in self.variables() if each in reached and self.editable(each))

    def editable(self, name: str) -> bool:
        """Whether `edit` takes the variable and, where it can (`edits_change_units`), leaves an example's unit."""
        return "edit" in self.capabilities and self.variable(name).kind == "root"

    def needed_by(self, name: str) -> tuple[str, ...]:
        """The strata whose answer hangs on a variable, or on a whole family by its block's name; () where unknown."""
        return ()

    def main_variables(self) -> list[str]:
        """What is worth asking about first: here every variable that is no member of a family."""
        return [name for name in self.variables() if "[" not in name]

    def value_name(self, name: str, value: int) -> str:
        """A variable's value as a person reads it: the number itself where the world has no name for it.

        Values that are out of range are named by their number. Raises ValueError where there is no such variable.
        """
        self.variable(name)
        return str(value)

    def contrasts(self) -> Mapping[str, Any]:
        """Ways to draw pairs that differ in one thing, by name."""
        raise self.lacks("contrasts")

    @property
    def contrast_names(self) -> tuple[str, ...]:
        """What circuits are looked for, by name, so that it is known before a task is built: here the strata."""
        return self.stratum_names

    def strata_weights(self, balance: str) -> NDArray[np.float64] | None:
        """Equal shares of the strata that can occur, for `draw`; None for the natural distribution, and without any."""
        return None

    def training_weights(self, balance: str, loop_weight: float) -> NDArray[np.float64] | None:
        """Shares of the strata in training batches, from the settings; None for the natural distribution."""
        return self.strata_weights(balance)

    def adaptive_sampler(self, base: NDArray[np.float64], strength: float, *, distances: bool, split: Split) -> Any:
        """Draws more of what a model still gets wrong (`training.batches`), beside the shares `base`."""
        raise self.lacks("adaptive")

    def stages(self, kind: str) -> tuple[Any, ...]:
        """The stages of a curriculum before the whole world, each with a name, `draw` and `weights`."""
        raise self.lacks("curriculum")

    def open_records(self, path: Path, *, split: Split, progress: Callable[[int, int], None] | None = None) -> Any:
        """Records on disk to train on in place of drawn ones, with `spec`, `digest`, `n`, `n_held_out` and `draw`."""
        raise self.lacks("records")

    def advance(self, examples: Any, predicted: NDArray[np.int64]) -> Any:
        """Go on from a model's own answer."""
        raise self.lacks("rollout")

    def rollout_starts(self, n: int, *, seed: int, max_steps: int, archive: Any = None) -> Mapping[str, Any]:
        """Held-out examples from which to go on for long, `n` of each kind, by a word for the kind.

        archive: what `open_archive` gave, for a kind more.
        """
        raise self.lacks("rollout")

    def open_archive(self, path: Path) -> Any:
        """Examples to start from that were collected before, read from a file."""
        raise self.lacks("rollout")

    def different_steps(self, starts: Any, max_steps: int) -> NDArray[np.int64]:
        """How many steps from each start differ from all before them, at most max_steps, [n]: then it stands still or
        comes back, and who was right so far is right for ever."""
        raise self.lacks("rollout")

    def in_words(self) -> str:
        """What the world is, in words that follow "on": "a machine of 8 instructions"."""
        settings = ", ".join(f"{name} {value}" for name, value in self.to_dict().items())
        return f"the world {self.name}" + (f" ({settings})" if settings else "")

    @property
    def title(self) -> str:
        """What answers: "the machine"."""
        return f"the world {self.name}"

    def reading_notes(self) -> tuple[str, ...]:
        """What a reader of accuracy by stratum should know of this world, sentences in HTML."""
        return ()

    def stratum_words(self) -> Mapping[str, str]:
        """What each stratum is, in a few words, by its name; {} where the names say it."""
        return {}

    def describe(self, example: Any) -> str:
        """One example in words: here the values of its stored variables."""
        roots = [name for name, each in self.variables().items() if each.kind == "root"]
        return ", ".join(f"{name} {int(self.read(example, name)[0])}" for name in roots)

    def sizes(self) -> Mapping[str, tuple[str, ...]]:
        """The settings that make examples longer, in groups that grow together, by a word for the group."""
        return {}

    def allowed(self, examples: Any, split: Split) -> NDArray[np.bool_]:
        """Whether each example may be drawn in a split, bool [n]; beside the rule of the units, none here."""
        return np.ones(len(examples), dtype=bool)

    def variable(self, name: str) -> Variable:
        """The variable of a concrete name. Raises ValueError with close matches where there is none."""
        import difflib

        known = self.variables()
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
            raise ValueError(f"the world {self.name} has no variable {name!r}; {hint}")
        return known[name]

    def settable(self, name: str) -> Variable:
        """The variable of a concrete name. Raises ValueError where there is none, or it cannot be set."""
        found = self.variable(name)
        if "do" not in self.capabilities:
            raise self.lacks("do")
        if not found.settable:
            raise ValueError(f"variable {name!r} can be read but not set; interchange needs one that can be set")
        return found

    def lacks(self, capability: Capability) -> ValueError:
        """The error about something that this world cannot be asked."""
        have = ", ".join(sorted(self.capabilities)) or "nothing beyond reading"
        return ValueError(f"the world {self.name} cannot be asked for {capability!r}; it has {have}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()  # type: ignore[union-attr]

    def __hash__(self) -> int:
        return hash((self.name, repr(self.to_dict())))

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.to_dict().items())
        return f"{type(self).__name__}({settings})"


def in_split(groups: NDArray[np.integer], split: str) -> NDArray[np.bool_]:
    """Whether units with these hashes belong to a split, bool [n].

    Raises:
        ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    rest = np.asarray(groups).astype(np.uint64) % np.uint64(_PARTS)
    if split == "all":
        return np.ones(rest.shape, dtype=bool)
    return {"train": rest != 0, "fit": rest > 1, "validation": rest == 1, "evaluation": rest == 0}[split]


def half(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """Which of two halves units belong to, 0 or 1 [n], inside every split: one to choose on, one to score on."""
    return ((np.asarray(groups).astype(np.uint64) // np.uint64(_PARTS)) % np.uint64(2)).astype(np.int64)
