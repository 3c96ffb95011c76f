"""What makes a continuous diffusion model of tokens; without PyTorch, so that a run's files can be read quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from interp.models.config import TransformerConfig
from interp.models.model_config import AttentionPart, in_turn
from interp.ranges import require_fields

Schedule = Literal["sqrt", "cosine"]
Sampler = Literal["ddim", "ddpm"]
SAMPLERS: tuple[Sampler, ...] = get_args(Sampler)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


@dataclass(frozen=True, kw_only=True, eq=False)
class DiffusionLMConfig(TransformerConfig):
    """A bidirectional transformer that denoises embeddings, and where the answer begins.

    Raises:
        ValueError: as TransformerConfig; or a causal model, no answer behind the prompt, or passes out of range.
    """

    architecture: str = "diffusion_lm"
    attention_dir: Literal["causal", "bidirectional"] = "bidirectional"
    n_prompt: int  # tokens that are given; the answer is the rest of n_ctx
    d_embed: int = 16  # of the embeddings that are noised; all have length sqrt(d_embed)
    schedule: Schedule = "sqrt"  # how the signal fades, see noise_schedules.py
    self_conditioning: bool = True  # each pass sees what the one before it predicted
    denoising_steps: int = 4  # passes from noise to an answer, where nothing else is asked
    max_steps: int = 0  # how many there can be, each with hook points of its own; 0: denoising_steps
    sampler: Sampler = "ddim"  # how a pass's prediction leads to the next
    clamp: bool = False  # each prediction is moved to the nearest embedding before the next pass

    drafts_in: ClassVar[str | None] = "denoising pass"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_fields(self, d_embed=1, denoising_steps=1, max_steps=0)
        if self.attention_dir != "bidirectional":
            raise ValueError(f"denoising embeddings needs attention_dir='bidirectional'; got {self.attention_dir!r}")
        if self.attn_only or self.tie_word_embeddings:
            raise ValueError("a diffusion_lm has MLPs, and rounds to its own embeddings: no attn_only, nothing to tie")
        if not 0 < self.n_prompt < self.n_ctx:
            raise ValueError(f"n_prompt must be from 1 to n_ctx - 1 = {self.n_ctx - 1}; got {self.n_prompt!r}")
        for name, allowed in (("schedule", SCHEDULES), ("sampler", SAMPLERS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        if self.denoising_steps > self.most_steps:
            raise ValueError(
                f"denoising_steps must be at most max_steps = {self.max_steps}; got {self.denoising_steps}"
            )

    @property
    def has_graph(self) -> bool:
        """False: edges between passes are not declared."""
        return False

    @property
    def attention_parts(self) -> tuple[AttentionPart, ...]:
        """Of each pass."""
        layers = tuple(range(self.n_layers))
        return in_turn((f"denoising step {t + 1}", layers) for t in range(self.denoising_steps))

    @property
    def n_answer(self) -> int:
        """Tokens of an answer."""
        return self.n_ctx - self.n_prompt

    @property
    def most_steps(self) -> int:
        """How many passes there can be: `max_steps`, or `denoising_steps` where that is 0."""
        return self.max_steps or self.denoising_steps
