"""A text as tokens: in memory while it is small, else in a memory-mapped file that is written as a stream."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from interp.files import atomic_path
from interp.worlds.text.vocabulary import Vocabulary

IN_MEMORY = 8_000_000  # characters up to which no file is made
_TOGETHER = 256  # units that are encoded together


class Tokens:
    """Units of a text, one behind the other, each with a hash of what it says."""

    def __init__(self, tokens: NDArray[np.uint16] | Path, starts: NDArray[np.int64], hashes: NDArray[np.uint64]):
        self._tokens = tokens
        self.starts = starts  # [units + 1]: where each begins, and where the last ends
        self.hashes = hashes  # [units]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def tokens(self) -> NDArray[np.uint16]:
        """All tokens. A file is mapped anew each time, so that what was read of it is not held in memory."""
        if isinstance(self._tokens, Path):
            return np.memmap(self._tokens, dtype=np.uint16, mode="r")
        return self._tokens

    def windows(self, places: NDArray[np.int64], sizes: NDArray[np.int64], length: int, end: int) -> NDArray[np.int64]:
        """`sizes` [n] tokens from each of `places` [n] on, [n, length], filled up with the id `end`."""
        found, tokens = np.full((len(places), length), end, dtype=np.int64), self.tokens
        for row, (place, size) in enumerate(zip(places.tolist(), sizes.tolist(), strict=True)):
            found[row, :size] = tokens[place : place + size]
        return found


def hash_text(text: str) -> int:
    """A 64-bit hash of a unit's text: equal texts are held out together."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def tokens_in_memory(units: Iterable[str], vocabulary: Vocabulary) -> Tokens:
    """The tokens of all units, held in memory."""
    parts, sizes, hashes = [], [], []
    for some, hashed in _encoded(units, vocabulary):
        parts += some
        sizes += [len(each) for each in some]
        hashes += hashed
    tokens = np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint16)
    return Tokens(tokens, _starts(sizes), np.array(hashes, dtype=np.uint64))


def tokens_on_disk(units: Iterable[str], vocabulary: Vocabulary, path: Path) -> Tokens:
    """The tokens of all units in the file `path`, with PATH.units.npz beside it, which is written last.

    What is there already is taken as it is: its name says what it holds.
    """
    beside = path.with_name(path.name + ".units.npz")
    if not (path.exists() and beside.exists()):
        sizes, hashes = [], []
        with atomic_path(path) as temporary, temporary.open("r+b") as file:
            for some, hashed in _encoded(units, vocabulary):
                file.write(np.concatenate(some).tobytes())
                sizes += [len(each) for each in some]
                hashes += hashed
        with atomic_path(beside) as temporary, temporary.open("r+b") as file:
            np.savez(file, starts=_starts(sizes), hashes=np.array(hashes, dtype=np.uint64))
    with np.load(beside, allow_pickle=False) as kept:
        return Tokens(path, kept["starts"], kept["hashes"])


def _encoded(units: Iterable[str], vocabulary: Vocabulary) -> Iterator[tuple[list[NDArray[np.uint16]], list[int]]]:
    remaining = iter(units)
    while some := list(islice(remaining, _TOGETHER)):
        yield vocabulary.encode(some), [hash_text(each) for each in some]


def _starts(sizes: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
