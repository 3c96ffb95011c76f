"""From declarations to weights: a Program becomes a Transformer of the class that is trained.

A head's declared score is a sum of terms q^T M k, one matrix for each pair of subspaces. Terms with the same query
subspace share coordinates of d_head: W_Q copies the subspace there, W_K brings M k. W_V brings what moves, laid out by
target, and W_O copies it there. A gate is a neuron. The residual stream of the model is x @ directions, where x
[n_features] is the stream of the program; so every matrix that writes is multiplied by `directions`, and every matrix
that reads by its transpose, which undoes it where the directions are orthonormal.

No norms: a norm would make what one component reads depend on what all others write.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from interp.compiled.components import Gate, Head, Program
from interp.models import Transformer, TransformerConfig
from interp.models.attention import Attention
from interp.models.mlp import MLP


def required_sizes(program: Program) -> dict[str, int]:
    """The smallest n_heads, d_head and d_mlp that hold the program."""
    layers = range(program.n_layers)
    return {
        "n_heads": max([1, *(len(program.heads_of(layer)) for layer in layers)]),
        "d_head": max([1, *(max(_qk_size(program, head), _v_size(program, head)) for head in program.heads)]),
        "d_mlp": max([1, *(len(program.gates_of(layer)) for layer in layers)]),
    }


@torch.no_grad()
def assemble(program: Program, cfg: TransformerConfig, directions: Tensor) -> Transformer:
    """The model with the program's weights; heads and neurons that the program leaves free are zero.

    Args:
        program: what the model computes.
        cfg: a transformer without norms, with ReLU, biases and learned positions.
        directions: the direction of each feature in the residual stream, [n_features, d_model].

    Raises:
        ValueError: the config is of another kind or too small, naming the dimension that is short.
    """
    _check(program, cfg, directions)
    model = Transformer(cfg)
    for parameter in model.parameters():
        parameter.zero_()
    directions = directions.to(torch.float64)
    _embed(model, program, directions)
    for layer, block in enumerate(model.blocks):
        for number, head in enumerate(program.heads_of(layer)):
            _set_head(block.attn, number, head, program, directions)
        if block.mlp is not None:
            for number, gate in enumerate(program.gates_of(layer)):
                _set_gate(block.mlp, number, gate, program, directions)
            for constant in program.constants:
                if constant.layer == layer:
                    block.mlp.b_out.add_(_vector(program, constant.writes) @ directions)
    return model.eval()


def _check(program: Program, cfg: TransformerConfig, directions: Tensor) -> None:
    expected = {"normalization_type": None, "act_fn": "relu", "qk_norm": False, "attn_only": False, "use_bias": True}
    expected |= {"positional_embedding_type": "learned", "tie_word_embeddings": False, "n_layers": program.n_layers}
    expected |= {"gated_mlp": False, "rotary_dim": 0, "attention_chunk": 0}
    for name, value in expected.items():
        if getattr(cfg, name) != value:
            raise ValueError(f"a compiled program needs {name}={value!r}; got {getattr(cfg, name)!r}")
    for name, least in required_sizes(program).items():
        if getattr(cfg, name) < least:
            raise ValueError(f"{name} is short: the program needs {least}, got {getattr(cfg, name)}")
    if directions.shape != (program.n_features, cfg.d_model):
        raise ValueError(
            f"directions must be [n_features, d_model] = [{program.n_features}, {cfg.d_model}]; "
            f"got {list(directions.shape)}"
        )


def _embed(model: Transformer, program: Program, directions: Tensor) -> None:
    model.embed.W_E.copy_(torch.from_numpy(program.tokens) @ directions)
    model.pos_embed.W_pos.copy_(torch.from_numpy(program.positions) @ directions)  # type: ignore[union-attr]
    model.unembed.weight.copy_(program.gain * directions[program.slice(program.answer)])


def _set_head(attn: Attention, number: int, head: Head, program: Program, directions: Tensor) -> None:
    """W_Q carries the factor sqrt(d_head) that attention divides scores by."""
    queries, row = torch.zeros(program.n_features, attn.d_head, dtype=torch.float64), 0
    keys, bias = torch.zeros_like(queries), torch.zeros(attn.d_head, dtype=torch.float64)
    for query, terms in _by_query(head).items():
        size = 1 if query is None else program.spaces[query]
        if query is None:
            bias[row] = 1.0
        else:
            queries[program.slice(query), row : row + size] = torch.eye(size, dtype=torch.float64)
        for key, matrix in terms:
            keys[program.slice(key), row : row + size] += matrix.T
        row += size
    values, row = torch.zeros_like(queries), 0
    writes = torch.zeros(attn.d_head, program.n_features, dtype=torch.float64)
    for target in dict.fromkeys(move.target for move in head.moves):
        columns = slice(row, row + program.spaces[target])
        writes[columns, program.slice(target)] = torch.eye(program.spaces[target], dtype=torch.float64)
        for move in head.moves:
            if move.target == target:
                values[program.slice(move.source), columns] += torch.from_numpy(move.matrix)
        row = columns.stop
    scale = math.sqrt(attn.d_head)
    attn.W_Q[number].copy_(directions.T @ queries * scale)
    attn.b_Q[number].copy_(bias * scale)
    attn.W_K[number].copy_(directions.T @ keys)
    attn.W_V[number].copy_(directions.T @ values)
    attn.W_O[number].copy_(writes @ directions)


def _by_query(head: Head) -> dict[str | None, list[tuple[str, Tensor]]]:
    """The terms of a head's score by their query subspace."""
    terms: dict[str | None, list[tuple[str, Tensor]]] = {}
    for score in head.scores:
        terms.setdefault(score.query, []).append((score.key, torch.from_numpy(score.matrix)))
    return terms


def _qk_size(program: Program, head: Head) -> int:
    return sum(1 if query is None else program.spaces[query] for query in _by_query(head))


def _v_size(program: Program, head: Head) -> int:
    return sum(program.spaces[target] for target in {move.target for move in head.moves})


def _set_gate(mlp: MLP, number: int, gate: Gate, program: Program, directions: Tensor) -> None:
    mlp.W_in[:, number].copy_(_vector(program, gate.reads) @ directions)
    mlp.fc_in.bias[number] = gate.bias
    mlp.W_out[number].copy_(_vector(program, gate.writes) @ directions)


def _vector(program: Program, weights: dict[tuple[str, int], float]) -> Tensor:
    vector = torch.zeros(program.n_features, dtype=torch.float64)
    for feature, weight in weights.items():
        vector[program.index(feature)] = weight
    return vector
