"""The named runs about addition. Each leaves the validation units out of training and is followed on them."""

from __future__ import annotations

from dataclasses import replace

from interp.configuration import config_dict
from interp.models.config import MultiTokenConfig
from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.tasks.options import AdditionOptions
from interp.training.presets import transformer_for
from interp.worlds.addition import Addition

# All digits are said in one pass: none can be read off the digits written before it.
_AT_ONCE = AdditionOptions(at_once=0)
_TRAINING = TrainingConfig(
    steps=2500,
    batch_size=64,
    muon_lr=0.01,
    eval_states=2000,
    ema_decay=0.998,
    steps_along=12,
    validation=True,
)


def _four_digits(base: int, **training: int) -> RunConfig:
    """Sums of two numbers of 1 to 4 digits, under 100,000 parameters."""
    world = Addition(n_digits=4, base=base)
    model = transformer_for("addition", world, options=_AT_ONCE, n_layers=3, n_heads=4, d_model=48)
    return RunConfig("addition", world, model, replace(_TRAINING, **training), options=_AT_ONCE)


def _heads() -> RunConfig:
    """The same with a head for every token of the answer, taught beside the tokens themselves."""
    world, options = Addition(n_digits=4), AdditionOptions()
    shape = transformer_for("addition", world, options=options, n_layers=3, n_heads=4, d_model=48)
    model = MultiTokenConfig(**(config_dict(shape) | {"architecture": "multi_token", "n_predicted": 6}))
    return RunConfig("addition", world, model, _TRAINING, options=options)


ADDITION = _four_digits(10)
ADDITION_16 = _four_digits(16, steps=4000, batch_size=128)
ADDITION_HEADS = _heads()


def _long() -> RunConfig:
    """Sums of numbers of 1 to 10 digits; the indices of slots are shifted at random in training, so that those of
    numbers of 100 digits are learned (Abacus; McLeish et al. 2024).

    Queries and keys are not turned: angles of distances that training never showed look like those it did. Blanks stand
    behind the longest number, so that its highest digits are found as all others. Heads wider than usual tell more
    indices apart.
    """
    world, options = Addition(n_digits=10), AdditionOptions(leading_zeros=False, spare=True)
    shape = transformer_for("addition", world, options=options, n_layers=2, n_heads=4, d_model=64)
    model = replace(shape, d_head=24, rotary_dim=0, index_table_size=128)
    training = replace(_TRAINING, steps=4000, batch_size=16, eval_every=1000, steps_along=0)
    return RunConfig("addition", world, model, training, options=options)


ADDITION_LONG = _long()
