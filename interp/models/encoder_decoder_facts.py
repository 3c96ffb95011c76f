"""What the encoder–decoder declares about itself."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.facts import ModelFacts, on_sides
from interp.models.transformer_facts import TransformerFacts
from interp.models.two_sided_graph import TwoSidedGraph

_BLOCK = re.compile(r"^(encoder_|decoder_|)blocks\.(\d+)\.(.*)$")
_OF_PROMPT = ("hook_k", "hook_v", "hook_rot_k", "hook_k_input", "hook_v_input", "k_norm")  # in cross-attention


class EncoderDecoderFacts(ModelFacts):
    """See ModelFacts."""

    cfg: EncoderDecoderConfig
    encoder_blocks: Any
    decoder_blocks: Any

    declared_axes = {  # noqa: RUF012  # a constant of the class
        **TransformerFacts.declared_axes,
        **dict.fromkeys(("hook_cross_attn_in", "hook_cross_attn_out", "hook_resid_mid2"), ("batch", "pos", "d_model")),
    }

    has_sides = True

    def axes(self, hook: str) -> tuple[str, ...]:
        """As in ModelFacts; positions are `prompt_pos` or `answer_pos` on a side, `pos` where both are side by side.

        Patterns go by query_pos and key_pos with the side before it, such as answer_query_pos and prompt_key_pos.
        """
        axes, found = super().axes(hook), _BLOCK.match(self.hook_name(hook))
        if found is None or not found[1]:
            return axes
        side, layer, rest = found[1], int(found[2]), found[3]
        parts = rest.split(".")
        keys = "answer" if side == "decoder_" and parts[0] != "cross_attn" else "prompt"
        own = "prompt" if side == "encoder_" else "answer"
        if parts[0] == "ln_memory" or (parts[0] == "cross_attn" and parts[1] in _OF_PROMPT):
            own = "prompt"
        named = {"pos": f"{own}_pos", "query_pos": f"{own}_query_pos", "key_pos": f"{keys}_key_pos"}
        axes = tuple(named.get(axis, axis) for axis in axes)
        further = self._input_axes(side, layer).get(parts[0])
        return axes if further is None else (*axes[:2], further, *axes[2:])

    def _input_axes(self, side: str, layer: int) -> dict[str, str]:
        if side == "decoder_":
            return self.decoder_blocks[layer].input_axes()
        axis = self.encoder_blocks[layer].input_axis()
        return {} if axis is None else {"ln1": axis}

    def layer_of(self, hook: str) -> int | None:
        """The block, counted along the model: the encoder's first."""
        found = _BLOCK.match(self.hook_name(hook))
        if found is None:
            return None
        return int(found[2]) + (self.cfg.n_encoder if found[1] == "decoder_" else 0)

    def residual_hooks(self) -> tuple[str, ...]:
        """Both streams side by side; see ModelFacts."""
        after = (f"blocks.{layer}.hook_resid_post" for layer in range(self.cfg.n_layers))
        return ("blocks.0.hook_resid_pre", *after)

    def attention_hooks(self) -> tuple[str, ...]:
        """The encoder's patterns, then each decoder block's self- and cross-attention; see ModelFacts."""
        encoder = (f"encoder_blocks.{layer}.attn.hook_pattern" for layer in range(self.cfg.n_encoder))
        decoder = (
            f"decoder_blocks.{layer}.{part}.hook_pattern"
            for layer in range(self.cfg.n_decoder)
            for part in ("self_attn", "cross_attn")
        )
        return (*encoder, *decoder)

    def on_record(self, hook: str, activation: Tensor) -> Tensor:
        """See ModelFacts; 0 on the other side."""
        return on_sides(activation, self.axes(hook), n_prompt=self.cfg.n_prompt, n_ctx=self.cfg.n_ctx)

    def first_position(self, hook: str) -> int:
        """n_prompt at the answer's hooks; see ModelFacts."""
        return self.cfg.n_prompt if any(axis in self.axes(hook) for axis in ("answer_pos", "answer_query_pos")) else 0

    def graph(self) -> TwoSidedGraph:
        """The input of both sides, every head of self- and cross-attention, and every MLP."""
        cfg = self.cfg
        return TwoSidedGraph(cfg.n_layers, cfg.n_heads, n_encoder=cfg.n_encoder, n_prompt=cfg.n_prompt)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Those of both sides' blocks; see ModelFacts."""
        assert isinstance(self, nn.Module)
        inside = ("encoder_blocks.", "decoder_blocks.")
        return [
            p for name, p in self.named_parameters() if name.startswith(inside) and p.ndim == 2 and "W_rel" not in name
        ]

    @property
    def is_causal(self) -> bool:
        """False: the prompt is read both ways."""
        return False

    @property
    def can_enter_layers(self) -> bool:
        """True."""
        return True
