"""Tokens of a text: its characters, or byte pairs that were learned from its training part."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

END = "<|endoftext|>"  # the token behind a document; no piece of a text is ever read as it


class Vocabulary(ABC):
    """Token ids of texts and back. The id after the last is END's.

    Attributes:
        holds_text: whether the tokens are stretches of the text that the vocabulary was learned from.
    """

    holds_text: ClassVar[bool] = False

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """A name for each token, in id order, without END."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
        """The ids of each text. Raises ValueError for a character that has none."""

    @abstractmethod
    def spelled(self, token: int) -> bytes:
        """The bytes of the text that a token stands for; a character may be spread over several tokens."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `vocabulary_from` takes it."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of ids, END left out; bytes that make no character come out as U+FFFD."""
        return b"".join(self.spelled(int(token)) for token in tokens).decode("utf-8", "replace")


class Characters(Vocabulary):
    """A token a character."""

    def __init__(self, alphabet: str) -> None:
        self.alphabet = alphabet

    @property
    def names(self) -> tuple[str, ...]:
        """The characters."""
        return tuple(self.alphabet)

    @cached_property
    def _ids(self) -> NDArray[np.int32]:
        """The id of each code point, −1 where there is none."""
        points = np.frombuffer(self.alphabet.encode("utf-32-le"), dtype=np.uint32)
        ids = np.full(0x110000, -1, dtype=np.int32)
        ids[points] = np.arange(len(points))
        return ids

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
        """As in Vocabulary."""
        found = []
        for text in texts:
            ids = self._ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)]
            if len(ids) and ids.min() < 0:
                raise ValueError(f"the character {text[int(ids.argmin())]!r} is not in the text that was trained on")
            found.append(ids.astype(np.uint16))
        return found

    def spelled(self, token: int) -> bytes:
        """As in Vocabulary."""
        return self.alphabet[token].encode() if token < len(self.alphabet) else b""

    def to_dict(self) -> dict[str, Any]:
        """As in Vocabulary."""
        return {"characters": self.alphabet}


class BytePairs(Vocabulary):
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019): no text is without tokens.

    Its merges are frequent stretches of the text that it was learned from: whoever holds it can read them.
    """

    holds_text = True

    def __init__(self, tokenizer: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = dict(tokenizer)
        self._tokenizer = Tokenizer.from_str(json.dumps(self.tokenizer))

    @classmethod
    def learned(cls, texts: Iterable[str], size: int) -> BytePairs:
        """Learn `size` tokens, the 256 bytes among them, from texts."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, show_progress=False, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(json.loads(tokenizer.to_str()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The tokens as the tokenizer spells them: a letter a byte, Ġ for the space."""
        ids = self._tokenizer.get_vocab()
        return tuple(sorted(ids, key=lambda name: ids[name]))

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint16]]:
        """As in Vocabulary."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [np.array(each.ids, dtype=np.uint16) for each in found]

    def spelled(self, token: int) -> bytes:
        """As in Vocabulary."""
        return bytes(_BYTES[letter] for letter in self.names[token]) if token < len(self.names) else b""

    def to_dict(self) -> dict[str, Any]:
        """As in Vocabulary."""
        return {"byte_pairs": self.tokenizer}


def vocabulary_from(values: Mapping[str, Any]) -> Vocabulary:
    """What `Vocabulary.to_dict` wrote. Raises ValueError where it is something else."""
    if set(values) == {"characters"}:
        return Characters(values["characters"])
    if set(values) == {"byte_pairs"}:
        return BytePairs(values["byte_pairs"])
    raise ValueError(f"a vocabulary holds characters or byte_pairs; got {', '.join(values) or 'nothing'}")


def _letters() -> dict[str, int]:
    """The letters by which GPT-2's tokenizer writes bytes: printable ones themselves, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [each for each in range(256) if each not in printable]
    return {chr(each): each for each in printable} | {chr(256 + n): each for n, each in enumerate(others)}


_BYTES = _letters()
