"""What makes a masked diffusion model; without PyTorch, so that a run's files can be read quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from interp.configuration import later
from interp.models.config import TransformerConfig

Order = Literal["confidence", "left_to_right", "right_to_left", "random"]
ORDERS: tuple[Order, ...] = ("confidence", "left_to_right", "right_to_left", "random")


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedDiffusionConfig(TransformerConfig):
    """A bidirectional transformer, and where the answer begins.

    Raises:
        ValueError: as TransformerConfig; or a causal model, or no answer behind the prompt.
    """

    architecture: str = "masked_diffusion"
    attention_dir: Literal["causal", "bidirectional"] = "bidirectional"
    n_prompt: int  # tokens that are given; the answer is the rest of n_ctx
    denoising_steps: int = 1  # passes in which `answer` fills in the answer
    order: Order = "confidence"  # in which order they fill it in
    tail_block: int = later(0)  # half of the training rows are masked from a block of so many on; 0: none

    drafts_in: ClassVar[str | None] = "denoising pass"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_dir != "bidirectional":
            raise ValueError(f"masked diffusion needs attention_dir='bidirectional'; got {self.attention_dir!r}")
        if not 0 < self.n_prompt < self.n_ctx:
            raise ValueError(f"n_prompt must be from 1 to n_ctx - 1 = {self.n_ctx - 1}; got {self.n_prompt!r}")
        if type(self.tail_block) is not int or not 0 <= self.tail_block < self.n_answer:
            raise ValueError(
                f"tail_block must be from 0 to below the {self.n_answer} tokens of an answer; got {self.tail_block!r}"
            )
        if self.order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {self.order!r}")
        if not 1 <= self.denoising_steps <= self.n_answer:
            raise ValueError(
                f"denoising_steps must be from 1 to the {self.n_answer} tokens of an answer; "
                f"got {self.denoising_steps!r}"
            )

    @property
    def n_answer(self) -> int:
        """Tokens of an answer."""
        return self.n_ctx - self.n_prompt
