"""Who reads what, where, on a path to the logits: a backward pass over the program's declarations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from interp.compiled.components import Feature, Gate, Head, Program
from interp.compiled.form import Form


@dataclass(frozen=True)
class Read:
    """One input of one component takes a feature, at these positions, from the stream at this point."""

    feature: Feature
    point: int  # 2 l for attention of layer l, 2 l + 1 for its MLP, 2 n_layers for the logits
    reader: str  # "a1.h0<q>", "m2", "logits"
    positions: frozenset[int]
    variable: str | None  # what the reading component computes


def live_reads(program: Program, form: Form) -> list[Read]:
    """Every read that the logits can depend on, by what is declared."""
    found = _Reads()
    answers = [(program.answer, token) for token in range(program.spaces[program.answer])]
    found.add(answers, 2 * program.n_layers, "logits", frozenset(form.answering))
    for layer in reversed(range(program.n_layers)):
        for gate in program.gates_of(layer):
            positions = found.wanted(gate.writes, since=2 * layer + 2)
            positions = positions if gate.at is None else positions & gate.at
            found.add(gate.reads, 2 * layer + 1, program.node(gate), positions, gate.variable)
        for head in program.heads_of(layer):
            positions = found.wanted(head.writes, since=2 * layer + 1)
            if positions:
                node, keys = program.node(head), key_positions(form, head)
                found.add(head.query_reads, 2 * layer, f"{node}<q>", positions, head.variable)
                found.add(head.key_reads, 2 * layer, f"{node}<k>", keys, head.variable)
                found.add(head.value_reads, 2 * layer, f"{node}<v>", keys, head.variable)
    return [read for reads in found.by_feature.values() for read in reads]


def key_positions(form: Form, head: Head) -> frozenset[int]:
    """The token positions that a head can attend to where its output is used."""
    parts = [part.split("[@")[0] for part in head.keys.split("+")]
    return frozenset(position for part in parts for position in form.positions(part))


def written_at(component: Head | Gate) -> int:
    """The first stream point that holds what a component writes."""
    return 2 * component.layer + (1 if isinstance(component, Head) else 2)


class _Reads:
    def __init__(self) -> None:
        self.by_feature: dict[Feature, list[Read]] = defaultdict(list)

    def add(
        self,
        features: Iterable[Feature],
        point: int,
        reader: str,
        positions: frozenset[int],
        variable: str | None = None,
    ) -> None:
        if positions:
            for feature in features:
                self.by_feature[feature].append(Read(feature, point, reader, positions, variable))

    def wanted(self, features: Iterable[Feature], *, since: int) -> frozenset[int]:
        """The positions at which anything reads any of these features, at stream point `since` or later."""
        sets = [read.positions for f in features for read in self.by_feature.get(f, ()) if read.point >= since]
        return frozenset().union(*sets)
