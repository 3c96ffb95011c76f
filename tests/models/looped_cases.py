"""Cases of the looped transformer in the model battery."""

from typing import Any

from interp.models.looped_config import LoopedConfig

_SIZES: dict[str, Any] = {"d_vocab": 13, "n_ctx": 9, "n_layers": 2, "n_heads": 2, "d_model": 16, "seed": 3}

LOOPED_CASES: dict[str, LoopedConfig] = {
    "looped": LoopedConfig(**_SIZES, n_prelude=1, n_coda=1, n_loops=4, carry_norm=True, attention_dir="bidirectional"),
    "looped-universal": LoopedConfig(**_SIZES, injection="none", step_embedding=True, n_loops=4, dtype="float64"),
    "looped-adaptive": LoopedConfig(**_SIZES, halting="act", n_loops=2, use_bias=False, attention_dir="bidirectional"),
    "looped-thinking": LoopedConfig(
        **_SIZES,
        injection="concatenate",
        carry_head=True,
        carry_norm=True,
        halting="fixed_point",
        halt_threshold=0.0,
        n_loops=4,
        attention_dir="bidirectional",
    ),
}
