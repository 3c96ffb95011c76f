"""The assembler on programs that are worked out by hand: three tokens a, b, c, two positions, one layer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from interp.compiled.assembler import assemble, required_sizes
from interp.compiled.components import Constant, Gate, Head, Move, Program, Score, conjunction
from interp.compiled.evaluate import Evaluator
from interp.models import Transformer, TransformerConfig

A, B, C = 0, 1, 2
SHARP = 20.0


def program(*, heads: tuple[Head, ...] = (), gates: tuple[Gate, ...] = (), constants=()) -> Program:
    """Tokens one-hot in `token`, which is the answer too; positions one-hot in `place`; `note` starts empty."""
    tokens = np.hstack([np.eye(3), np.zeros((3, 4))])
    positions = np.hstack([np.zeros((2, 3)), np.eye(2), np.zeros((2, 2))])
    spaces = {"token": 3, "place": 2, "note": 2}
    return Program("step_inplace", spaces, tokens, positions, "token", 1.0, 1, heads, gates, constants)


def built(declared: Program, *, directions: torch.Tensor | None = None, **changes: Any) -> Transformer:
    sizes: dict[str, Any] = required_sizes(declared) | {"d_model": 7 if directions is None else directions.shape[1]}
    sizes |= {"act_fn": "relu", "normalization_type": None}
    cfg = TransformerConfig(
        d_vocab=3,
        n_ctx=2,
        n_layers=1,
        attention_dir="bidirectional",
        **(sizes | changes),
    )
    return assemble(declared, cfg, torch.eye(7) if directions is None else directions)


def other_place() -> Head:
    """Each position attends to the other one and adds twice its token."""
    swap = SHARP * np.array([[0.0, 1.0], [1.0, 0.0]])
    return Head("other", 0, (Score("place", "place", swap),), (Move("token", "token", 2 * np.eye(3)),), "all", None, "")


@pytest.mark.parametrize(("tokens", "expected"), [([A, B], [[1, 2, 0], [2, 1, 0]]), ([C, C], [[0, 0, 3], [0, 0, 3]])])
def test_a_head_brings_the_other_position_s_token(tokens: list[int], expected: list[list[float]]) -> None:
    logits = built(program(heads=(other_place(),)))(torch.tensor([tokens]))
    torch.testing.assert_close(logits[0], torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_scores_are_in_nats_whatever_d_head_is() -> None:
    """log 3 more for an `a` than for anything else: of [a, b] three quarters of the attention goes to a."""
    score = Score(None, "token", np.array([[math.log(3), 0.0, 0.0]]))
    head = Head("a", 0, (score,), (Move("token", "note", np.eye(3, 2)),), "all", None, "")
    for d_head in (2, 5, 16):
        model = built(program(heads=(head,)), d_head=d_head)
        _, cache = model.run_with_cache(torch.tensor([[A, B]]))
        pattern = cache["blocks.0.attn.hook_pattern"][0, 0]
        torch.testing.assert_close(pattern, torch.tensor([[0.75, 0.25], [0.75, 0.25]]))
        note = cache["blocks.0.hook_resid_mid"][0, :, 5:]
        torch.testing.assert_close(note, torch.tensor([[0.75, 0.25], [0.75, 0.25]]))


@pytest.mark.parametrize(("token", "place", "fires"), [(A, 0, 0.0), (A, 1, 1.0), (B, 1, 0.0), (B, 0, 0.0)])
def test_a_conjunction_fires_where_all_its_conditions_hold(token: int, place: int, fires: float) -> None:
    reads, bias = conjunction(("token", A), ("place", 1))
    gate = Gate("a second", 0, reads, bias, {("note", 0): 1.0})
    tokens = [C, C]
    tokens[place] = token
    _, cache = built(program(gates=(gate,))).run_with_cache(torch.tensor([tokens]))
    assert cache["blocks.0.mlp.hook_post"][0, place, 0] == fires
    assert cache["resid_post", 0][0, place, 5] == fires


@pytest.mark.parametrize(("place", "fires"), [(0, 1.0), (1, 0.0)])
def test_unless_keeps_a_gate_shut(place: int, fires: float) -> None:
    reads, bias = conjunction(("token", A), unless=("place", 1))
    _, cache = built(program(gates=(Gate("a", 0, reads, bias, {("note", 0): 1.0}),))).run_with_cache(
        torch.tensor([[A, A]])
    )
    assert cache["blocks.0.mlp.hook_post"][0, place, 0] == fires


def test_constants_are_added_everywhere() -> None:
    _, cache = built(program(constants=(Constant(0, {("note", 1): 0.5}),))).run_with_cache(torch.tensor([[A, B]]))
    assert cache["resid_post", 0][0, :, 5:].tolist() == [[0.0, 0.5], [0.0, 0.5]]


def test_a_rotated_basis_changes_no_logit_and_every_coordinate() -> None:
    reads, bias = conjunction(("token", A), ("place", 1))
    declared = program(heads=(other_place(),), gates=(Gate("a", 0, reads, bias, {("token", C): 5.0}),))
    rotation = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    tokens = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    plain, rotated = built(declared), built(declared, directions=rotation)
    torch.testing.assert_close(plain(tokens), rotated(tokens), atol=1e-5, rtol=0)
    before, after = (model.run_with_cache(tokens)[1]["resid_post", 0] for model in (plain, rotated))
    assert not torch.allclose(before, after, atol=0.1)
    torch.testing.assert_close(before @ rotation.float(), after, atol=1e-5, rtol=0)


def test_the_evaluator_is_the_model_without_weights() -> None:
    reads, bias = conjunction(("token", A), ("place", 1))
    declared = program(heads=(other_place(),), gates=(Gate("a", 0, reads, bias, {("token", C): 5.0}),))
    tokens = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    trace = Evaluator(declared, causal=False).run(tokens)
    logits, cache = built(declared).run_with_cache(tokens)
    torch.testing.assert_close(trace.streams[-1][..., :3], logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(trace.written["m0"], cache["mlp_out", 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_head": 4}, "d_head is short: the program needs 5, got 4"),
        ({"n_heads": 1}, "n_heads is short: the program needs 2, got 1"),
        ({"d_mlp": 1}, "d_mlp is short: the program needs 2, got 1"),
        ({"normalization_type": "LN"}, "needs normalization_type=None; got 'LN'"),
        ({"act_fn": "gelu"}, "needs act_fn='relu'; got 'gelu'"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict, message: str) -> None:
    gates = tuple(Gate(name, 0, {("token", A): 1.0}, 0.0, {("note", 0): 1.0}) for name in "xy")
    wide = dataclasses.replace(other_place(), moves=(*other_place().moves, Move("token", "note", np.eye(3, 2))))
    with pytest.raises(ValueError, match=message):
        built(program(heads=(wide, other_place()), gates=gates), **changes)


def test_unknown_subspaces_and_features_are_named() -> None:
    with pytest.raises(ValueError, match="no subspace 'nothing'; it has token, place, note"):
        program().slice("nothing")
    with pytest.raises(ValueError, match="subspace 'note' has 2 features; got index 2"):
        program().index(("note", 2))
