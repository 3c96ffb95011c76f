"""The named runs about text: one small model an architecture, of about equal size, on the text that Python brings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from interp.models import config_class
from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.training.presets import iterative_thinking, looped_for, model_for, transformer_for
from interp.worlds.text import TextWorld

LENGTH = 128  # tokens of an example, and of what a model with positions can look back on


def training_for(steps: int, *, rate: float = 2e-3, batch_size: int = 16) -> TrainingConfig:
    """AdamW with a warm-up and a cosine, weights averaged, followed on validation units."""
    return TrainingConfig(
        steps=steps,
        batch_size=batch_size,
        optimizer="adamw",
        adamw_lr=rate,
        schedule="cosine",
        weight_decay=0.1,
        ema_decay=0.995,
        balance="natural",
        eval_every=500,
        eval_states=200,
        checkpoint_every=500,
        threads=1,
        validation=True,
    )


def text_model(architecture: str, world: Any, **sizes: Any) -> Any:
    """The config of an architecture for a text; `sizes` in place of its own, which give about 0.8 M parameters.

    Besides the keys of MODELS: `path`, a transformer with PaTH positions, and `iterative`, the iterative-thinking
    model. A text is read from left to right, and halting looks at a whole row, so this one runs a set number of steps.
    """
    if architecture in ("transformer", "path"):
        config: Any = transformer_for("text", world, **{"n_layers": 4, "d_model": 128, **sizes})
        config = replace(config, act_fn="gelu", use_bias=False)
        if architecture == "transformer":  # in nanoGPT's very shape
            return replace(config, normalization_type="LN", qk_norm=False, tie_word_embeddings=True)
        return replace(config, positional_embedding_type="path", d_mlp=sizes.get("d_mlp", 29 * config.d_model // 8))
    if architecture == "looped":
        own = {"n_layers": 2, "n_prelude": 1, "n_coda": 1, "n_loops": 3, "d_model": 128}
        return looped_for("text", world, **{**own, **sizes})
    if architecture == "iterative":
        own = {"n_layers": 2, "n_loops": 4, "d_model": 168, "halting": "none"}
        return iterative_thinking("text", world, **{**own, **sizes})
    if architecture in _FILLED_IN:
        like = transformer_for("text", world, **{"n_layers": 4, "d_model": 128, **sizes})
        shared = {
            name: getattr(like, name) for name in ("d_vocab", "n_ctx", "n_layers", "n_heads", "d_model", "qk_norm")
        }
        return config_class(architecture)(**shared, **_FILLED_IN[architecture])
    return model_for("text", world, architecture, **{**SIZES[architecture], **sizes})


_FILLED_IN: dict[str, dict[str, Any]] = {
    "masked_diffusion": {"n_prompt": 1},
    "diffusion_lm": {"n_prompt": 1, "d_embed": 32, "denoising_steps": 16},
}

SIZES: dict[str, dict[str, Any]] = {
    "rnn": {"n_layers": 4, "d_model": 180, "d_mlp": 368},
    "gru": {"n_layers": 3, "d_model": 208},
    "lstm": {"n_layers": 3, "d_model": 180},
    "linear_attention": {"n_layers": 4, "d_model": 128, "d_mlp": 448},
    "delta": {"n_layers": 4, "d_model": 128, "d_mlp": 448},
    "mamba": {"n_layers": 4, "d_model": 168},
    "mamba2": {"n_layers": 4, "d_model": 178},
    "ngram": {"context": 2},
    "window": {"context": 12, "d_model": 48, "d_mlp": 1216},
}
"""What gives each architecture about as many parameters as the transformer has."""

_WORLD = TextWorld.of(length=LENGTH)


def _run(architecture: str, *, steps: int, rate: float = 2e-3) -> RunConfig:
    return RunConfig("text", _WORLD, text_model(architecture, _WORLD), training_for(steps, rate=rate))


TEXT_SMALL = _run("transformer", steps=2500, rate=4e-3)
TEXT_GRU = _run("gru", steps=3000)
TEXT_DELTA = _run("delta", steps=3000)
TEXT_MAMBA = _run("mamba", steps=3000)
TEXT_LOOPED = _run("looped", steps=3000)
TEXT_MASKED_DIFFUSION = _run("masked_diffusion", steps=3000)
TEXT_DIFFUSION_LM = _run("diffusion_lm", steps=3000)
