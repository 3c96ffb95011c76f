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


# At most 5,000 parameters each; other N by `--machine n=…`.
STICKY = _run(Sticky(), "gru", steps=8000, rate=5e-3, n_layers=1, d_model=24)
STICKY_TRANSFORMER = _run(Sticky(), "transformer", steps=6000, rate=5e-3, n_layers=2, n_heads=2, d_model=16, d_mlp=32)
COUNTING = _run(Counting(), "transformer", steps=5000, rate=3e-3, n_layers=3, n_heads=2, d_model=32, d_mlp=64)
MARKOV = _run(Markov(length=48), "transformer", steps=3000, rate=3e-3, n_layers=2, n_heads=1, d_model=32, d_mlp=64)
