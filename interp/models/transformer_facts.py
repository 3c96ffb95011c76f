"""What the transformer declares about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from transformer_lens.utilities.typed_module_list import TypedModuleList

from interp.models.block import TransformerBlock
from interp.models.config import TransformerConfig
from interp.models.facts import ModelFacts, with_input_axis
from interp.models.fast_pass import FastPass
from interp.models.graph import Graph
from interp.models.hooks import listened_to
from interp.models.kv_cache import KeyValueCache

if TYPE_CHECKING:
    from interp.models.transformer import Transformer

_STREAM = ("batch", "pos", "d_model")
_HEADS = ("batch", "pos", "head", "d_head")
_HEAD_INPUTS = ("batch", "pos", "head", "d_model")
_NEURONS = ("batch", "pos", "d_mlp")
_PAIRS = ("batch", "head", "query_pos", "key_pos")


class TransformerFacts(ModelFacts):
    """See ModelFacts."""

    cfg: TransformerConfig
    blocks: TypedModuleList[TransformerBlock]

    declared_axes = {  # noqa: RUF012  # a constant of the class
        **dict.fromkeys(("hook_embed", "hook_pos_embed", "hook_attn_out", "hook_mlp_in", "hook_mlp_out"), _STREAM),
        **dict.fromkeys(("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_normalized"), _STREAM),
        "hook_scale": ("batch", "pos", "scale"),
        **dict.fromkeys(("hook_q", "hook_k", "hook_v", "hook_z", "hook_rot_q", "hook_rot_k", "hook_w"), _HEADS),
        "hook_beta": ("batch", "pos", "head"),
        **dict.fromkeys(("q_norm.hook_normalized", "k_norm.hook_normalized"), _HEADS),
        **dict.fromkeys(("q_norm.hook_scale", "k_norm.hook_scale"), ("batch", "pos", "head", "scale")),
        **dict.fromkeys(("hook_attn_in", "hook_q_input", "hook_k_input", "hook_v_input", "hook_result"), _HEAD_INPUTS),
        **dict.fromkeys(("hook_attn_scores", "hook_pattern"), _PAIRS),
        **dict.fromkeys(("hook_pre", "hook_pre_linear", "hook_post"), _NEURONS),
    }

    def axes(self, hook: str) -> tuple[str, ...]:
        """As in ModelFacts; ln1 has a further axis while one of the split inputs is listened to, `head` or `reader`."""
        return with_input_axis(self, self.hook_name(hook), super().axes(hook))

    def residual_hooks(self) -> tuple[str, ...]:
        """See ModelFacts."""
        after = (f"blocks.{layer}.hook_resid_post" for layer in range(self.cfg.n_layers))
        return ("blocks.0.hook_resid_pre", *after)

    def carrier_hooks(self) -> tuple[str, ...]:
        """The keys and values of every layer as attention uses them, and PaTH's transitions; see ModelFacts."""
        if not self.is_causal:
            return ()
        keys = "hook_rot_k" if self.cfg.rotary else "hook_k"  # normalised and, where rotary, turned
        names = (keys, "hook_v", *(("hook_w", "hook_beta") if self._carries_along else ()))
        return tuple(f"blocks.{l}.attn.{name}" for l in range(self.cfg.n_layers) for name in names)

    @property
    def _carries_along(self) -> bool:
        """Whether keys are carried on through later tokens (PaTH)."""
        return self.cfg.positional_embedding_type == "path"

    @property
    def is_causal(self) -> bool:
        """See ModelFacts."""
        return self.cfg.attention_dir == "causal"

    def new_cache(self, batch: int) -> KeyValueCache | None:
        """An empty KeyValueCache; None for a bidirectional model."""
        return KeyValueCache(self.cfg, batch) if self.is_causal else None

    def readout_hooks(self) -> tuple[str, ...]:
        """What attention adds, layer by layer; see ModelFacts."""
        return tuple(f"blocks.{layer}.hook_attn_out" for layer in range(self.cfg.n_layers))

    def attention_hooks(self) -> tuple[str, ...]:
        """See ModelFacts."""
        return tuple(f"blocks.{layer}.attn.hook_pattern" for layer in range(self.cfg.n_layers))

    @property
    def has_residual_parts(self) -> bool:
        return True

    def graph(self) -> Graph | None:
        """The input, every head and every MLP; None for a model without MLPs."""
        return None if self.cfg.attn_only else Graph(self.cfg.n_layers, self.cfg.n_heads)

    def fast_pass(self) -> FastPass | None:
        """See ModelFacts; None for a model without MLPs, and under PaTH, whose scores take more than a key."""
        model = cast("Transformer", self)
        return None if self.cfg.attn_only or self._carries_along or listened_to(model) else FastPass(model)

    @property
    def can_enter_layers(self) -> bool:
        """True."""
        return True
