"""Running a program as it is declared, component by component: no weights, no residual directions, no model.

What each node writes is kept apart, so that any edge can be cut: the answer key's circuits come from here, and patching
the compiled model through its hooks must find the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from interp.compiled.components import Head, Program
from interp.models.graph import Reader


@dataclass(frozen=True)
class Trace:
    """One run of a program on a batch."""

    written: dict[str, Tensor]  # what each node writes, [batch, pos, n_features]
    streams: list[Tensor]  # the sum of what is written, at each stream point: before attention, before the MLP, …, last

    def rows(self, rows: Tensor) -> Trace:
        """The same of some examples."""
        return Trace({node: part[rows] for node, part in self.written.items()}, [part[rows] for part in self.streams])


class Evaluator:
    """A program, ready to run on tokens [batch, pos] in float32.

    Attributes:
        nodes: the program's nodes in the order in which they write; "input" first.
        inputs: of each node but "input", and of "logits", the inputs in which it reads: "a1.h0<q>", "m2", "logits".
        reads: which features an input takes, bool [n_features].
    """

    def __init__(self, program: Program, *, causal: bool) -> None:
        self.program, self.causal = program, causal
        self._tokens = torch.from_numpy(program.tokens).float()
        self._positions = torch.from_numpy(program.positions).float()
        self._heads = {program.node(head): head for head in program.heads}
        self._mlps = {f"m{layer}": self._mlp(layer) for layer in range(program.n_layers)}
        self._at: list[list[str]] = []  # the nodes that read at each stream point
        for layer in range(program.n_layers):
            self._at += [[program.node(head) for head in program.heads_of(layer)], [f"m{layer}"]]
        self._point = {node: point for point, nodes in enumerate(self._at) for node in nodes}
        self.nodes = ["input", *self._point]
        self.inputs = {node: [f"{node}<{kind}>" for kind in "qkv"] for node in self._heads}
        self.inputs |= {node: [node] for node in [*self._mlps, "logits"]}
        self.reads = {reader: self._reads(node, reader) for node in self.inputs for reader in self.inputs[node]}

    def sources(self, node: str) -> list[str]:
        """The nodes that write before `node` reads; for "logits" all of them."""
        point = self._point.get(node, len(self._at))
        return ["input", *(source for source in self._point if self._point[source] < point)]

    def run(self, tokens: Tensor) -> Trace:
        """Run the whole program."""
        stream = self._tokens[tokens] + self._positions[: tokens.shape[1]]
        written, streams = {"input": stream}, [stream]
        for nodes in self._at:
            written |= {node: self._write(node, [stream] * 3) for node in nodes}
            stream = sum((written[node] for node in nodes), start=stream)
            streams.append(stream)
        return Trace(written, streams)

    def means(self, tokens: Tensor) -> dict[str, Tensor]:
        """What each node writes on average over examples, [pos, n_features]."""
        parts = [self.run(some).written for some in tokens.split(64)]
        return {node: torch.cat([part[node] for part in parts]).mean(0) for node in self.nodes}

    def logits(self, stream: Tensor) -> Tensor:
        """From the last stream to logits [batch, pos, d_vocab]."""
        return self.program.gain * stream[..., self.program.slice(self.program.answer)]

    def cut(self, clean: Trace, reader: str, change: Tensor) -> Tensor:
        """The last stream if one input of one node is changed.

        Args:
            clean: the run that it differs from.
            reader: the input, such as "a1.h0<q>".
            change: what is added to it, [batch, pos, n_features].
        """
        node = Reader.named(reader).node
        if node == "logits":
            return clean.streams[-1] + change
        point = self._point[node]
        streams = [
            clean.streams[point] + change if each == reader else clean.streams[point] for each in self.inputs[node]
        ]
        return self._continue(clean, self._write(node, streams) - clean.written[node], since=point + 1)

    def replace(self, clean: Trace, node: str, written: Tensor) -> Tensor:
        """The last stream if a node writes something else, [batch, pos, n_features], and all that follows reads it."""
        since = 0 if node == "input" else self._point[node] + 1
        return self._continue(clean, written - clean.written[node], since=since)

    def _continue(self, clean: Trace, change: Tensor, *, since: int) -> Tensor:
        """The last stream if that at point `since` is changed; nodes that do not read the change are not run again."""
        for point in range(since, len(self._at)):
            stream, further = clean.streams[point] + change, []
            touched = (change.abs() > 1e-6).flatten(0, 1).any(0)
            for node in self._at[point]:
                if any((self.reads[reader] & touched).any() for reader in self.inputs[node]):
                    further.append(self._write(node, [stream] * 3) - clean.written[node])
            change = sum(further, start=change)
        return clean.streams[-1] + change

    def _reads(self, node: str, reader: str) -> Tensor:
        program, mask = self.program, torch.zeros(self.program.n_features, dtype=torch.bool)
        if node == "logits":
            mask[program.slice(program.answer)] = True
        elif node in self._heads:
            head = self._heads[node]
            features = {"q": head.query_reads, "k": head.key_reads, "v": head.value_reads}[reader[-2]]
            mask[[program.index(feature) for feature in features]] = True
        else:
            mask |= (self._mlps[node][0].abs() > 0).any(0)
        return mask

    def _write(self, node: str, streams: list[Tensor]) -> Tensor:
        """What a node writes; a head reads queries, keys and values from three streams, an MLP from the first."""
        if node in self._heads:
            return self._attend(self._heads[node], *streams)
        read, bias, write, constant = self._mlps[node]
        return torch.relu(streams[0] @ read.T + bias) @ write + constant

    def _attend(self, head: Head, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        program, pos = self.program, queries.shape[1]
        scores = queries.new_zeros(len(queries), pos, pos)
        for score in head.scores:
            matrix = torch.from_numpy(score.matrix).float()
            key = (keys[..., program.slice(score.key)] @ matrix.T).transpose(1, 2)  # [batch, size of query, pos]
            scores += key if score.query is None else queries[..., program.slice(score.query)] @ key
        if self.causal:
            scores.masked_fill_(torch.ones(pos, pos, dtype=torch.bool).triu(1), -torch.inf)
        pattern, out = scores.softmax(-1), torch.zeros_like(values)
        for move in head.moves:
            moved = values[..., program.slice(move.source)] @ torch.from_numpy(move.matrix).float()
            out[..., program.slice(move.target)] += pattern @ moved
        return out

    def _mlp(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights in [gate, n_features], bias [gate], weights out [gate, n_features], bias out [n_features]."""
        program, gates = self.program, self.program.gates_of(layer)
        read, write = torch.zeros(2, len(gates), program.n_features)
        constant = torch.zeros(program.n_features)
        for row, gate in enumerate(gates):
            for feature, weight in gate.reads.items():
                read[row, program.index(feature)] = weight
            for feature, weight in gate.writes.items():
                write[row, program.index(feature)] = weight
        for added in program.constants:
            if added.layer == layer:
                for feature, weight in added.writes.items():
                    constant[program.index(feature)] += weight
        return read, torch.tensor([gate.bias for gate in gates]), write, constant
