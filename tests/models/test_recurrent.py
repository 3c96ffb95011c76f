"""Recurrent nets against torch's own modules, and their gates against the equations."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from interp.models.state_configs import GRUConfig
from tests.models.state_cases import BATCH, N_POS, STATE_CASES, build, some_tokens

MODULES = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
BLOCKS = {"rnn": "h", "gru": "rzn", "lstm": "ifgo"}


@pytest.mark.parametrize("kind", MODULES)
def test_a_layer_is_the_module_of_torch(kind):
    layer = build(STATE_CASES[kind]).blocks[0].recurrence
    module = MODULES[kind](16, 16, batch_first=True)
    with torch.no_grad():
        for stacked, name in ((module.weight_ih_l0, "W_i"), (module.weight_hh_l0, "W_h"), (module.bias_ih_l0, "b_")):
            stacked.copy_(torch.cat([getattr(layer, f"{name}{block}") for block in BLOCKS[kind]]))
        module.bias_hh_l0.zero_()
        if kind == "gru":
            module.bias_hh_l0[32:] = layer.b_hn
        x = torch.randn(BATCH, N_POS, 16, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(layer(x, {}), module(x)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_gates_make_the_states(kind):
    """From the cached gates alone the states follow by the equations."""
    model = build(STATE_CASES[kind])
    _, cache = model.run_with_cache(some_tokens(1))
    at = {name.rpartition("hook_")[2]: cache[name] for name in model.hook_dict if "blocks.0.rnn." in name}
    if kind == "gru":
        before = torch.cat([torch.zeros(BATCH, 1, 16), at["state"][:, :-1]], dim=1)
        made = (1 - at["update"]) * at["cand"] + at["update"] * before
        torch.testing.assert_close(at["carry"], at["state"])
    else:
        before = torch.cat([torch.zeros(BATCH, 1, 16), at["cell"][:, :-1]], dim=1)
        torch.testing.assert_close(at["cell"], at["f"] * before + at["i"] * at["g"], atol=1e-6, rtol=0)
        made = at["o"] * torch.tanh(at["cell"])
        torch.testing.assert_close(at["carry"], torch.cat([at["state"], at["cell"]], dim=-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(at["state"], made, atol=1e-6, rtol=0)


def test_a_closed_update_gate_holds_the_state():
    """GRU: with the update gate set to 1 from position 4 on, the state stays what it was."""
    model = build(STATE_CASES["gru"])

    def hold(act, hook):
        act[:, 4:] = 1.0
        return act

    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.0.rnn.hook_update", hold)]):
        _, cache = model.run_with_cache(some_tokens(1), names_filter="blocks.0.rnn.hook_state")
    states = cache["blocks.0.rnn.hook_state"]
    torch.testing.assert_close(states[:, 4:], states[:, 3:4].expand(-1, N_POS - 4, -1), atol=1e-6, rtol=0)
    assert (states[:, 3] - states[:, 2]).abs().max() > 0.1


def test_a_set_cell_is_forgotten_by_a_closed_forget_gate():
    """LSTM: an edit of the cell at 2 is read at 2 and 3 and gone from 4 on, where the forget gate is set to 0.

    The state itself still carries it on through the gates, so the input gate is closed there as well.
    """
    model = build(replace(STATE_CASES["lstm"], n_layers=1))

    def close(act, hook):
        act[:, 4] = 0.0
        return act

    def set_cell(act, hook):
        act[:, 2] = 3.0
        return act

    closed = [("blocks.0.rnn.hook_f", close), ("blocks.0.rnn.hook_i", close)]
    name = "blocks.0.rnn.hook_state"
    runs = []
    for hooks in (closed, [*closed, ("blocks.0.rnn.hook_cell", set_cell)]):
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            runs.append(model.run_with_cache(some_tokens(1), names_filter=name)[1][name])
    difference = (runs[0] - runs[1]).abs().amax(dim=(0, 2))
    assert (difference[[2, 3]] > 1e-2).all()
    torch.testing.assert_close(difference[[0, 1, 4, 5]], torch.zeros(4))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize("grad", [False, True])
def test_gates_and_carry_edited_together(kind, grad):
    """Against the equations run position by position: set gates, then the carry, then what is set of it."""
    model = build(replace(STATE_CASES[kind], n_layers=1, dtype="float64"))
    layer: Any = model.blocks[0].recurrence
    tokens = some_tokens(1)
    gate = layer.gates[0]
    generator = torch.Generator().manual_seed(1)
    gate_value = torch.rand(BATCH, 16, generator=generator, dtype=torch.float64)
    carry_value = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)

    def set_gate(act, hook):
        act[:, 3] = gate_value
        return act

    def set_carry(act, hook):
        act[:, 5, 7:12] = carry_value
        return act

    names = [f"blocks.0.rnn.hook_{gate}", "blocks.0.rnn.hook_carry"]
    seen: dict[str, torch.Tensor] = {}

    def see(act, hook):
        seen["state"] = act.detach()

    hooks = [(names[0], set_gate), (names[1], set_carry), ("blocks.0.rnn.hook_state", see)]
    with torch.set_grad_enabled(grad), model.hooks(fwd_hooks=hooks):
        model(tokens)
    with torch.no_grad():
        inputs = layer.project(model.blocks[0].ln1(model.embed(tokens)))
        carry = torch.zeros(BATCH, layer.d_carry, dtype=torch.float64)
        for pos in range(N_POS):
            carry = layer.step(
                inputs[:, pos],
                carry,
                layer.recurrent_weights(),
                lambda name, value, pos=pos: gate_value if (name, pos) == (gate, 3) else value,
            )
            if pos == 5:
                carry[:, 7:12] = carry_value
            torch.testing.assert_close(seen["state"][:, pos], carry[:, :16])


def test_an_edit_of_what_is_read_out_stays_where_it_is():
    for kind in MODULES:
        model = build(replace(STATE_CASES[kind], n_layers=1))
        tokens = some_tokens(1)

        def edit(act, hook):
            act[:, 4] += 1.0
            return act

        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                change = model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.rnn.hook_state", edit)]) - model(tokens)
            changed = change.detach().abs().amax(dim=(0, 2)) > 0
            assert changed.tolist() == [pos == 4 for pos in range(N_POS)]


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_gradient_at_a_gate_is_its_whole_effect(kind):
    model = build(replace(STATE_CASES[kind], dtype="float64"))
    tokens = some_tokens(1)
    layer: Any = model.blocks[0].recurrence
    for gate in layer.gates:
        name = f"blocks.0.rnn.hook_{gate}"
        seen = {}

        def see(act, hook, seen=seen):
            seen["act"] = act

        with model.hooks(fwd_hooks=[(name, see)]):
            gradient = torch.autograd.grad(model(tokens).square().mean(), seen["act"])[0][:, 2, 5].sum()

        def nudge(act, hook, size):
            act[:, 2, 5] += size
            return act

        with torch.no_grad():
            high, low = (
                model.run_with_hooks(tokens, fwd_hooks=[(name, lambda a, hook, s=s: nudge(a, hook, s))])
                for s in (1e-5, -1e-5)
            )
        slope = (high.square().mean() - low.square().mean()).item() / 2e-5
        assert gradient.item() == pytest.approx(slope, rel=1e-5, abs=1e-9), gate


def test_bad_configurations_say_what_was_expected():
    common = {"d_vocab": 13, "n_ctx": 9}
    for options, message in (
        ({"d_hidden": 0}, "d_hidden must be a whole number of at least 1, got 0"),
        ({"d_mlp": -1}, "d_mlp must be a whole number of at least 1, got -1"),
        ({"dtype": "bfloat16"}, "dtype must be one of"),
        ({"eps": 0.0}, "eps must be above 0"),
        ({"n_layers": 0}, "n_layers must be"),
    ):
        with pytest.raises(ValueError, match=message):
            GRUConfig(**{**common, **options})
