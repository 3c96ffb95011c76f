"""What a model of the last few tokens is: frozen, JSON-ready dataclasses; see window.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from interp.models.model_config import ModelConfig
from interp.models.state_configs import require_choice
from interp.ranges import require_fields

_MOST_COUNTS = 8_000_000  # numbers in an n-gram's tables


@dataclass(frozen=True, kw_only=True, eq=False)
class WindowConfig(ModelConfig):
    """An MLP over the last tokens.

    Raises:
        ValueError: a value is out of range or unknown.
    """

    architecture: str = "window"
    d_vocab: int
    n_ctx: int
    context: int = 3  # how many tokens it sees, the newest included
    pooling: Literal["concat", "mean"] = "concat"  # mean: the newest embedding beside the mean over the context
    d_model: int = 8  # of an embedding
    d_mlp: int = 64  # of the hidden layer; 0: none
    act_fn: Literal["tanh", "relu"] = "tanh"
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"

    n_layers: ClassVar[int] = 1
    attention_dir: ClassVar[str] = "causal"

    def __post_init__(self) -> None:
        dtype: Any = self.dtype
        object.__setattr__(self, "dtype", dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."))
        require_fields(self, d_vocab=1, n_ctx=1, context=1, d_model=1, d_mlp=0, seed=0)
        require_choice("pooling", self.pooling, ("concat", "mean"))
        require_choice("act_fn", self.act_fn, ("tanh", "relu"))

    @property
    def d_window(self) -> int:
        """Size of what the hidden layer reads."""
        return self.d_model * (self.context if self.pooling == "concat" else 2)

    @property
    def d_out(self) -> int:
        """Size of what logits are read off."""
        return self.d_mlp or self.d_window


@dataclass(frozen=True, kw_only=True, eq=False)
class NgramConfig(ModelConfig):
    """Counted n-grams.

    Raises:
        ValueError: a value is out of range, or tables that would hold more than eight million counts.
    """

    architecture: str = "ngram"
    d_vocab: int
    n_ctx: int
    context: int = 2  # tokens before the one that is predicted; 0: how often each token occurs
    alpha: float = 0.1  # counts that the order below is worth
    seed: int = 0  # of nothing: counts begin at zero
    dtype: Literal["float32", "float64"] = "float32"

    n_layers: ClassVar[int] = 1
    attention_dir: ClassVar[str] = "causal"

    def __post_init__(self) -> None:
        dtype: Any = self.dtype
        object.__setattr__(self, "dtype", dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch."))
        require_fields(self, d_vocab=1, n_ctx=1, context=0, seed=0)
        if not 0 <= self.context <= 16:
            raise ValueError(f"context must be from 0 to 16; got {self.context}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be above 0; got {self.alpha}")
        if (self.d_vocab + 1) ** self.context * self.d_vocab > _MOST_COUNTS:
            raise ValueError(f"{self.d_vocab} tokens in contexts of {self.context} are too many to count")

    @property
    def d_model(self) -> int:
        """Of a one-hot token."""
        return self.d_vocab


WINDOW_CONFIGS = (WindowConfig, NgramConfig)
