"""A text as a world: stretches of it, held out by blocks or by documents. Nothing in it can be set, only read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from interp.reading import BrokenFileError
from interp.worlds.base import Split, Strata, Variable, World, in_split
from interp.worlds.rows import uniform
from interp.worlds.text.classes import CLASSES, LONGEST_WORD, WIDEST, character_class, columns, lengths_of_words
from interp.worlds.text.source import DEFAULT, MOST_CHARACTERS, Survey, Unit, sha256, survey, units
from interp.worlds.text.token_file import IN_MEMORY, Tokens, hash_text, tokens_in_memory, tokens_on_disk
from interp.worlds.text.vocabulary import BytePairs, Characters, Vocabulary, vocabulary_from
from interp.worlds.text.windows import Windows

Kind = Literal["auto", "characters", "byte_pairs"]
CACHE = "TAPELENS_CACHE"  # the environment's name for where tokens of long texts are kept
_LEARNED_FROM = 32_000_000  # characters of the training part that byte pairs are learned from
_REMADE = ("source", "unit", "block", "separator", "vocabulary", "vocab_size")


class TextWorld(World):
    """Windows of `length` tokens of one text. The text itself is no part of a run: its place and its hash are.

    A step is a token: what is read at step t concerns the tokens up to the t-th, from 0.
    """

    name = "text"
    stratum_title = "class of the next token"
    stratum_names = CLASSES
    capabilities = frozenset({"text"})

    def __init__(
        self,
        *,
        source: str,
        sha256: str,
        n_characters: int,
        vocabulary: Mapping[str, Any],
        length: int = 64,
        unit: Unit = "block",
        block: int = 2048,
        separator: str = "\n\n",
    ):
        for name, value, least in (("length", length, 2), ("block", block, 2), ("n_characters", n_characters, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if unit not in get_args(Unit):
            raise ValueError(f"unit must be one of {', '.join(get_args(Unit))}, got {unit!r}")
        if not separator:
            raise ValueError("separator must hold a character at least")
        self.source, self.sha256, self.n_characters = source, sha256, n_characters
        self.vocabulary: Vocabulary = vocabulary_from(vocabulary)
        self.length, self.block, self.separator = length, block, separator
        self.unit = unit  # type: ignore[misc]  # what is held out whole depends on the run
        self._beside: Path | None = None

    @classmethod
    def of(
        cls,
        source: str | Path = DEFAULT,
        *,
        length: int = 64,
        unit: Unit = "block",
        block: int = 2048,
        separator: str = "\n\n",
        vocabulary: Kind = "auto",
        vocab_size: int = 4096,
    ) -> TextWorld:
        """The world of a text that is there: a UTF-8 file, or `pydoc_data.topics`.

        Args:
            source: the file, read as a stream.
            length: tokens of an example.
            unit: what is held out whole: blocks of `block` characters, or documents between two `separator`.
            block, separator: see `unit`.
            vocabulary: characters, where they are at most 4,096 kinds, else byte pairs; or one of them.
            vocab_size: byte pairs to learn, from the training part alone; up to 65,000.

        Raises:
            ValueError: the text is empty, not UTF-8 (with the byte's offset), or has too many kinds of characters.
            FileNotFoundError: there is no such file.
        """
        if vocabulary not in get_args(Kind):
            raise ValueError(f"vocabulary must be one of {', '.join(get_args(Kind))}, got {vocabulary!r}")
        if not isinstance(vocab_size, int) or not 257 <= vocab_size <= 65_000:
            raise ValueError(f"vocab_size must be a whole number from 257 to 65000, got {vocab_size!r}")
        place = str(source) if str(source) == DEFAULT else str(Path(source).resolve())
        found = _survey(place, None if place == DEFAULT else _stamp(place))
        if found.alphabet is not None and vocabulary != "byte_pairs":
            learned: Vocabulary = Characters(found.alphabet)
        elif vocabulary == "characters":
            raise ValueError(f"{source} has more than {MOST_CHARACTERS:,} kinds of characters: use byte pairs")
        else:
            training = (
                text
                for text in units(place, unit, block=block, separator=separator)
                if in_split(np.array([hash_text(text)], dtype=np.uint64), "fit")[0]
            )
            learned = BytePairs.learned(_at_most(training, _LEARNED_FROM), vocab_size)
        return cls(
            source=place, sha256=found.sha256, n_characters=found.n_characters, vocabulary=learned.to_dict(),
            length=length, unit=unit, block=block, separator=separator,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """As in World: where the text is, its hash, its vocabulary, and how it is cut."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "n_characters": self.n_characters,
            "length": self.length,
            "unit": self.unit,
            "block": self.block,
            "separator": self.separator,
            "vocabulary": self.vocabulary.to_dict(),
        }

    def identity(self) -> dict[str, Any]:
        """As in World: without the place of the text, which may move; its hash says what is meant."""
        return {name: value for name, value in self.to_dict().items() if name != "source"}

    def settings(self) -> tuple[str, ...]:
        """As in World."""
        return (*self.to_dict(), "vocab_size")

    def changed(self, values: Mapping[str, Any]) -> TextWorld:
        """As in World; where the text or its cut is another, it is read anew. `vocabulary` is a kind, as in `of`."""
        if set(values) <= {"length"}:
            return type(self).from_dict({**self.to_dict(), **values})
        if unknown := set(values) - {*_REMADE, "length"}:
            raise ValueError(f"{min(unknown)} follows from the text; it cannot be given")
        if isinstance(given := values.get("separator"), str) and "\\" in given:  # as a shell takes it: \n, \f
            values = {**values, "separator": given.encode("latin-1", "backslashreplace").decode("unicode_escape")}
        kept = {name: getattr(self, name) for name in ("source", "length", "unit", "block", "separator")}
        kind = next(iter(self.vocabulary.to_dict()))
        return type(self).of(**{**kept, "vocabulary": "auto" if "source" in values else kind, **values})

    def from_source(self, path: Path) -> TextWorld:
        """As in World: the same cut of another text."""
        return self.changed({"source": str(path)})

    def keep_beside(self, folder: Path) -> None:
        """As in World: the tokens of a text too long for memory go to FOLDER/.texts, unless TAPELENS_CACHE says
        where."""
        self._beside = folder

    @property
    def cache(self) -> Path:
        """Where the tokens of a text are kept that is too long for memory."""
        return Path(os.environ.get(CACHE) or (self._beside or Path("runs")) / ".texts")

    @cached_property
    def tokens(self) -> Tokens:
        """The text as tokens, unit by unit.

        Raises:
            BrokenFileError: the text is gone, or is no longer what the run was made with.
        """
        try:
            found = _sha256(self.source, None if self.source == DEFAULT else _stamp(self.source))
        except OSError as error:
            raise BrokenFileError(
                f"the text {self.source} of this run cannot be read ({error.strerror or error}); the model can write, "
                "but nothing can be measured on the text"
            ) from None
        if found != self.sha256:
            why = " (every Python brings its own)" if self.source == DEFAULT else ""
            raise BrokenFileError(
                f"the text {self.source} has SHA-256 {found} here, and this run was made with {self.sha256}{why}: the "
                "model can write, but nothing can be measured on another text"
            )
        cut = units(self.source, self.unit, block=self.block, separator=self.separator)  # type: ignore[arg-type]
        if self.n_characters <= IN_MEMORY:
            return tokens_in_memory(cut, self.vocabulary)
        told = {name: value for name, value in self.identity().items() if name != "length"}
        key = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=8).hexdigest()
        return tokens_on_disk(cut, self.vocabulary, self.cache / f"{key}.tokens")

    @property
    def end(self) -> int:
        """The id of END, the last one."""
        return len(self.vocabulary.names)

    # Examples.

    def draw(
        self,
        n: int,
        *,
        seed: int,
        start: int = 0,
        split: Split = "evaluation",
        weights: NDArray[np.float64] | None = None,
    ) -> Windows:
        """As in World: windows drawn evenly from all those of a split, with replacement.

        Raises:
            ValueError: weights are given, the text is another, or no unit of the split holds a window.
        """
        if weights is not None:
            raise ValueError("a window of text belongs to no one stratum: leave weights out")
        own, counts = self._counts(split)
        cumulated = counts.cumsum()
        chosen = uniform(n, int(cumulated[-1]), seed=seed, start=start)
        row = np.searchsorted(cumulated, chosen, side="right")
        return self._windows(own[row], chosen - (cumulated[row] - counts[row]))

    def side_by_side(self, split: Split, most: int | None = None) -> Windows:
        """Windows that lie one behind the other and cover the units of a split; evenly spread ones where they are more
        than `most`. The last of a block ends where the block does, and overlaps the one before."""
        own, counts = self._counts(split)
        last = counts - 1  # the last place in each unit
        found_units, offsets = [], []
        for each, limit in zip(own.tolist(), last.tolist(), strict=True):
            places = np.unique(np.minimum(np.arange(0, limit + self.length - 1, self.length - 1), limit))
            found_units.append(np.full(len(places), each))
            offsets.append(places)
        unit, offset = np.concatenate(found_units), np.concatenate(offsets)
        if most is not None and len(unit) > most:
            kept = np.linspace(0, len(unit) - 1, most).round().astype(np.int64)
            unit, offset = unit[kept], offset[kept]
        return self._windows(unit, offset)

    def _counts(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The units of a split that hold a window, and how many windows each holds."""
        sizes = np.diff(self.tokens.starts)
        if self.unit == "document":
            counts = np.maximum(sizes + 1 - self.length, 0) + 1  # END belongs to a document; short ones are filled up
        else:
            counts = np.maximum(sizes - self.length + 1, 0)
        own = np.flatnonzero(in_split(self.tokens.hashes, split) & (counts > 0))
        if not len(own):
            raise ValueError(
                f"none of the {len(sizes)} {self.unit}s of {self.source} belongs to the split {split!r} and holds "
                f"{self.length} tokens: take a longer text, or smaller {self.unit}s"
            )
        return own, counts[own]

    def _windows(self, unit: NDArray[np.int64], offset: NDArray[np.int64]) -> Windows:
        tokens = self.tokens
        places = tokens.starts[unit] + offset
        sizes = np.minimum(tokens.starts[unit + 1] - places, self.length)
        return Windows(tokens.windows(places, sizes, self.length, self.end), tokens.hashes[unit], places)

    def units_of(self, split: Split) -> Iterator[str]:
        """The text of each unit of a split, in order."""
        tokens = self.tokens
        for each in np.flatnonzero(in_split(tokens.hashes, split)):
            yield self.decode(tokens.tokens[tokens.starts[each] : tokens.starts[each + 1]])

    def groups(self, examples: Windows) -> NDArray[np.uint64]:
        """As in World: of the whole block or document."""
        return examples.hashes

    # Text.

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of a text, [pos]. Raises ValueError for a character that has none."""
        return self.vocabulary.encode([text])[0].astype(np.int64)

    def decode(self, tokens: Any) -> str:
        """The text of ids."""
        return self.vocabulary.decode(tokens)

    @cached_property
    def characters(self) -> NDArray[np.int64]:
        """How many characters begin in each token, END last, [size + 1]."""
        spelled = [self.vocabulary.spelled(each) for each in range(self.end)]
        return np.array([*(sum((byte & 0xC0) != 0x80 for byte in each) for each in spelled), 0])

    def texts(self, examples: Windows) -> list[str]:
        """Each window as text."""
        return [self.decode(row) for row in examples.tokens]

    # Variables: read off the characters. Of byte pairs, the first character of a token counts for it.

    @cached_property
    def _class_of(self) -> NDArray[np.int64]:
        """The class of each token, END last."""
        spelled = [self.vocabulary.spelled(each).decode("utf-8", "replace") for each in range(self.end)]
        return np.array([*(character_class(each.lstrip(" ")[:1] or each[:1]) for each in spelled), 7])

    def variables(self) -> dict[str, Variable]:
        """As in World."""
        return {
            "class": Variable(
                "class", "class", "latent", (), len(CLASSES), "text[@here]", False, "what kind of character was read"
            ),
            "word_length": Variable(
                "word_length", "word_length", "latent", ("class",), LONGEST_WORD + 1, None, False,
                f"letters and digits in a row so far, at most {LONGEST_WORD}; 0 outside words",
            ),
            "column": Variable(
                "column", "column", "latent", ("class",), WIDEST + 1, None, False,
                f"tokens since the last newline, at most {WIDEST}; undefined before one was seen",
            ),
        }  # fmt: skip

    def read(self, examples: Windows, name: str, at: int | NDArray[np.int64] = 0) -> NDArray[np.int64]:
        """As in World; −1 also outside the window and behind the end of a document."""
        self.variable(name)
        classes = self._class_of[examples.tokens]
        values = {"class": lambda: classes, "word_length": lambda: lengths_of_words(classes)}.get(
            name, lambda: columns(classes)
        )()
        if name != "class":
            values = np.where(examples.tokens == self.end, -1, values)
        return self._at(values, at)

    def value_name(self, name: str, value: int) -> str:
        """As in World: classes by name."""
        named = self.variable(name).name == "class" and 0 <= value < len(CLASSES)
        return CLASSES[value] if named else str(value)

    def strata(self, examples: Windows, at: int | NDArray[np.int64] = 0) -> Strata:
        """The class of the token behind the `at`-th; its numbers are [n, m] for `at` [n, m]; −1 behind the end."""
        ends = np.cumsum(examples.tokens == self.end, axis=1) > 1
        classes = np.where(ends, -1, self._class_of[examples.tokens])
        return Strata(self.stratum_title, self.stratum_names, self._at(classes, np.asarray(at) + 1))

    def _at(self, values: NDArray[np.int64], at: int | NDArray[np.int64]) -> NDArray[np.int64]:
        at = np.asarray(at, dtype=np.int64)
        rows = np.arange(len(values))
        inside = (at >= 0) & (at < values.shape[1])
        found = values[rows[:, None] if at.ndim == 2 else rows, np.clip(at, 0, values.shape[1] - 1)]
        return np.where(inside, found, -1).astype(np.int64)

    @property
    def contrast_names(self) -> tuple[str, ...]:
        """None: where nothing can be set, pairs that differ in one thing are a person's to write."""
        return ()

    def describe(self, example: Windows) -> str:
        """The text."""
        return self.texts(example[:1])[0]

    def in_words(self) -> str:
        """As in World."""
        return f"the text {Path(self.source).name} ({self.n_characters:,} characters, held out by {self.unit}s)"

    @property
    def title(self) -> str:
        """As in World."""
        return "the text"


@lru_cache(maxsize=8)
def _survey(source: str, stamp: tuple[int, int] | None) -> Survey:
    return survey(source)


@lru_cache(maxsize=8)
def _sha256(source: str, stamp: tuple[int, int] | None) -> str:
    return sha256(source)


def _stamp(source: str) -> tuple[int, int]:
    """What a file is known by between two readings of one process."""
    found = os.stat(source)
    return found.st_size, found.st_mtime_ns


def _at_most(texts: Iterator[str], characters: int) -> Iterator[str]:
    """The first of the texts, until they hold so many characters."""
    left = [characters]

    def room(text: str) -> bool:
        left[0] -= len(text)
        return left[0] > -len(text)

    return takewhile(room, texts)
