"""What continuous diffusion declares about itself."""

from __future__ import annotations

import re
from typing import Any, cast

import torch
from torch import Tensor, nn

from interp.models.diffusion_lm_config import SAMPLERS, DiffusionLMConfig
from interp.models.drafts import Drafts, embedding_drafts
from interp.models.facts import ModelFacts, on_sides, with_input_axis
from interp.models.transformer_facts import TransformerFacts

_PLACE = re.compile(r"^steps\.(\d+)\.(?:blocks\.(\d+)\.)?")


class DiffusionLMFacts(ModelFacts):
    """See ModelFacts. Layers are counted as they run: those of every pass, one pass after the other."""

    cfg: DiffusionLMConfig

    declared_axes = {  # noqa: RUF012  # a constant of the class
        **TransformerFacts.declared_axes,
        "hook_embed": ("batch", "prompt_pos", "d_model"),
        **dict.fromkeys(("hook_noised_embed", "hook_self_condition"), ("batch", "answer_pos", "d_embed")),
        "hook_time_embed": ("batch", "d_model"),
        "hook_prediction": ("batch", "pos", "d_embed"),
    }

    def axes(self, hook: str) -> tuple[str, ...]:
        """As in ModelFacts; ln1 has one more under split inputs."""
        return with_input_axis(self, self.hook_name(hook), super().axes(hook))

    def layer_of(self, hook: str) -> int | None:
        """See ModelFacts."""
        found = _PLACE.match(self.hook_name(hook))
        return None if found is None or found[2] is None else int(found[1]) * self.cfg.n_layers + int(found[2])

    def step_of(self, hook: str) -> int | None:
        """The pass that a hook point belongs to, from 0; None for what is run once."""
        found = _PLACE.match(self.hook_name(hook))
        return None if found is None else int(found[1])

    def attention_hooks(self) -> tuple[str, ...]:
        """See ModelFacts; of the passes that are made where nothing else is asked."""
        cfg = self.cfg
        return tuple(
            f"steps.{t}.blocks.{l}.attn.hook_pattern" for t in range(cfg.denoising_steps) for l in range(cfg.n_layers)
        )

    def on_record(self, hook: str, activation: Tensor) -> Tensor:
        """See ModelFacts; 0 at the positions that the hook does not fire on."""
        return on_sides(activation, self.axes(hook), n_prompt=self.cfg.n_prompt, n_ctx=self.cfg.n_ctx)

    def first_position(self, hook: str) -> int:
        """n_prompt at the answer's hooks; see ModelFacts."""
        return self.cfg.n_prompt if "answer_pos" in self.axes(hook) else 0

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Those of the blocks; see ModelFacts."""
        assert isinstance(self, nn.Module)
        return [p for name, p in self.named_parameters() if name.startswith("core.") and p.ndim == 2]

    @property
    def is_causal(self) -> bool:
        """False."""
        return False

    @property
    def max_denoising_steps(self) -> int:
        """See ModelFacts."""
        return self.cfg.most_steps

    denoising_orders = SAMPLERS
    denoising_limit = "passes that there are hook points for"

    @torch.no_grad()
    def filled_in(
        self, prompt: Tensor, steps: int, order: Any, *, remask: bool = False, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """See ModelFacts; `order` is the sampler, each row has noise of its own, and the last pass decides all."""
        model, n_answer = cast(Any, self), self.cfg.n_answer
        noise = model.drawn_noise(len(prompt), seed=seed, steps=steps)
        record = torch.cat([prompt, prompt.new_zeros(len(prompt), n_answer)], dim=1)  # what stands there is not read
        logits = model(record, denoising_steps=steps, sampler=order, noise=noise)
        tokens = logits[:, self.cfg.n_prompt - 1 : -1].argmax(-1)
        return tokens, torch.full_like(tokens, steps - 1)

    def drafts(self, task: Any, batch: Any) -> Drafts:
        """See ModelFacts: the rounded prediction of each pass, in as many as there can be."""
        return embedding_drafts(cast(Any, self), task, batch)
