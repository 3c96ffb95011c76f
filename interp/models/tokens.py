"""Token ids from names and back, and the directions of the residual stream that raise a token's logit."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from interp.arrays import integers

Tokens = str | int | Sequence[str] | Sequence[int] | Sequence[Sequence[str]] | Sequence[Sequence[int]] | Tensor


class TokenNames(nn.Module):
    """What TransformerLens's tools ask a tokenizer for, from `vocab`, the names of the tokens in id order.

    A text is read name by name, with spaces between; where `vocab` holds the space itself, or the text's characters
    but not its words, character by character.
    """

    cfg: Any
    vocab: tuple[str, ...] | None = None  # not part of the weights
    W_U: Tensor  # [d_model, d_vocab]
    ln_final: nn.Module

    def to_tokens(self, input: Tokens, prepend_bos: bool = False) -> Tensor:
        """Token ids of one sequence or a batch, as a LongTensor [batch, pos] on the model's device.

        Args:
            input: a text; names or ids of one sequence; several texts of equal length, or several sequences; or an
                integer tensor [pos] or [batch, pos].
            prepend_bos: accepted as TransformerLens's tools pass it; the vocabularies here have no such token.

        Raises:
            ValueError: an unknown name, an id outside the vocabulary, rows of unequal length, or names while
                `model.vocab` is not set.
        """
        if prepend_bos:
            raise ValueError("prepend_bos must be False: the vocabulary has no beginning-of-sequence token")
        device = next(self.parameters()).device
        ids = input if isinstance(input, Tensor) else self._ids(input)
        if isinstance(ids, list) and len({len(row) for row in ids if isinstance(row, list)}) > 1:
            raise ValueError(f"rows must be of one length; got {[len(row) for row in ids]} tokens")
        tokens = integers(ids, device=device)
        if tokens.ndim not in (1, 2):
            raise ValueError(f"tokens must be integers [pos] or [batch, pos]; got {list(tokens.shape)}")
        tokens = tokens if tokens.ndim == 2 else tokens[None]
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.cfg.d_vocab:
            raise ValueError(
                f"tokens must be from 0 to {self.cfg.d_vocab - 1}; got {int(tokens.min())} to {int(tokens.max())}"
            )
        return tokens

    def to_single_token(self, string: str) -> int:
        """The id of one token name. Raises ValueError for an unknown one."""
        vocab = self._vocab(string)
        if string not in vocab:
            close = difflib.get_close_matches(string, vocab, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise ValueError(f"unknown token {string!r}{hint}")
        return vocab.index(string)

    def to_single_str_token(self, int_token: int) -> str:
        """The name of one token id."""
        return self._names([int_token])[0]

    def to_str_tokens(self, input: Tokens, prepend_bos: bool = False) -> list[str] | list[list[str]]:
        """The names of the tokens of one sequence, or of each of a batch; see `to_tokens`."""
        rows = [self._names(row) for row in self.to_tokens(input, prepend_bos).tolist()]
        return rows[0] if len(rows) == 1 else rows

    def to_string(self, tokens: Sequence[int] | Tensor) -> str | list[str]:
        """The text of ids [pos], or the texts of ids [batch, pos], such that `to_tokens` reads it back."""
        ids = integers(tokens)
        if ids.ndim > 2:
            raise ValueError(f"tokens must be [pos] or [batch, pos]; got {list(ids.shape)}")
        if ids.ndim == 2:
            return [self._text(row) for row in ids.tolist()]
        return self._text(ids.reshape(-1).tolist())

    def _text(self, ids: list[int]) -> str:
        characters = " " in self._vocab(ids) or all(len(name) == 1 for name in self._vocab(ids))
        return ("" if characters else " ").join(self._names(ids))

    def _vocab(self, asked: Any) -> tuple[str, ...]:
        if self.vocab is None:
            raise ValueError(f"model.vocab must be set before a name such as {asked!r} can be read or written")
        return self.vocab

    def _names(self, ids: list[int]) -> list[str]:
        vocab = self._vocab(ids)
        if ids and not 0 <= min(ids) <= max(ids) < len(vocab):
            raise ValueError(f"token ids must be from 0 to {len(vocab) - 1}; got {min(ids)} to {max(ids)}")
        return [vocab[i] for i in ids]

    def _ids(self, input: Any) -> Any:
        """Ids of anything that is no tensor, [pos] or [batch, pos] in lists."""
        if isinstance(input, str):
            return self._read(input)
        if isinstance(input, int):
            return [input]
        if not isinstance(input, list | tuple):
            return input
        if not input or not all(isinstance(each, str) for each in input):
            return [self._ids(each) if isinstance(each, list | tuple | str) else each for each in input]
        read = [self._read(text) for text in input]
        return [ids[0] for ids in read] if all(len(ids) == 1 for ids in read) else read  # names of one, or texts

    def _read(self, text: str) -> list[int]:
        vocab = self._vocab(text)
        if text in vocab:
            return [vocab.index(text)]
        words = [] if " " in vocab else text.split()
        if not all(word in vocab for word in words) or not words:
            if text and all(character in vocab for character in text):
                words = list(text)
            elif " " in vocab:
                words = [next((character for character in text if character not in vocab), text)]
        return [self.to_single_token(word) for word in words or [text]]

    def tokens_to_residual_directions(self, tokens: str | int | Tensor) -> Tensor:
        """The direction of the normalised residual stream that raises a token's logit, [..., d_model], a copy.

        It is the token's column of W_U with the gain of the final norm folded in, since an ActivationCache divides by
        the norm's scale and applies no gain. So `logit_attrs` over a full decomposition sums to the token's logit less
        what no component wrote, `ln_final.b @ W_U + b_U` (see `logit_bias`).

        Raises:
            ValueError: an unknown name, or an id outside the vocabulary.
        """
        gain = getattr(self.ln_final, "w", None)
        weight = self.W_U.T if gain is None else self.W_U.T * gain
        ids = integers(self.to_single_token(tokens) if isinstance(tokens, str) else tokens, device=weight.device)
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(weight):
            raise ValueError(f"tokens must be from 0 to {len(weight) - 1}; got {int(ids.min())} to {int(ids.max())}")
        return F.embedding(ids, weight)
