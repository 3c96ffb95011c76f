"""What a model is: one frozen, JSON-ready dataclass an architecture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from interp.configuration import later
from interp.models.model_config import ModelConfig
from interp.ranges import require_count, require_fields

Norm = Literal["LN", "RMS"]
Positions = Literal["alibi", "block", "block_rotary", "learned", "none", "path", "randomised", "rotary", "sinusoidal"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TransformerConfig(ModelConfig):
    """A pre-norm transformer. Field names are TransformerLens's where it has one.

    Raises:
        ValueError: a value is out of range, unknown, or contradicts another; the message names the field.
    """

    architecture: str = "transformer"  # key in MODELS
    d_vocab: int
    n_ctx: int  # longest sequence
    n_layers: int = 4  # blocks
    n_heads: int = 4  # of each block's attention
    d_model: int = 64  # width of the residual stream
    d_head: int = -1  # -1: d_model // n_heads; any other size is allowed, n_heads * d_head need not be d_model
    d_mlp: int = -1  # -1: 4 * d_model
    attn_only: bool = False  # no ln2, no MLP
    gated_mlp: bool = later(False)  # act_fn(x @ W_gate) * (x @ W_in), 3 matrices; with silu: SwiGLU (Shazeer 2020)
    act_fn: Literal["gelu", "relu", "silu"] = "gelu"  # gelu is the exact one, not the tanh approximation
    normalization_type: Norm | None = "RMS"  # None: no norm anywhere, for hand-set weights
    eps: float = 1e-5  # added to the variance in every norm
    qk_norm: bool = False  # RMS over d_head with a learned gain, before hook_q and hook_k
    attention_dir: Literal["causal", "bidirectional"] = "causal"  # whether a position sees those after it
    attention_chunk: int = later(0)  # c > 0: attend to the own chunk of c tokens (causally) and all of the one before
    positional_embedding_type: Positions = "learned"  # see embed.py
    position_roles: tuple[int, ...] = ()  # "block…" only: which block each position belongs to, [n_ctx]
    position_indices: tuple[int, ...] = ()  # "block…" only: the slot's index inside its block, [n_ctx]
    index_table_size: int = later(0)  # "block" only: indices embedded; more than needed: training shifts them at random
    index_init: Literal["normal", "sinusoidal"] = later("normal")  # "block" only: initial vectors of the indices
    position_range: int = later(0)  # "randomised" only: positions to draw from in training; at least n_ctx
    rotary_dim: int = later(0)  # dimensions of each head that are turned; 0: all under a rotary type, else none
    rotary_base: int = later(10_000)  # the slowest pair of dimensions turns by almost 1 / rotary_base a position
    tie_word_embeddings: bool = False  # W_U = W_E.T
    use_bias: bool = True  # biases of attention, MLP, LayerNorm and unembedding
    init_range: float = -1.0  # standard deviation of the initial weights; -1: 0.8 / sqrt(d_model)
    seed: int = 0  # of the initial weights
    dtype: Literal["float32", "float64"] = "float32"  # of the parameters; for bfloat16 use autocast

    has_attention: ClassVar[bool] = True

    # State of a built model that TransformerLens looks for on model.cfg. No fields: see ModelConfig.
    use_attn_result: ClassVar[bool] = False
    use_attn_in: ClassVar[bool] = False
    use_split_qkv_input: ClassVar[bool] = False
    use_hook_mlp_in: ClassVar[bool] = False

    def __post_init__(self) -> None:
        dtype: Any = self.dtype  # `dataclasses.replace(model.cfg, …)` brings the torch.dtype of a built model
        object.__setattr__(self, "dtype", dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."))
        require_fields(self, d_vocab=1, n_ctx=1, n_layers=1, n_heads=1, d_model=1, seed=0)
        if self.d_head is None or self.d_head == -1:
            if self.d_model % self.n_heads:
                raise ValueError(
                    f"d_model must be a multiple of n_heads unless d_head is given; "
                    f"got d_model={self.d_model}, n_heads={self.n_heads}"
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        if self.d_mlp is None or self.d_mlp == -1:
            object.__setattr__(self, "d_mlp", 4 * self.d_model)
        if self.init_range is None or self.init_range == -1:
            object.__setattr__(self, "init_range", 0.8 / math.sqrt(self.d_model))
        require_count("d_head", self.d_head)
        require_count("d_mlp", self.d_mlp)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0; got {self.eps!r}")
        if not self.init_range >= 0:
            raise ValueError(f"init_range must be at least 0 (or -1 for the default); got {self.init_range!r}")
        for name in ("position_roles", "position_indices"):  # JSON has no tuples
            object.__setattr__(self, name, tuple(getattr(self, name)))
            self._check_positions(name)
        if self.attention_chunk:
            require_count("attention_chunk", self.attention_chunk)
            if self.attention_dir != "causal":
                raise ValueError(f"attention_chunk needs attention_dir='causal'; got {self.attention_dir!r}")
        require_count("rotary_base", self.rotary_base)
        if self.rotary_dim and (self.rotary_dim % 2 or not 0 < self.rotary_dim <= self.d_head):
            raise ValueError(f"rotary_dim must be even and at most d_head = {self.d_head}; got {self.rotary_dim}")
        if self.rotary and not self.rotary_dim and self.d_head % 2:
            raise ValueError(f"d_head must be even for rotary positions; got {self.d_head}")
        self._check_positional_type()
        if self.index_init != "normal" and self.positional_embedding_type != "block":
            raise ValueError(
                f"index_init needs positional_embedding_type='block'; got {self.positional_embedding_type!r}"
            )
        if self.index_table_size:
            self._check_index_table()

    def _check_positions(self, name: str) -> None:
        values = getattr(self, name)
        expected = self.n_ctx if self.positional_embedding_type in ("block", "block_rotary") else 0
        if len(values) != expected:
            raise ValueError(
                f"{name} must hold {expected} numbers with n_ctx={self.n_ctx} and "
                f"positional_embedding_type={self.positional_embedding_type!r}; got {len(values)}"
            )
        if any(not isinstance(value, int) or value < 0 for value in values):
            raise ValueError(f"{name} must hold integers from 0 up; got {min(values)!r}")

    def _check_positional_type(self) -> None:
        kind = self.positional_embedding_type
        if kind == "path" and self.rotary_dim:
            raise ValueError(
                "rotary_dim must be 0 with positional_embedding_type='path', whose transitions turn keys already; "
                f"got {self.rotary_dim}"
            )
        if kind == "randomised":
            require_count("position_range", self.position_range)
            if self.position_range < self.n_ctx:
                raise ValueError(f"position_range must be at least n_ctx = {self.n_ctx}; got {self.position_range}")
        elif self.position_range:
            raise ValueError(f"position_range needs positional_embedding_type='randomised'; got {kind!r}")

    def _check_index_table(self) -> None:
        require_count("index_table_size", self.index_table_size)
        if self.positional_embedding_type != "block":
            raise ValueError(
                f"index_table_size needs positional_embedding_type='block'; got {self.positional_embedding_type!r}"
            )
        if self.index_table_size <= max(self.position_indices):
            raise ValueError(
                f"index_table_size must be above the largest of position_indices, {max(self.position_indices)}; "
                f"got {self.index_table_size}"
            )

    @property
    def has_graph(self) -> bool:
        """See ModelConfig."""
        return not self.attn_only

    @property
    def rotary(self) -> bool:
        """Whether positions enter as rotations of queries and keys, be it beside what is added."""
        return self.rotary_dim > 0 or self.positional_embedding_type in ("rotary", "block_rotary")

    @property
    def attn_scale(self) -> float:
        """What scores are divided by: sqrt(d_head)."""
        return math.sqrt(self.d_head)

    @property
    def n_params(self) -> int:
        """Numbers in the matrices of attention and MLPs alone, as TransformerLens counts."""
        mlp = 0 if self.attn_only else self.d_model * self.d_mlp * (3 if self.gated_mlp else 2)
        return self.n_layers * (4 * self.d_model * self.n_heads * self.d_head + mlp)

    @property
    def d_vocab_out(self) -> int:
        """Number of logits at a position: the vocabulary again."""
        return self.d_vocab

    @property
    def n_key_value_heads(self) -> None:
        """None: every head has its own keys and values."""
        return None

    @property
    def final_rms(self) -> bool:
        """False: the final norm is of the same kind as the others."""
        return False


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiTokenConfig(TransformerConfig):
    """A transformer with several heads; see multi_token.py.

    Raises:
        ValueError: a value is out of range, unknown, or contradicts another; the message names the field.
    """

    architecture: str = "multi_token"
    n_predicted: int = 2  # tokens said at once: heads on the final residual stream

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_predicted", self.n_predicted)


def config_class(architecture: str) -> type:
    """The dataclass that configures an architecture; PyTorch is not imported for those of this package.

    Raises:
        ValueError: the architecture is not in MODELS.
    """
    if architecture == TransformerConfig.architecture:
        return TransformerConfig
    from interp.models.diffusion_lm_config import DiffusionLMConfig
    from interp.models.encoder_decoder_config import EncoderDecoderConfig
    from interp.models.looped_config import LoopedConfig
    from interp.models.masked_diffusion_config import MaskedDiffusionConfig
    from interp.models.slot_machine_config import SlotMachineConfig
    from interp.models.state_configs import STATE_CONFIGS
    from interp.models.window_config import WINDOW_CONFIGS

    answering = (
        DiffusionLMConfig,
        EncoderDecoderConfig,
        LoopedConfig,
        MaskedDiffusionConfig,
        MultiTokenConfig,
        SlotMachineConfig,
    )
    for config in (*STATE_CONFIGS, *WINDOW_CONFIGS, *answering):
        if config.architecture == architecture:
            return config
    from interp.models.registry import MODELS

    if architecture not in MODELS:
        raise ValueError(f"architecture must be one of {', '.join(MODELS)}; got {architecture!r}")
    return MODELS[architecture].config


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "act_fn": ("gelu", "relu", "silu"),
    "normalization_type": ("LN", "RMS", None),
    "attention_dir": ("causal", "bidirectional"),
    "positional_embedding_type": get_args(Positions),
    "index_init": ("normal", "sinusoidal"),
    "dtype": ("float32", "float64"),
}
