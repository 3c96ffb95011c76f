"""What an encoder–decoder is."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from interp.models.config import TransformerConfig
from interp.models.model_config import AttentionPart
from interp.ranges import require_fields

_POSITIONS = ("block", "block_rotary", "learned", "none", "rotary", "sinusoidal")


@dataclass(frozen=True, kw_only=True, eq=False)
class EncoderDecoderConfig(TransformerConfig):
    """An encoder that reads a prompt both ways, and a causal decoder that writes the answer by cross-attention to it.

    Raises:
        ValueError: as TransformerConfig; or sides without a token or a block, or what has no meaning on two sides.
    """

    architecture: str = "encoder_decoder"
    attention_dir: Literal["causal", "bidirectional"] = "causal"  # of the decoder; the encoder reads both ways
    n_prompt: int  # tokens on the encoder's side; the answer is the rest of n_ctx
    n_encoder: int  # of the n_layers blocks the first so many are the encoder's
    relative_buckets: int = 0  # T5's relative bias in both self-attentions: its buckets; 0: none
    relative_distance: int = 128  # from which on all distances share a bucket

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(self, relative_buckets=0, relative_distance=1)
        for name, most in (("n_prompt", self.n_ctx), ("n_encoder", self.n_layers)):
            whole = "n_ctx" if name == "n_prompt" else "n_layers"
            if not 0 < getattr(self, name) < most:
                raise ValueError(f"{name} must be from 1 to {whole} - 1 = {most - 1}; got {getattr(self, name)!r}")
        if self.attention_dir != "causal":
            raise ValueError(f"the decoder needs attention_dir='causal'; got {self.attention_dir!r}")
        if self.positional_embedding_type not in _POSITIONS:
            raise ValueError(
                f"an encoder–decoder takes positional_embedding_type {', '.join(_POSITIONS)}; "
                f"got {self.positional_embedding_type!r}"
            )
        if self.attn_only or self.attention_chunk:
            raise ValueError("an encoder–decoder has MLPs and attends to everything: no attn_only, no attention_chunk")
        if self.relative_buckets and (self.relative_buckets % 4 or self.relative_buckets < 4):
            raise ValueError(f"relative_buckets must be a multiple of 4, or 0 for none; got {self.relative_buckets}")
        if self.relative_buckets and self.relative_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"relative_distance must be above half of relative_buckets = {self.relative_buckets}; "
                f"got {self.relative_distance}"
            )

    @property
    def n_answer(self) -> int:
        """Tokens of an answer."""
        return self.n_ctx - self.n_prompt

    @property
    def n_decoder(self) -> int:
        """Blocks of the decoder."""
        return self.n_layers - self.n_encoder

    def side(self, name: Literal["prompt", "answer"]) -> TransformerConfig:
        """One side as a transformer: its own positions, and its direction of attention."""
        where = slice(0, self.n_prompt) if name == "prompt" else slice(self.n_prompt, None)
        shared = {each.name: getattr(self.as_written, each.name) for each in fields(TransformerConfig)}
        own = {
            "architecture": "transformer",
            "n_ctx": self.n_prompt if name == "prompt" else self.n_answer,
            "n_layers": self.n_encoder if name == "prompt" else self.n_decoder,
            "attention_dir": "bidirectional" if name == "prompt" else "causal",
            "position_roles": self.position_roles[where],
            "position_indices": self.position_indices[where],
        }
        return TransformerConfig(**(shared | own))

    @property
    def attention_nodes(self) -> tuple[str, ...]:
        """See ModelConfig; cross-attention's are "c3" beside "a3"."""
        decoder = range(self.n_encoder, self.n_layers)
        return (*(f"a{l}" for l in range(self.n_encoder)), *(f"{kind}{l}" for l in decoder for kind in "ac"))

    @property
    def attention_parts(self) -> tuple[AttentionPart, ...]:
        """The encoder's, then of the decoder's blocks what looks at the answer and what looks at the prompt."""
        prompt, answer = (0, self.n_prompt), (self.n_prompt, None)
        parts = []
        for name, stem, queries, keys in (
            ("encoder self-attention", "a", prompt, prompt),
            ("decoder self-attention", "a", answer, answer),
            ("cross-attention", "c", answer, prompt),
        ):
            layers = range(self.n_encoder) if queries == prompt else range(self.n_encoder, self.n_layers)
            nodes = tuple(f"{stem}{layer}" for layer in layers)
            rows = tuple(self.attention_nodes.index(node) for node in nodes)
            parts.append(AttentionPart(name, rows, tuple(layers), nodes, queries, keys))
        return tuple(parts)

    @property
    def n_params(self) -> int:
        """As in TransformerConfig, cross-attention included."""
        return super().n_params + self.n_decoder * 4 * self.d_model * self.n_heads * self.d_head
