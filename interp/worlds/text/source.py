"""Where a text comes from: a UTF-8 file, or the documentation that Python brings; read as a stream, never whole."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

DEFAULT = "pydoc_data.topics"
"""The text that every Python brings: the topics of `help()`, one after the other. It differs between versions."""
MOST_CHARACTERS = 4096  # kinds of characters up to which each is a token
PAGE = "\f"  # between two topics

Unit = Literal["block", "document"]
_AT_ONCE = 1 << 20  # bytes
_LONGEST = 1 << 22  # characters of a document, which is held in memory


@dataclass(frozen=True)
class Survey:
    """What one reading of a text tells of it."""

    sha256: str  # of its bytes
    n_characters: int
    alphabet: str | None  # its characters in order; None where they are more than MOST_CHARACTERS


def survey(source: str) -> Survey:
    """Read a text once.

    Raises:
        ValueError: it is empty, or not UTF-8: the sentence says at which byte.
        FileNotFoundError: there is no such file.
    """
    digest, kinds, n = hashlib.sha256(), set[str](), 0
    for piece in _decoded(_bytes(source), source, digest):
        n += len(piece)
        if len(kinds) <= MOST_CHARACTERS:
            kinds.update(piece)
    if not n:
        raise ValueError(f"{source} holds no text")
    alphabet = "".join(sorted(kinds)) if len(kinds) <= MOST_CHARACTERS else None
    return Survey(digest.hexdigest(), n, alphabet)


def sha256(source: str) -> str:
    """SHA-256 of a text's bytes, hexadecimal. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    for part in _bytes(source):
        digest.update(part)
    return digest.hexdigest()


def units(source: str, unit: Unit, *, block: int, separator: str) -> Iterator[str]:
    """What is held out whole, in order: blocks of so many characters (the last may be shorter), or what stands between
    two separators, blank stretches left out.

    Raises:
        ValueError: as `survey`; or a document of over four million characters.
    """
    rest = ""
    for piece in _decoded(_bytes(source), source):
        rest += piece
        if unit == "block":
            whole = len(rest) // block * block
            yield from (rest[at : at + block] for at in range(0, whole, block))
            rest = rest[whole:]
        else:
            *documents, rest = rest.split(separator)
            yield from (each for each in documents if each.strip())
            if len(rest) > _LONGEST:
                raise ValueError(
                    f"{source} has a document of over {_LONGEST:,} characters without {separator!r} in it; name "
                    "another separator, or hold out blocks"
                )
    if rest.strip() or (rest and unit == "block"):
        yield rest


def _bytes(source: str) -> Iterator[bytes]:
    if source == DEFAULT:
        from pydoc_data.topics import topics

        yield PAGE.join(topics[name] for name in sorted(topics)).encode()
        return
    with Path(source).open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while part := file.read(_AT_ONCE):
            yield part


def _decoded(parts: Iterator[bytes], source: str, digest: hashlib._Hash | None = None) -> Iterator[str]:
    """Text piece by piece. Raises ValueError at the first byte that is not UTF-8, with its offset."""
    decoder, read = codecs.getincrementaldecoder("utf-8")(), 0
    for part in parts:
        if digest is not None:
            digest.update(part)
        yield _piece(decoder, part, read, source, final=False)
        read += len(part)
    yield _piece(decoder, b"", read, source, final=True)


def _piece(decoder: codecs.IncrementalDecoder, part: bytes, read: int, source: str, *, final: bool) -> str:
    waiting = len(decoder.getstate()[0])  # the beginning of a character, from the part before
    try:
        return decoder.decode(part, final)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{source} is not UTF-8: the byte at offset {read - waiting + error.start:,} "
            f"(0x{error.object[error.start]:02x}) begins no character ({error.reason})"
        ) from None
