"""State interchange: the full carrier of source in base is source up to there, and then base."""

from typing import Any

import pytest
import torch

from interp.interventions import carrier_swapped, carrier_values
from interp.models import TransformerConfig, build_model
from interp.models.delta import DELTA_ARCHITECTURE
from interp.models.linear_attention import LINEAR_ATTENTION_ARCHITECTURE
from interp.models.mamba import MAMBA_ARCHITECTURE
from interp.models.mamba2 import MAMBA2_ARCHITECTURE
from interp.models.recurrent import GRU_ARCHITECTURE, LSTM_ARCHITECTURE, RNN_ARCHITECTURE

from .test_patching import n_hooks

N_CTX, D_VOCAB = 12, 7
STATEFUL = {
    "rnn": RNN_ARCHITECTURE,
    "gru": GRU_ARCHITECTURE,
    "lstm": LSTM_ARCHITECTURE,
    "mamba": MAMBA_ARCHITECTURE,
    "mamba2": MAMBA2_ARCHITECTURE,
    "linear_attention": LINEAR_ATTENTION_ARCHITECTURE,
    "delta": DELTA_ARCHITECTURE,
}
POSITIONS = ("rotary", "none", "learned", "alibi", "path")


def transformer(positions: Any, attention_dir: Any = "causal") -> Any:
    return build_model(
        TransformerConfig(
            d_vocab=D_VOCAB, n_ctx=N_CTX, n_layers=2, n_heads=2, d_model=16, init_range=0.4,
            positional_embedding_type=positions, attention_dir=attention_dir,
        )
    ).eval()  # fmt: skip


@pytest.fixture(scope="module", params=[*STATEFUL, *POSITIONS])
def model(request) -> Any:
    if request.param in POSITIONS:
        return transformer(request.param)
    architecture = STATEFUL[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return architecture.build(architecture.config(d_vocab=D_VOCAB, n_ctx=N_CTX, n_layers=2, d_model=16)).eval()


def tokens(seed: int) -> torch.Tensor:
    return torch.randint(D_VOCAB, (5, N_CTX), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("t", [0, 4, N_CTX - 2])
def test_the_full_carrier_is_the_source_so_far(model, t):
    base, source = tokens(0), tokens(1)
    found = carrier_swapped(model, base, source, t)[:, t + 1 :]
    spliced = torch.cat([source[:, : t + 1], base[:, t + 1 :]], dim=1)
    torch.testing.assert_close(found, model(spliced)[:, t + 1 :], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, model(base)[:, t + 1 :], atol=1e-4)
    assert n_hooks(model) == 0


def test_what_is_carried_does_not_depend_on_what_follows(model):
    base, other = tokens(0), tokens(0)
    other[:, 5:] = tokens(2)[:, 5:]
    for name, value in carrier_values(model, base, 4).items():
        torch.testing.assert_close(value, carrier_values(model, other, 4)[name])


def test_a_part_of_the_carrier_is_not_enough(model):
    """One carrier hook left out: later positions still see base there."""
    base, source, t = tokens(0), tokens(1), 4
    values = carrier_values(model, source, t)
    name = next(iter(values))
    rest = {hook: value for hook, value in values.items() if hook != name}

    def put(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        patched = activation.clone()
        patched[:, : t + 1] = rest[hook.name]
        return patched

    with model.hooks(fwd_hooks=[(hook, put) for hook in rest]), torch.no_grad():
        found = model(base)[:, t + 1 :]
    assert not torch.allclose(found, carrier_swapped(model, base, source, t)[:, t + 1 :], atol=1e-4)


def test_what_has_no_carrier_is_refused():
    with pytest.raises(ValueError, match="declares no carrier"):
        carrier_swapped(transformer("none", "bidirectional"), tokens(0), tokens(1), 3)
    model = transformer("none")
    with pytest.raises(ValueError, match="t must be a position from 0 to 11, got 12"):
        carrier_values(model, tokens(0), 12)
    with pytest.raises(ValueError, match="as many rows; got 5 and 3"):
        carrier_swapped(model, tokens(0), tokens(1)[:3], 3)
