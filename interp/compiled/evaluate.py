"""Running a program as it is declared, component by component: no weights, no residual directions, no model.

What each node writes is kept apart, so that any edge can be cut: the answer key's circuits come from here, and patching
the compiled model through its hooks must find the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp.compiled.components import Head, Program

Written = dict[str, Tensor]  # node -> what it writes, [batch, pos, n_features]


class Evaluator:
    """A program, ready to run on tokens [batch, pos] in float32."""

    def __init__(self, program: Program, *, causal: bool) -> None:
        self.program, self.causal = program, causal
        self._tokens = torch.from_numpy(program.tokens).float()
        self._positions = torch.from_numpy(program.positions).float()
        self._heads = {program.node(head): head for head in program.heads}
        self._mlps = {f"m{layer}": self._mlp(layer) for layer in range(program.n_layers)}
        self.nodes: list[str] = ["input"]  # in the order in which they write
        for layer in range(program.n_layers):
            self.nodes += [program.node(head) for head in program.heads_of(layer)] + [f"m{layer}"]
        self.inputs: dict[str, list[str]] = {
            node: [f"{node}<{kind}>" for kind in "qkv"] if node in self._heads else [node] for node in self.nodes[1:]
        }

    def sources(self, node: str) -> list[str]:
        """The nodes that write before `node` reads; for "logits" all of them."""
        if node not in self._heads:
            return self.nodes if node == "logits" else self.nodes[: self.nodes.index(node)]
        return [*self.nodes[: self.nodes.index(f"a{self._heads[node].layer}.h0")]]

    def reads(self, reader: str) -> Tensor:
        """Which features an input of a node takes, bool [n_features]."""
        node, _, kind = reader.removesuffix(">").partition("<")
        mask = torch.zeros(self.program.n_features, dtype=torch.bool)
        if node == "logits":
            mask[self.program.slice(self.program.answer)] = True
        elif kind:
            head = self._heads[node]
            features = {"q": head.query_reads, "k": head.key_reads, "v": head.value_reads}[kind]
            mask[[self.program.index(feature) for feature in features]] = True
        else:
            mask |= self._mlps[node][0].abs().sum(0) > 0
        return mask

    def run(self, tokens: Tensor) -> Written:
        """What every node writes."""
        return self.finish({"input": self._tokens[tokens] + self._positions[: tokens.shape[1]]})

    def finish(self, written: Written) -> Written:
        """What every node writes, given what some of them do."""
        written = dict(written)
        for node in self.nodes:
            if node not in written:
                written[node] = self.node(node, written)
        return {node: written[node] for node in self.nodes}

    def node(self, node: str, written: Written, *, reader: str | None = None, change: Tensor | None = None) -> Tensor:
        """What one node writes, [batch, pos, n_features].

        Args:
            node: its name.
            written: what those before it write.
            reader: the input of the node that is changed, such as "a1.h0<q>".
            change: what is added to it, [batch, pos, n_features].
        """
        stream = torch.stack([written[source] for source in self.sources(node)]).sum(0)
        streams = [stream if change is None or name != reader else stream + change for name in self.inputs[node]]
        if node in self._heads:
            return self._attend(self._heads[node], *streams)
        read, bias, write, constant = self._mlps[node]
        return torch.relu(streams[0] @ read.T + bias) @ write + constant

    def logits(self, written: Written) -> Tensor:
        """[batch, pos, d_vocab]."""
        answer = self.program.slice(self.program.answer)
        return self.program.gain * torch.stack([part[..., answer] for part in written.values()]).sum(0)

    def _attend(self, head: Head, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        program, pos = self.program, queries.shape[1]
        scores = queries.new_zeros(len(queries), pos, pos)
        for score in head.scores:
            matrix = torch.from_numpy(score.matrix).float()
            key = keys[..., program.slice(score.key)] @ matrix.T  # [batch, pos, size of query]
            query = None if score.query is None else queries[..., program.slice(score.query)]
            scores += key.transpose(1, 2) if query is None else query @ key.transpose(1, 2)
        if self.causal:
            scores.masked_fill_(torch.ones(pos, pos, dtype=torch.bool).triu(1), -torch.inf)
        pattern = scores.softmax(-1)
        out = torch.zeros_like(values)
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
