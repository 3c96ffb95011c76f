"""Networks that solve `sticky` exactly, for every N, their weights written from the rule: neither is a transformer.

Both hold, beside the class of the last character, one number a class that is 1 where the class may be left:

    averaging    a window of N + 1 characters; the mean of their classes is 1 for a class that they all are of, and a
                 ReLU cuts away every lesser mean (`window` with pooling "mean")
    recurrent    Elman's net as a register of saturated units: unit k of a class is on where unit k − 1 was on before
                 and the class goes on, so that unit N + 1 says that the run is long enough (`rnn`)

The logits are then the log-probabilities of the rule, up to a constant; what it forbids has a logit of −100 more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.models import build_model
from interp.models.state_configs import RNNConfig
from interp.models.window_config import WindowConfig
from interp.worlds.strings import Sticky, StringWorld

FORBIDDEN = -100.0  # the logit of what the rule does not allow; 10^-43 beside what it allows
_SATURATED = 30.0  # tanh of it is 1 in float32


def averaging_network(rule: Sticky) -> Any:
    """The masked average. `blocks.0.hook_resid_post`, [batch, pos, 6]: classes, then 1 for the one that may be left."""
    config = WindowConfig(
        d_vocab=len(rule.alphabet) + 1,
        n_ctx=rule.length,
        context=rule.n + 1,
        pooling="mean",
        d_model=3,
        d_mlp=6,
        act_fn="relu",
    )
    model: Any = build_model(config)
    stay, free, start = _tables(rule)
    with torch.no_grad():
        model.embed.weight.copy_(_classes(rule))
        hidden = model.blocks[0].fc_in
        hidden.weight.zero_()
        hidden.weight[:3, :3] = torch.eye(3)
        # Twice the mean's distance from halfway between N and N + 1 characters of the class: rounding cannot matter.
        hidden.weight[3:, 3:] = 2 * (rule.n + 1) * torch.eye(3)
        hidden.bias[:3], hidden.bias[3:] = 0, -2 * (rule.n + 0.5)
        model.unembed.weight.copy_(torch.cat([stay - start, free - stay]).T)
        model.unembed.bias.copy_(start)
    return _named(model, rule)


def recurrent_network(rule: Sticky) -> Any:
    """The register. `blocks.0.rnn.hook_state`, [batch, pos, 3 (N + 2)]: 0 at classes, then units 1 to N + 1 of each
    class beside each other, 1 for on and −1 for off."""
    size = rule.n + 1
    config = RNNConfig(
        d_vocab=len(rule.alphabet) + 1, n_ctx=rule.length, n_layers=1, d_model=3 + 3 * size, normalization_type=None
    )
    model: Any = build_model(config)
    layer = model.blocks[0].recurrence
    stay, free, start = _tables(rule)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, :3] = _classes(rule)
        into, back, bias = (layer.get_parameter(name) for name in ("W_ih", "W_hh", "b_h"))
        for kind in range(3):
            for unit in range(size):
                at = 3 + unit * 3 + kind
                into[at, kind] = 2 * _SATURATED
                # Unit 1 is on where the class is; unit k where that and unit k − 1 before are: 1 + 1 − 1 against ≤ −1.
                bias[at] = -_SATURATED if unit == 0 else -2 * _SATURATED
                if unit:
                    back[at, at - 3] = _SATURATED
        model.unembed.weight[:, :3] = (stay - start).T
        model.unembed.weight[:, -3:] = (free - stay).T / 2
        model.unembed.bias.copy_(start + (free - stay).sum(0) / 2)
    return _named(model, rule)


HAND_SET = {"averaging": averaging_network, "recurrent": recurrent_network}


def _classes(rule: Sticky) -> Tensor:
    """The class of each token, one-hot, [d_vocab, 3]; the start has none."""
    return torch.from_numpy(np.concatenate([rule.class_of[:, None] == np.arange(3), np.zeros((1, 3))])).float()


def _tables(rule: Sticky) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities where a class goes on [3, d_vocab], where it may be left, and at the start [d_vocab]."""
    found = []
    for run in (0, 1, rule.n + 1):
        states = np.array([[-1, 0]]) if run == 0 else np.array([[kind, run] for kind in range(3)])
        exact = rule.distribution(states)
        logits = np.where(exact > 0, np.log(np.where(exact > 0, exact, 1.0)), FORBIDDEN)
        found.append(np.concatenate([logits, np.full((len(logits), 1), FORBIDDEN)], axis=1))
    start, stay, free = (torch.from_numpy(each).float() for each in found)
    if rule.n == 0:  # a run of 1 may be left already: nothing has to stay
        stay = free
    return stay, free, start[0]


def _named(model: Any, rule: Sticky) -> Any:
    model.vocab = (*StringWorld(rule).rule.alphabet, "^")
    return model.eval()
