"""What a model with a state is: one frozen, JSON-ready dataclass an architecture, over the fields that all share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from interp.models.model_config import ModelConfig
from interp.ranges import require_count, require_fields

Norm = Literal["LN", "RMS"]


@dataclass(frozen=True, kw_only=True, eq=False)
class StateConfig(ModelConfig):
    """What every model with a state has: pre-norm residual blocks, no positions. Names are TransformerLens's.

    Raises:
        ValueError: a value is out of range, unknown, or contradicts another; the message names the field.
    """

    architecture: str  # key in MODELS
    d_vocab: int
    n_ctx: int  # length of the sequences trained on; a state has no longest sequence
    n_layers: int = 2
    d_model: int = 64  # of the residual stream
    d_mlp: int = 0  # width of an MLP after each recurrence; 0: none
    act_fn: Literal["gelu", "relu", "silu"] = "gelu"  # of the MLP; gelu is the exact one
    normalization_type: Norm | None = "RMS"  # None: no norm in front of blocks and logits, for hand-set weights
    eps: float = 1e-5
    tie_word_embeddings: bool = False  # W_U = W_E.T
    use_bias: bool = True  # biases of the MLP, LayerNorm and unembedding
    init_range: float = -1.0  # standard deviation of embeddings, MLP and unembedding; -1: 0.8 / sqrt(d_model)
    seed: int = 0  # of the initial weights
    dtype: Literal["float32", "float64"] = "float32"  # of the parameters; for bfloat16 use autocast

    attention_dir: ClassVar[str] = "causal"  # a state is made from the past alone
    has_state: ClassVar[bool] = True  # what earlier tokens leave to later ones is of one size, however many they are
    index_table_size: ClassVar[int] = 0  # no positions: resizing changes n_ctx and nothing else

    def __post_init__(self) -> None:
        dtype: Any = self.dtype  # `dataclasses.replace(model.cfg, …)` brings the torch.dtype of a built model
        object.__setattr__(self, "dtype", dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."))
        require_fields(self, d_vocab=1, n_ctx=1, n_layers=1, d_model=1, seed=0)
        if self.d_mlp:
            require_count("d_mlp", self.d_mlp)
        if self.init_range is None or self.init_range == -1:
            object.__setattr__(self, "init_range", 0.8 / math.sqrt(self.d_model))
        require_choice("act_fn", self.act_fn, ("gelu", "relu", "silu"))
        require_choice("normalization_type", self.normalization_type, ("LN", "RMS", None))
        require_choice("dtype", self.dtype, ("float32", "float64"))
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0; got {self.eps!r}")
        if not self.init_range >= 0:
            raise ValueError(f"init_range must be at least 0 (or -1 for the default); got {self.init_range!r}")

    @property
    def d_vocab_out(self) -> int:
        """Number of logits at a position: the vocabulary again."""
        return self.d_vocab

    @property
    def final_rms(self) -> bool:
        """False: the final norm is of the same kind as the others."""
        return False


@dataclass(frozen=True, kw_only=True, eq=False)
class RecurrentConfig(StateConfig):
    """What recurrent nets have in common; see recurrent.py."""

    d_hidden: int = -1  # of a layer's state; -1: d_model, added to the residual stream as it is, else through W_O

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_hidden is None or self.d_hidden == -1:
            object.__setattr__(self, "d_hidden", self.d_model)
        require_count("d_hidden", self.d_hidden)

    @property
    def d_carry(self) -> int:
        """Size of what goes on to the next position."""
        return self.d_hidden


@dataclass(frozen=True, kw_only=True, eq=False)
class RNNConfig(RecurrentConfig):
    """Elman's recurrent net."""

    architecture: str = "rnn"  # key in MODELS


@dataclass(frozen=True, kw_only=True, eq=False)
class GRUConfig(RecurrentConfig):
    """The gated recurrent unit."""

    architecture: str = "gru"  # key in MODELS
    remember_bias: float = 1.0  # initial bias of the update gate, which holds the state; 0: as torch


@dataclass(frozen=True, kw_only=True, eq=False)
class LSTMConfig(RecurrentConfig):
    """Long short-term memory."""

    architecture: str = "lstm"  # key in MODELS
    remember_bias: float = 1.0  # initial bias of the forget gate, which holds the cell; 0: as torch

    @property
    def d_carry(self) -> int:
        """Size of what goes on to the next position: the state, then the cell."""
        return 2 * self.d_hidden


Decay = Literal["learned", "fixed", "none"]


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixStateConfig(StateConfig):
    """What models have in common whose heads each hold a matrix; see linear_attention.py."""

    n_heads: int = 4
    d_key: int = -1  # of a head's queries and keys, the rows of its state; -1: d_model // n_heads
    d_value: int = -1  # of a head's values, the columns of its state; -1: d_key
    decay: Decay = "learned"  # of a head's state, by position; fixed: 1 - 2^(-5 - head), as RetNet; none: nothing fades
    conv_size: int = 0  # causal convolution of queries, keys and values over so many positions, then silu; 0: none
    output_gate: bool = True  # what is read, normalised by head, times silu(W_gate x)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_heads", self.n_heads)
        if self.d_key is None or self.d_key == -1:
            if self.d_model % self.n_heads:
                raise ValueError(
                    f"d_model must be a multiple of n_heads unless d_key is given; "
                    f"got d_model={self.d_model}, n_heads={self.n_heads}"
                )
            object.__setattr__(self, "d_key", self.d_model // self.n_heads)
        if self.d_value is None or self.d_value == -1:
            object.__setattr__(self, "d_value", self.d_key)
        require_count("d_key", self.d_key)
        require_count("d_value", self.d_value)
        require_choice("decay", self.decay, ("learned", "fixed", "none"))
        require_window("conv_size", self.conv_size)

    @property
    def d_conv(self) -> int:
        """Channels of the convolution: queries, then keys, then values, of all heads."""
        return self.n_heads * (self.d_key + getattr(self, "n_householder", 1) * (self.d_key + self.d_value))

    @property
    def d_window(self) -> int:
        """Earlier inputs that the convolution sees."""
        return max(0, self.conv_size - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearAttentionConfig(MatrixStateConfig):
    """Gated linear attention; `decay="none"` is linear attention, `decay="fixed"` RetNet's retention."""

    architecture: str = "linear_attention"  # key in MODELS
    feature_map: Literal["identity", "elu"] = "identity"  # of queries and keys; elu: elu(x) + 1, above 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("feature_map", self.feature_map, ("identity", "elu"))


@dataclass(frozen=True, kw_only=True, eq=False)
class DeltaConfig(MatrixStateConfig):
    """Gated DeltaNet; with `n_householder` of 2 or more DeltaProduct. See delta.py."""

    architecture: str = "delta"  # key in MODELS
    conv_size: int = 4  # causal convolution of queries, keys and values over so many positions, then silu; 0: none
    beta_max: Literal[1, 2] = 2  # of the strength of a write; up to 1 overwrites, up to 2 can also reflect the state
    n_householder: int = 1  # writes a position, each with its own key, value and strength

    def __post_init__(self) -> None:
        require_count("n_householder", self.n_householder)
        super().__post_init__()
        require_choice("beta_max", self.beta_max, (1, 2))


@dataclass(frozen=True, kw_only=True, eq=False)
class MambaConfig(StateConfig):
    """Mamba. See mamba.py."""

    architecture: str = "mamba"  # key in MODELS
    d_inner: int = -1  # channels of the state space model; -1: 2 * d_model
    d_state: int = 16  # numbers that each channel holds
    dt_rank: int = -1  # rank of the map to step sizes; -1: d_model / 16, rounded up
    conv_size: int = 4  # causal convolution over so many positions; 0: none
    scan: Literal["sequential", "chunked"] = "sequential"  # chunked: a parallel scan; the same numbers, see scans.py

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_inner is None or self.d_inner == -1:
            object.__setattr__(self, "d_inner", 2 * self.d_model)
        if self.dt_rank is None or self.dt_rank == -1:
            object.__setattr__(self, "dt_rank", math.ceil(self.d_model / 16))
        for name in ("d_inner", "d_state", "dt_rank"):
            require_count(name, getattr(self, name))
        require_window("conv_size", self.conv_size)
        require_choice("scan", self.scan, ("sequential", "chunked"))

    @property
    def d_window(self) -> int:
        """Earlier inputs that the convolution sees."""
        return max(0, self.conv_size - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mamba2Config(StateConfig):
    """Mamba-2. See mamba2.py."""

    architecture: str = "mamba2"  # key in MODELS
    n_heads: int = 4
    d_head: int = -1  # channels of a head; -1: 2 * d_model // n_heads
    d_state: int = 16  # numbers that each channel holds
    conv_size: int = 4  # causal convolution over so many positions; 0: none

    def __post_init__(self) -> None:
        super().__post_init__()
        require_count("n_heads", self.n_heads)
        if self.d_head is None or self.d_head == -1:
            if 2 * self.d_model % self.n_heads:
                raise ValueError(
                    f"2 * d_model must be a multiple of n_heads unless d_head is given; "
                    f"got d_model={self.d_model}, n_heads={self.n_heads}"
                )
            object.__setattr__(self, "d_head", 2 * self.d_model // self.n_heads)
        for name in ("d_head", "d_state"):
            require_count(name, getattr(self, name))
        require_window("conv_size", self.conv_size)

    @property
    def d_inner(self) -> int:
        """Channels of all heads."""
        return self.n_heads * self.d_head

    @property
    def d_conv(self) -> int:
        """Channels of the convolution: those of all heads, then B, then C."""
        return self.d_inner + 2 * self.d_state

    @property
    def d_window(self) -> int:
        """Earlier inputs that the convolution sees."""
        return max(0, self.conv_size - 1)


STATE_CONFIGS = (RNNConfig, GRUConfig, LSTMConfig, LinearAttentionConfig, DeltaConfig, MambaConfig, Mamba2Config)


def require_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Raise ValueError where a field's value is none of those allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}; got {value!r}")


def require_window(name: str, value: object) -> None:
    """Raise ValueError where the size of a convolution is neither 0, for none, nor an integer from 2 up."""
    if value != 0 and (not isinstance(value, int) or isinstance(value, bool) or value < 2):
        raise ValueError(f"{name} must be 0, for no convolution, or an integer of at least 2; got {value!r}")
