"""Models that hold a state: pre-norm residual blocks, each around one recurrence, without positions.

Hook points that all of them have, `{l}` a layer from 0; those of the recurrence are in the architecture's own file:

    hook_embed                                                   [batch, pos, d_model]
    blocks.{l}.hook_resid_pre, hook_resid_post                   [batch, pos, d_model]
    blocks.{l}.hook_mixer_out                                    [batch, pos, d_model], what the recurrence writes
    blocks.{l}.hook_resid_mid, hook_mlp_out (with d_mlp)         [batch, pos, d_model]
    blocks.{l}.mlp.hook_pre, hook_post (with d_mlp)              [batch, pos, d_mlp]
    blocks.{l}.ln1.hook_scale, ln2.…, ln_final.…                 [batch, pos, 1]
    blocks.{l}.ln1.hook_normalized, ln2.…, ln_final.…            [batch, pos, d_model]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.typed_module_list import TypedModuleList

from interp.models.base import HookedModel
from interp.models.embed import Embed, EndWeights, Unembed
from interp.models.mlp import MLP
from interp.models.norms import make_norm
from interp.models.state_cache import StateCache
from interp.models.state_configs import StateConfig

_STREAM = ("batch", "pos", "d_model")


class Mixer(nn.Module):
    """A recurrence along positions. A subclass defines `forward`, `reset_parameters` and what carries its state."""

    carriers: tuple[str, ...]  # hook points through which earlier positions reach later ones, all together
    cached = {"hook_carry": "carry", "hook_ssm_state": "state", "conv.hook_window": "window"}  # noqa: RUF012  # in `past`
    matrices: tuple[str, ...]  # parameters that are hidden matrices, one linear map each

    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """Draw the weights anew."""
        raise NotImplementedError

    def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        """What is added to the residual stream, [batch, pos, d_model], given the normalised one.

        Args:
            x: [batch, pos, d_model].
            past: the layer's part of a StateCache; empty at the start. Brought up to date.
        """
        raise NotImplementedError


class StateBlock(nn.Module):
    """`resid_mid = resid_pre + mixer(ln1(resid_pre))`, then, with d_mlp, `resid_post = resid_mid + mlp(ln2(…))`."""

    hook_out_is_single_residual_stream = True  # what TransformerLens's logit lens asks

    def __init__(self, cfg: StateConfig, name: str, mixer: Mixer) -> None:
        super().__init__()
        norm = {"kind": cfg.normalization_type, "eps": cfg.eps, "bias": cfg.use_bias}
        self.mixer_name = name
        self.hook_resid_pre = HookPoint()  # [batch, pos, d_model]
        self.ln1 = make_norm(cfg.d_model, **norm)
        self.add_module(name, mixer)
        self.hook_mixer_out = HookPoint()  # [batch, pos, d_model]
        self.mlp = None
        if cfg.d_mlp:
            self.hook_resid_mid = HookPoint()  # [batch, pos, d_model]
            self.ln2 = make_norm(cfg.d_model, **norm)
            self.mlp = MLP(cast(Any, cfg))
            self.hook_mlp_out = HookPoint()  # [batch, pos, d_model]
        self.hook_resid_post = HookPoint()  # [batch, pos, d_model]

    @property
    def recurrence(self) -> Mixer:
        """The block's recurrence, whatever its name."""
        return getattr(self, self.mixer_name)

    def forward(self, resid: Tensor, past: dict[str, Tensor]) -> Tensor:
        """Residual stream [batch, pos, d_model] in and out; `past` is the layer's state, brought up to date."""
        resid = self.hook_resid_pre(resid)
        resid = resid + self.hook_mixer_out(self.recurrence(self.ln1(resid), past))
        if self.mlp is not None:
            resid = self.hook_resid_mid(resid)
            resid = resid + self.hook_mlp_out(self.mlp(self.ln2(resid)))
        return self.hook_resid_post(resid)


class StateModel(EndWeights, HookedModel):
    """A model of this module's docstring. A subclass makes the mixers: `mixer_name` and `_mixer(cfg)`.

    Raises:
        ValueError: `tokens` are no integers [batch, pos], or hold an id outside the vocabulary.
    """

    mixer_name: str

    def __init__(self, cfg: StateConfig) -> None:
        super().__init__()
        cfg = cfg.as_written  # of another model's cfg: without its state
        self.cfg = cfg
        self.embed = Embed(cast(Any, cfg))
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = TypedModuleList[StateBlock](
            StateBlock(cfg, self.mixer_name, self._mixer(cfg)) for _ in range(cfg.n_layers)
        )
        self.ln_final = make_norm(cfg.d_model, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.unembed = Unembed(cast(Any, cfg), embed=self.embed)
        self.reset_parameters()
        self.to(getattr(torch, cfg.dtype))
        self.setup()

    def _mixer(self, cfg: Any) -> Mixer:
        raise NotImplementedError

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every weight anew from `cfg.seed`: outside the recurrences as a transformer's (see transformer.py)."""
        generator = torch.Generator().manual_seed(self.cfg.seed)
        inside = {id(parameter) for block in self.blocks for parameter in block.recurrence.parameters()}
        for name, parameter in self.named_parameters():
            if id(parameter) in inside:
                continue
            if parameter.ndim == 2:
                deep = math.sqrt(2 * self.cfg.n_layers) if name.endswith("mlp.fc_out.weight") else 1.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * self.cfg.init_range / deep)
            elif name.endswith(("bias", ".b")):
                parameter.zero_()
            else:
                parameter.fill_(1.0)
        for block in self.blocks:
            block.recurrence.reset_parameters(generator, n_layers=self.cfg.n_layers)

    def compute(  # type: ignore[override]
        self,
        tokens: Tensor,
        *,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: StateCache | None = None,
    ) -> Tensor:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos], of any length.

        Args:
            tokens: integers [batch, pos]; with `start_at_layer`, a residual stream instead, [batch, pos, d_model],
                which enters that block as its resid_pre.
            start_at_layer: the first block to run; n_layers runs only the unembedding. Negative counts from the end.
            stop_at_layer: the first block not to run; the residual stream before it is returned in place of logits,
                neither normalised nor unembedded. Negative counts from the end.
            past_kv_cache: the states after earlier tokens, which `tokens` follow; brought up to date, edits included.
                (The name is TransformerLens's; what it holds are states.)
        """
        n_layers = self.cfg.n_layers
        start = self._layer("start_at_layer", start_at_layer, 0)
        stop = self._layer("stop_at_layer", stop_at_layer, n_layers)
        if start > stop:
            raise ValueError(f"start_at_layer must not be past stop_at_layer; got {start_at_layer} and {stop_at_layer}")
        if past_kv_cache is not None:
            if start_at_layer is not None or stop_at_layer is not None:
                raise ValueError("past_kv_cache goes through every layer: no start_at_layer or stop_at_layer with it")
            past_kv_cache.require_rows(len(tokens))
            past_kv_cache.convert(torch.promote_types(self.dtype, torch.float32), self.device)
        resid = self._embed(tokens) if start_at_layer is None else self._require_residual(tokens)
        resid = self.with_gradient(resid)
        for layer in range(start, stop):
            resid = self.blocks[layer](resid, {} if past_kv_cache is None else past_kv_cache.layers[layer])
        if past_kv_cache is not None:
            past_kv_cache.length += tokens.shape[1]
        return resid if stop_at_layer is not None else self.unembed(self.ln_final(resid))

    def new_cache(self, batch: int) -> StateCache:
        """See ModelFacts."""
        return StateCache(self.cfg.n_layers, batch)

    def _layer(self, name: str, layer: int | None, default: int) -> int:
        n_layers = self.cfg.n_layers
        if layer is None:
            return default
        if not -n_layers <= layer <= n_layers:
            raise ValueError(f"{name} must be from {-n_layers} to {n_layers}; got {layer}")
        return layer + n_layers if layer < 0 else layer

    def _embed(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"tokens must be int64 [batch, pos]; got {tokens.dtype} {list(tokens.shape)}")
        if not tokens.shape[1]:
            raise ValueError(f"tokens must be [batch, pos] with at least one position; got {list(tokens.shape)}")
        try:
            return self.hook_embed(self.with_gradient(self.embed(tokens)))
        except IndexError:
            raise ValueError(
                f"tokens must be from 0 to {self.cfg.d_vocab - 1}; got {int(tokens.min())} to {int(tokens.max())}"
            ) from None

    def _require_residual(self, resid: Tensor) -> Tensor:
        if resid.ndim != 3 or resid.shape[-1] != self.cfg.d_model or not resid.is_floating_point():
            raise ValueError(
                f"with start_at_layer the input must be a residual stream [batch, pos, {self.cfg.d_model}]; "
                f"got {resid.dtype} {list(resid.shape)}"
            )
        return resid

    def hook_name(self, hook: str) -> str:
        """As in ModelFacts; what has attention's name is refused by what the model has instead."""
        if ".attn." in hook and hook not in self.hook_dict:
            raise ValueError(
                f"the model has no hook point {hook!r}: the architecture {self.cfg.architecture!r} has no attention, "
                f"it holds a state, at {self.carrier_hooks()[0]}"
            )
        return super().hook_name(hook)

    declared_axes = {  # noqa: RUF012  # a constant of the class
        **dict.fromkeys(("hook_embed", "hook_mixer_out", "hook_mlp_out", "hook_normalized"), _STREAM),
        **dict.fromkeys(("hook_resid_pre", "hook_resid_mid", "hook_resid_post"), _STREAM),
        "hook_scale": ("batch", "pos", "scale"),
        **dict.fromkeys(("mlp.hook_pre", "mlp.hook_post"), ("batch", "pos", "d_mlp")),
    }

    @property
    def longest(self) -> int | None:
        """None: no sequence is too long for a state."""
        return None

    @property
    def can_enter_layers(self) -> bool:
        """True."""
        return True

    def residual_hooks(self) -> tuple[str, ...]:
        """See ModelFacts."""
        return ("blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(self.cfg.n_layers)))

    def carrier_hooks(self) -> tuple[str, ...]:
        """The states of every layer; see ModelFacts."""
        return tuple(
            f"blocks.{layer}.{self.mixer_name}.{part}"
            for layer, block in enumerate(self.blocks)
            for part in block.recurrence.carriers
        )

    @property
    def carries_state(self) -> bool:
        """True; see ModelFacts."""
        return True

    def cache_holding(self, carried: Mapping[str, Tensor]) -> StateCache:
        """The cache of a model that holds these states, from which it reads on.

        Args:
            carried: by carrier hook, all of them, what it holds at one position, [batch, …]. Gradients flow through.

        Raises:
            KeyError: a carrier is missing.
        """
        cache = self.new_cache(len(next(iter(carried.values()))))
        for layer, block in enumerate(self.blocks):
            for part in block.recurrence.carriers:
                name = f"blocks.{layer}.{self.mixer_name}.{part}"
                cache.layers[layer][block.recurrence.cached[part]] = carried[name]
        return cache

    def readout_hooks(self) -> tuple[str, ...]:
        """What the recurrence of each layer adds; see ModelFacts."""
        return tuple(f"blocks.{layer}.hook_mixer_out" for layer in range(self.cfg.n_layers))

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices inside the blocks, each one linear map, never a stack of them."""
        found = []
        for block in self.blocks:
            found += [block.recurrence.get_parameter(name) for name in block.recurrence.matrices]
            found += [] if block.mlp is None else [block.mlp.fc_in.weight, block.mlp.fc_out.weight]
        return found
