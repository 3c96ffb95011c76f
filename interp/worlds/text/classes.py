"""Classes of characters, and what can be read of a text at each token without a model of language."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES = ("lower", "upper", "digit", "space", "newline", "punctuation", "other", "end")
LONGEST_WORD = 15  # lengths of words are capped there
WIDEST = 79  # and columns of lines here


def character_class(character: str) -> int:
    """The number in CLASSES of one character; "" is the end."""
    if not character:
        return 7
    if character in "\n\r\f":
        return 4
    if character.isspace():
        return 3
    if character.isalpha() and (character.islower() or character.isupper()):
        return 1 if character.isupper() else 0
    if character.isdigit():
        return 2
    return 5 if character.isascii() and character.isprintable() else 6


def lengths_of_words(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many letters and digits stand in a row up to each token, at most LONGEST_WORD; 0 outside words, [n, pos].

    Args:
        classes: of tokens that are characters, [n, pos].
    """
    inside = classes <= 2
    return np.minimum(_since(~inside), LONGEST_WORD)


def columns(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many tokens stand behind the last newline, at most WIDEST; −1 where none was seen, [n, pos]."""
    newline = classes == 4
    return np.where(np.logical_or.accumulate(newline, axis=1), np.minimum(_since(newline), WIDEST), -1)


def _since(resets: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many positions ago the last reset was, counted from before the row where there was none, [n, pos]."""
    at = np.broadcast_to(np.arange(1, resets.shape[1] + 1), resets.shape)
    return at - np.maximum.accumulate(np.where(resets, at, 0), axis=1)
