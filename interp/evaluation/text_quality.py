"""How varied written texts are, and how much of them is copied from training.

    distinct-n   the share of different ones among all n-grams of words (Li et al. 2016), 0 to 1, 1 = none is repeated
    copied       the share of n-grams of words that occur in the training part, 0 to 1

Both mean little alone: they stand beside the same shares of held-out text of the same length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interp.ranges import counted


@counted(n=1)
def word_grams(text: str, n: int) -> list[tuple[str, ...]]:
    """Every stretch of n words, in order."""
    words = text.split()
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


@counted(n=1)
def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n over all texts together; NaN where no text has n words."""
    grams = [gram for text in texts for gram in word_grams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


@counted(n=1)
def copied(texts: Sequence[str], training: Iterable[str], n: int = 4) -> float:
    """The share of n-grams that occur in the training texts, which are read as a stream; NaN where there is none."""
    grams = [gram for text in texts for gram in word_grams(text, n)]
    wanted, found = set(grams), set[tuple[str, ...]]()
    for text in training:
        found.update(wanted.intersection(word_grams(text, n)))
    return sum(gram in found for gram in grams) / len(grams) if grams else float("nan")
