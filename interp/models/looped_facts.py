"""What the looped transformer declares about itself."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from interp.models.drafts import Drafts, loop_drafts
from interp.models.facts import ModelFacts, with_input_axis
from interp.models.looped_config import LoopedConfig
from interp.models.transformer_facts import TransformerFacts

_PLACE = re.compile(r"^(prelude|coda|steps\.(\d+))\.blocks\.(\d+)\.")
_STEP = re.compile(r"^steps\.(\d+)\.")


class LoopedFacts(ModelFacts):
    """See ModelFacts. Layers are counted as they run: the prelude's, the core's of every step, the coda's."""

    cfg: LoopedConfig

    declared_axes = {  # noqa: RUF012  # a constant of the class
        **TransformerFacts.declared_axes,
        "hook_input": ("batch", "pos", "d_model"),
        "hook_carry": ("batch", "pos", "d_model"),
        "hook_halt_logit": ("batch", "step"),
    }

    def axes(self, hook: str) -> tuple[str, ...]:
        """As in ModelFacts; the stacked carry has an axis of steps, and ln1 one more under split inputs."""
        name = self.hook_name(hook)
        if name == "hook_carry":
            return ("batch", "step", "pos", "d_model")
        return with_input_axis(self, name, super().axes(hook))

    def layer_of(self, hook: str) -> int | None:
        """See ModelFacts."""
        found = _PLACE.match(self.hook_name(hook))
        if found is None:
            return None
        part, step, layer = found[1], found[2], int(found[3])
        before = self.cfg.n_prelude
        if part == "prelude":
            return layer
        if part == "coda":
            return before + self.cfg.n_loops * self.cfg.n_layers + layer
        return before + int(step) * self.cfg.n_layers + layer

    def step_of(self, hook: str) -> int | None:
        """The loop step that a hook point belongs to, from 0; None for what is run once or holds all steps."""
        found = _STEP.match(self.hook_name(hook))
        return None if found is None else int(found[1])

    def residual_hooks(self) -> tuple[str, ...]:
        """The stream where it is a whole cut: () where the input enters every step, or the answer mixes steps."""
        if self.cfg.injection != "none" or self.cfg.halting != "none" or self.cfg.carry_head or self.cfg.carry_norm:
            return ()
        blocks = self._blocks()
        return (f"{blocks[0]}.hook_resid_pre", *(f"{block}.hook_resid_post" for block in blocks))

    def step_hooks(self) -> tuple[str, ...]:
        """The carry after each loop step."""
        return tuple(f"steps.{t}.hook_carry" for t in range(self.cfg.n_loops))

    def carrier_hooks(self) -> tuple[str, ...]:
        """Keys and values of every layer that runs; see ModelFacts."""
        if not self.is_causal:
            return ()
        keys = "hook_rot_k" if self.cfg.rotary else "hook_k"
        return tuple(f"{block}.attn.{name}" for block in self._blocks() for name in (keys, "hook_v"))

    def attention_hooks(self) -> tuple[str, ...]:
        """See ModelFacts."""
        return tuple(f"{block}.attn.hook_pattern" for block in self._blocks())

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Those of all blocks, of the join and of the carry head."""
        assert isinstance(self, nn.Module)
        parts = ("prelude.", "core.", "coda.", "join.", "carry_head.")
        return [p for name, p in self.named_parameters() if name.startswith(parts) and p.ndim == 2]

    @property
    def is_causal(self) -> bool:
        """See ModelFacts."""
        return self.cfg.attention_dir == "causal"

    @property
    def max_loop_steps(self) -> int:
        """See ModelFacts."""
        return self.cfg.most_loops

    def drafts(self, task: Any, batch: Any) -> Drafts:
        """See ModelFacts: after each step of the loop."""
        return loop_drafts(self, task, batch)

    def _blocks(self) -> list[str]:
        """The blocks in the order in which they run."""
        cfg = self.cfg
        return [
            *(f"prelude.blocks.{l}" for l in range(cfg.n_prelude)),
            *(f"steps.{t}.blocks.{l}" for t in range(cfg.n_loops) for l in range(cfg.n_layers)),
            *(f"coda.blocks.{l}" for l in range(cfg.n_coda)),
        ]
