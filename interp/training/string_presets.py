"""The named runs about rule strings: small models, minutes each, followed on validation strings."""

from __future__ import annotations

from typing import Any

from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.training.presets import model_for, transformer_for
from interp.worlds.strings import Counting, Markov, Rule, Sticky, StringWorld


def _run(rule: Rule, architecture: str, *, steps: int, rate: float, **sizes: Any) -> RunConfig:
    """AdamW alone, constant and then falling, weights averaged."""
    world = StringWorld(rule)
    training = TrainingConfig(
        steps=steps,
        batch_size=64,
        optimizer="adamw",
        adamw_lr=rate,
        ema_decay=0.998,
        weight_decay=0.0,
        balance="natural",
        eval_every=1000,
        eval_states=500,
        checkpoint_every=2000,
        steps_along=20,
        threads=1,
        validation=True,
    )
    if architecture == "transformer":
        model: Any = transformer_for("strings", world, **sizes)
    else:
        model = model_for("strings", world, architecture, **sizes)
    return RunConfig("strings", world, model, training)


def _counted(rule: Rule, *, context: int) -> RunConfig:
    """Fitted without gradients, in few large batches."""
    training = TrainingConfig(
        steps=100,
        batch_size=4096,
        optimizer="adamw",
        balance="natural",
        eval_every=100,
        eval_states=500,
        threads=1,
        validation=True,
    )
    world = StringWorld(rule)
    return RunConfig("strings", world, model_for("strings", world, "ngram", context=context), training)


# At most 5,000 parameters each; other N by `--machine n=…`.
STICKY = _run(Sticky(), "gru", steps=12000, rate=8e-3, n_layers=1, d_model=24)
STICKY_TRANSFORMER = _run(Sticky(), "transformer", steps=6000, rate=5e-3, n_layers=2, n_heads=2, d_model=16, d_mlp=32)
COUNTING = _run(Counting(), "transformer", steps=3000, rate=3e-3, n_layers=3, n_heads=2, d_model=32, d_mlp=64)
MARKOV = _run(Markov(length=32), "transformer", steps=1500, rate=5e-3, n_layers=2, n_heads=1, d_model=32, d_mlp=64)

# Below and at the context that suffices: counted, learned by gradient, and an MLP.
STICKY_NGRAM = _counted(Sticky(), context=3)
STICKY_BIGRAM = _run(Sticky(), "window", steps=1500, rate=1e-2, context=1, d_model=7, d_mlp=0)
STICKY_MLP = _run(Sticky(), "window", steps=3000, rate=5e-3, context=2, d_model=4, d_mlp=64)
