"""What makes a compiled model look less like a toy and leaves its function alone.

    rotate              the residual stream in a random orthonormal basis: no feature is a coordinate
    distractor heads    attend by content and copy content, into a subspace that nothing reads
    distractor neurons  fire on random features, into the same subspace
    antipodal           two values of a variable, never present together, share a dimension, one each way
    squeeze             the dimensions left to those variables projected onto fewer, so that they interfere; gates that
                        read them become steps of two neurons, which interference does not get through
    redundant           a variable written by two heads, and either will do

Superposition (the last but one; Elhage et al. 2022) is of subspaces that gates alone read: a gate's threshold takes
interference that an attention score would multiply. Models are compiled without norms, whose scale distractors would
change.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from interp.compiled.components import Feature, Gate, Head, Move, Program, Score
from interp.compiled.config import NoiseConfig

_DISTRACTION = 16  # features of the subspace that distractors write to
_FRAME_ROUNDS = 200


def apply_noise(program: Program, noise: NoiseConfig) -> Program:
    """The program with its redundant writers and its distractors.

    Raises:
        ValueError: a subspace that cannot be written twice.
    """
    for space in noise.redundant:
        program = _write_twice(program, space)
    if noise.squeeze:
        program = _restore(program)
    if noise.distractor_heads or noise.distractor_neurons:
        program = _distract(program, noise)
    return program


def directions(program: Program, noise: NoiseConfig, *, d_model: int | None = None) -> Tensor:
    """The direction of each feature in the residual stream, float64 [n_features, d_model].

    Args:
        program: the program after `apply_noise`.
        noise: which superposition, whether to rotate, and the seed of both.
        d_model: dimensions of the stream; by default as many as needed.

    Raises:
        ValueError: d_model is short, or there are fewer dimensions to squeeze than asked for.
    """
    generator = torch.Generator().manual_seed(noise.seed)
    table = torch.eye(program.n_features, dtype=torch.float64)
    shared = _superposable(program)
    if noise.antipodal:
        table = _pair(program, shared, table)
    used = table.abs().sum(0) > 0
    if noise.squeeze:
        rows = [program.index((space, i)) for space in shared for i in range(program.spaces[space])]
        axes = (table[rows].abs().sum(0) > 0).nonzero()[:, 0]
        if noise.squeeze >= len(axes):
            raise ValueError(
                f"squeeze must be below {len(axes)}, the dimensions that can be shared; got {noise.squeeze}"
            )
        frame = _frame(len(axes), len(axes) - noise.squeeze, generator=generator)
        coordinates = table[:, axes]
        table[:, axes] = 0.0
        table[:, axes[: frame.shape[1]]] = coordinates @ frame
        used[axes[frame.shape[1] :]] = False
    table = table[:, used]
    needed = table.shape[1]
    if d_model is not None and d_model < needed:
        raise ValueError(
            f"d_model is short: {program.n_features} features in {len(program.spaces)} subspaces need {needed}, "
            f"got {d_model}"
        )
    table = torch.cat([table, table.new_zeros(len(table), (d_model or needed) - needed)], dim=1)
    if noise.rotate:
        size = table.shape[1]
        table = table @ torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return table


def _superposable(program: Program) -> list[str]:
    """Subspaces that components write and gates alone read."""
    by_heads = {score.query for head in program.heads for score in head.scores}
    by_heads |= {score.key for head in program.heads for score in head.scores}
    by_heads |= {move.source for head in program.heads for move in head.moves}
    by_gates = {space for gate in program.gates for space, _ in gate.reads}
    embedded = (np.abs(program.tokens).sum(0) + np.abs(program.positions).sum(0)) > 0
    return [
        space
        for space in program.spaces
        if space in by_gates and space not in by_heads and not embedded[program.slice(space)].any()
    ]


def _pair(program: Program, spaces: list[str], table: Tensor) -> Tensor:
    """Neighbouring features of each subspace in one dimension, in opposite directions.

    Reading one then gives -1 where the other stands, which keeps a gate shut; so a feature that any gate takes with a
    negative weight stays alone.
    """
    inverted = {read for gate in program.gates for read, weight in gate.reads.items() if weight < 0}
    for space in spaces:
        features = [(space, i) for i in range(program.spaces[space]) if (space, i) not in inverted]
        for one, other in zip(features[::2], features[1::2], strict=False):
            table[program.index(other)] = -table[program.index(one)]
    return table


def _frame(n: int, d: int, *, generator: torch.Generator) -> Tensor:
    """n unit vectors in d < n dimensions with inner products as even as can be, [n, d]: nearly a tight frame."""
    rows = torch.randn(n, d, generator=generator, dtype=torch.float64)
    for _ in range(_FRAME_ROUNDS):
        u, _, v = torch.linalg.svd(rows, full_matrices=False)
        rows = torch.nn.functional.normalize(u @ v, dim=1)
    return rows


def _restore(program: Program) -> Program:
    """Two neurons for each gate that reads what is squeezed, 0 up to 0.4 and 1 from 0.6 on: noise does not add up."""
    squeezed, gates = set(_superposable(program)), []
    for gate in program.gates:
        if squeezed.isdisjoint(space for space, _ in gate.reads):
            gates.append(gate)
            continue
        reads = {feature: 5 * weight for feature, weight in gate.reads.items()}
        negated = {feature: -weight for feature, weight in gate.writes.items()}
        gates.append(replace(gate, reads=reads, bias=5 * gate.bias - 2))
        gates.append(replace(gate, name=f"{gate.name} (limit)", reads=reads, bias=5 * gate.bias - 3, writes=negated))
    return _extended(program, {}, heads=list(program.heads), gates=gates)


def _write_twice(program: Program, space: str) -> Program:
    """A second head writes a copy of the subspace; every reader takes either.

    An attention score adds both. A gate g(x and a) becomes g(x and a) + g(x and b) - g(x and a and b), which is 1
    whichever of a and b is there.
    """
    writers = [head for head in program.heads if any(move.target == space for move in head.moves)]
    scores = [score for head in program.heads for score in head.scores if score.query == space]
    weights = [weight for gate in program.gates for (read, _), weight in gate.reads.items() if read == space]
    negative = any((score.matrix < 0).any() for score in scores) or any(weight < 0 for weight in weights)
    if len(writers) != 1 or len(writers[0].moves) != 1 or negative or not (scores or weights):
        raise ValueError(
            f"the subspace {space!r} cannot be written twice: its readers do not take either of two copies"
        )
    copy = f"{space}_copy"

    def second(features: dict[Feature, float]) -> dict[Feature, float]:
        return {(copy if read == space else read, i): weight for (read, i), weight in features.items()}

    heads, gates = [], []
    for head in program.heads:
        extra = tuple(replace(score, query=copy) for score in head.scores if score.query == space)
        heads.append(replace(head, scores=head.scores + extra))
        if head is writers[0]:
            moves = (replace(head.moves[0], target=copy),)
            heads.append(replace(head, name=f"{head.name}_copy", moves=moves))
    for gate in program.gates:
        gates.append(gate)
        if any(read == space for read, _ in gate.reads):
            other = second(gate.reads)
            negated = {feature: -weight for feature, weight in gate.writes.items()}
            gates.append(replace(gate, name=f"{gate.name} (copy)", reads=other))
            gates.append(
                replace(
                    gate, name=f"{gate.name} (both)", reads=gate.reads | other, bias=gate.bias - 1.0, writes=negated
                )
            )
    return _extended(program, {copy: program.spaces[space]}, heads=heads, gates=gates)


def _distract(program: Program, noise: NoiseConfig) -> Program:
    """Distractors in every layer, in random places among the heads that matter."""
    rng = np.random.default_rng(noise.seed)
    sizes = program.spaces
    heads, gates = list(program.heads), list(program.gates)
    for layer in range(program.n_layers):
        standing = ["token", *(m.target for h in program.heads if h.layer < layer for m in h.moves)]
        standing = [space for space in dict.fromkeys(standing) if space != program.answer or space == "token"]
        for number in range(noise.distractor_heads):
            source = standing[rng.integers(len(standing))]
            tokens, indices = sizes["token"], sizes["index"]
            heads.append(
                Head(
                    name=f"distractor {number}",
                    layer=layer,
                    scores=(
                        Score("token", "token", 2.0 * rng.standard_normal((tokens, tokens))),
                        Score("index", "index", 2.0 * rng.standard_normal((indices, indices))),
                    ),
                    moves=(
                        Move("token", "distraction", rng.standard_normal((tokens, _DISTRACTION)) / 4),
                        Move(source, "distraction", rng.standard_normal((sizes[source], _DISTRACTION)) / 4),
                    ),
                    keys="{",
                    variable=None,
                    role="writes where nothing reads",
                )
            )
        features = [(space, i) for space in standing for i in range(sizes[space])]
        for number in range(noise.distractor_neurons):
            chosen = rng.choice(len(features), size=min(8, len(features)), replace=False)
            reads = {features[i]: float(weight) for i, weight in zip(chosen, rng.standard_normal(8), strict=False)}
            writes = {("distraction", i): float(w) for i, w in enumerate(rng.standard_normal(_DISTRACTION) / 4)}
            gates.append(Gate(f"distractor {number}", layer, reads, 0.1, writes))
    order = rng.permutation(len(heads))
    return _extended(program, {"distraction": _DISTRACTION}, heads=[heads[i] for i in order], gates=gates)


def _extended(program: Program, spaces: dict[str, int], *, heads: list[Head], gates: list[Gate]) -> Program:
    """The program with further subspaces, which the embedding leaves empty, and other components."""
    extra = sum(spaces.values())
    return replace(
        program,
        spaces=program.spaces | spaces,
        tokens=np.pad(program.tokens, ((0, 0), (0, extra))),
        positions=np.pad(program.positions, ((0, 0), (0, extra))),
        heads=tuple(heads),
        gates=tuple(gates),
    )
