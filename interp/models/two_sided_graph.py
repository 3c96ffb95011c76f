"""The computational graph of an encoder–decoder: two residual streams, and cross-attention from one to the other.

Positions keep the streams apart: the prompt's are the encoder's, the answer's the decoder's, and the input writes both.
Layers are numbered along the model, the encoder's first; a decoder layer has heads of self-attention ("a3.h0"), then
heads of cross-attention ("c3.h0"), then its MLP. The queries of cross-attention read the decoder's stream as it stands,
its keys and values the encoder's behind its last layer; nothing else of the decoder reads the encoder. With E encoder
and D decoder layers of H heads:

    writers   1 + E (H + 1) + D (2 H + 1)         readers   E (3 H + 1) + D (6 H + 1) + 1

    edges     sum over encoder layers e of  3 H w + (w + H),                     w = 1 + e (H + 1)
            + sum over decoder layers d of  3 H w + H (w + H) + 2 H m + (w + 2 H),   w = 1 + d (2 H + 1)
            + 1 + D (2 H + 1),                                                   m = 1 + E (H + 1)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from interp.models.graph import Graph, Place, Reader, ReaderKind, Writer

_SELF: tuple[ReaderKind, ...] = ("q", "k", "v")
_CROSS: tuple[ReaderKind, ...] = ("cross_q", "cross_k", "cross_v")


@dataclass(frozen=True)
class TwoSidedGraph(Graph):
    """Nodes and edges of a model whose first `n_encoder` layers read the prompt, and whose others write the answer."""

    n_encoder: int = 1
    n_prompt: int = 1  # positions of the prompt

    one_stream: ClassVar[bool] = False

    @property
    def sizes(self) -> dict[str, int]:
        """See Graph."""
        return {"n_layers": self.n_layers, "n_heads": self.n_heads, "n_encoder": self.n_encoder}

    @property
    def prompt(self) -> slice:
        """The encoder's positions."""
        return slice(0, self.n_prompt)

    @property
    def answer(self) -> slice:
        """The decoder's positions."""
        return slice(self.n_prompt, None)

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        writers = [Writer("input")]
        for layer in range(self.n_layers):
            writers += [Writer("head", layer, head) for head in range(self.n_heads)]
            if layer >= self.n_encoder:
                writers += [Writer("cross", layer, head) for head in range(self.n_heads)]
            writers.append(Writer("mlp", layer))
        return tuple(writers)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        readers: list[Reader] = []
        for layer in range(self.n_layers):
            for kind in (*_SELF, *(_CROSS if layer >= self.n_encoder else ())):
                readers += [Reader(kind, layer, head) for head in range(self.n_heads)]
            readers.append(Reader("mlp", layer))
        return (*readers, Reader("logits"))

    @cached_property
    def mask(self) -> np.ndarray:
        """Whether an edge exists, bool [reader, writer]."""
        encoder = np.array([writer.layer is not None and writer.layer < self.n_encoder for writer in self.writers])
        mask = np.zeros((len(self.readers), len(self.writers)), dtype=bool)
        for row, reader in enumerate(self.readers):
            of_prompt = reader.kind in ("cross_k", "cross_v") or (
                reader.layer is not None and reader.layer < self.n_encoder
            )
            mask[row, : self.n_sources(reader)] = True
            mask[row] &= encoder if of_prompt else ~encoder
            mask[row, 0] = True  # the input is on both sides
        return mask

    def n_sources(self, reader: Reader) -> int:
        """How many writers stand before a reader: the first so many, of which `mask` says which feed it."""
        if reader.layer is None:
            return len(self.writers)
        before, heads = self.n_written(reader.layer), self.n_heads
        if reader.kind in _SELF:
            return before
        if reader.kind in ("cross_k", "cross_v"):
            return self.n_written(self.n_encoder)
        return before + (2 * heads if reader.kind == "mlp" and reader.layer >= self.n_encoder else heads)

    def n_written(self, layer: int) -> int:
        """See Graph."""
        decoder = max(0, layer - self.n_encoder)
        return 1 + layer * (self.n_heads + 1) + decoder * self.n_heads

    @cached_property
    def writer_places(self) -> tuple[Place, ...]:
        """See Graph."""
        places, column = [Place("blocks.0.hook_resid_pre", slice(0, 1))], 1
        for layer in range(self.n_layers):
            stem, where = self._stem(layer)
            names = ("self_attn", "cross_attn") if layer >= self.n_encoder else ("attn",)
            for name in names:
                places.append(Place(f"{stem}.{name}.hook_result", slice(column, column + self.n_heads), where))
                column += self.n_heads
            places.append(Place(f"{stem}.hook_mlp_out", slice(column, column + 1), where))
            column += 1
        return tuple(places)

    @cached_property
    def reader_places(self) -> tuple[Place, ...]:
        """See Graph."""
        places, row = [], 0
        for layer in range(self.n_layers):
            stem, where = self._stem(layer)
            names = [
                (f"{'self_attn' if layer >= self.n_encoder else 'attn'}.hook_{kind}_input", where) for kind in _SELF
            ]
            if layer >= self.n_encoder:
                sides = (self.answer, self.prompt, self.prompt)
                names += [(f"cross_attn.hook_{kind}_input", side) for kind, side in zip(_SELF, sides, strict=True)]
            for name, side in names:
                places.append(Place(f"{stem}.{name}", slice(row, row + self.n_heads), side))
                row += self.n_heads
            places.append(Place(f"{stem}.hook_mlp_in", slice(row, row + 1), where))
            row += 1
        return (*places, Place(f"{self._stem(self.n_layers - 1)[0]}.hook_resid_post", slice(row, row + 1), self.answer))

    def _stem(self, layer: int) -> tuple[str, slice]:
        """The block of a layer and its positions."""
        if layer < self.n_encoder:
            return f"encoder_blocks.{layer}", self.prompt
        return f"decoder_blocks.{layer - self.n_encoder}", self.answer


def graph_of_sizes(n_layers: int, n_heads: int, n_encoder: int = 0) -> Graph:
    """The graph with these `sizes`; of one with two sides, nodes and edges alone, without its positions."""
    return TwoSidedGraph(n_layers, n_heads, n_encoder=n_encoder) if n_encoder else Graph(n_layers, n_heads)
