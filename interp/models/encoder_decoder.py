"""The encoder–decoder: a prompt goes in, the answer comes out by cross-attention (Vaswani et al. 2017; T5).

    1. A record is a prompt of n_prompt tokens and the answer behind it. The encoder reads the prompt, both ways.
    2. The decoder reads a start token and the answer up to its last token but one; its position i, which decides token
       i of the answer, stands at that token's place in the record, and has its position embedding.
    3. Logits at position p of the record are those of token p + 1, as in a causal record: those from n_prompt - 1 on
       are the decoder's. Those before say what the encoder's own stream would; nothing is learned from them.

Blocks are numbered along the model, the encoder's first. Hook points, `{l}` a block from 0 on its side:

    hook_embed, hook_pos_embed                                           [batch, pos, d_model], both sides
    blocks.{l}.hook_resid_pre, hook_resid_post, l over both sides        [batch, pos, d_model], both streams
    encoder_blocks.{l}.…                                                 as in transformer.py, at the prompt's positions
    decoder_blocks.{l}.hook_resid_pre, hook_resid_mid, hook_resid_mid2, hook_resid_post  [batch, answer_pos, d_model]
    decoder_blocks.{l}.hook_attn_out, hook_cross_attn_in, hook_cross_attn_out, hook_mlp_out, and hook_mlp_in
    decoder_blocks.{l}.self_attn.…                                       as in transformer.py, at the answer's positions
    decoder_blocks.{l}.cross_attn.hook_q, hook_z, hook_result            [batch, answer_pos, head, …]
    decoder_blocks.{l}.cross_attn.hook_k, hook_v                         [batch, prompt_pos, head, d_head]
    decoder_blocks.{l}.cross_attn.hook_attn_scores, hook_pattern         [batch, head, answer_query_pos, prompt_key_pos]
    decoder_blocks.{l}.ln1, ln2, ln3, and ln_memory on the prompt's stream; ln_final on both

Position p of an activation with answer_pos is that of answer token p.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.typed_module_list import TypedModuleList

from interp.models.architecture import Architecture, answer_behind_prompt
from interp.models.base import HookedModel
from interp.models.block import TransformerBlock
from interp.models.cross_attention import DecoderBlock
from interp.models.embed import POSITIONS, Embed, EndWeights, Unembed
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.encoder_decoder_facts import EncoderDecoderFacts
from interp.models.hooks import live
from interp.models.initial_weights import draw_weights
from interp.models.kv_cache import KeyValueCache
from interp.models.norms import make_norm
from interp.models.relative_bias import RelativeBias
from interp.models.switches import Switches
from interp.models.transformer import layer_number


class StartableEmbed(Embed):
    """Token embedding with a vector of its own for the start of an answer, whose id is d_vocab."""

    def __init__(self, cfg: EncoderDecoderConfig) -> None:
        super().__init__(cfg)
        self.W_start = nn.Parameter(torch.empty(1, cfg.d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] from 0 to d_vocab to vectors [batch, pos, d_model]."""
        return F.embedding(tokens, torch.cat([self.W_E, self.W_start]))


class Stage(nn.Module):
    """Both residual streams before and after a block, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.hook_resid_pre = HookPoint()  # [batch, pos, d_model]
        self.hook_resid_post = HookPoint()  # [batch, pos, d_model]


class EncoderDecoder(EndWeights, Switches, EncoderDecoderFacts, HookedModel):
    """The model of this module's docstring; `build_model(cfg)` makes one with initial weights from `cfg.seed`."""

    def __init__(self, cfg: EncoderDecoderConfig) -> None:
        super().__init__()
        cfg = cfg.as_written
        self.cfg = cfg
        prompt, answer = cfg.side("prompt"), cfg.side("answer")
        self.embed = StartableEmbed(cfg)
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.pos_embed = None
        if cfg.positional_embedding_type in POSITIONS:
            self.pos_embed = POSITIONS[cfg.positional_embedding_type](cfg)
            self.hook_pos_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = TypedModuleList[Stage](Stage() for _ in range(cfg.n_layers))
        self.encoder_blocks = TypedModuleList[TransformerBlock](
            TransformerBlock(prompt, layer=layer) for layer in range(cfg.n_encoder)
        )
        self.decoder_blocks = TypedModuleList[DecoderBlock](
            DecoderBlock(answer, prompt, layer=layer) for layer in range(cfg.n_decoder)
        )
        if cfg.relative_buckets:
            shape = (cfg.relative_buckets, cfg.n_heads)
            own = {"max_distance": cfg.relative_distance}
            for block in self.encoder_blocks:
                block.attn.distance_bias = RelativeBias(*shape, both_ways=True, **own)
            for block in self.decoder_blocks:
                block.self_attn.distance_bias = RelativeBias(*shape, both_ways=False, **own)
        self.ln_final = make_norm(cfg.d_model, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.unembed = Unembed(cfg, embed=self.embed)
        self.reset_parameters()
        self.to(getattr(torch, cfg.dtype))
        self.setup()

    def reset_parameters(self) -> None:
        """Draw every weight anew from `cfg.seed`, see `draw_weights`."""
        draw_weights(self, depth=self.cfg.n_layers)

    def compute(self, tokens: Tensor, *, start_at_layer: int | None = None, stop_at_layer: int | None = None) -> Tensor:
        """Logits [batch, pos, d_vocab] of the token behind each position; those of the last position repeat.

        Args:
            tokens: integers [batch, pos], n_prompt < pos <= n_ctx, prompt and answer; the last of them is not read.
                With `start_at_layer` both residual streams side by side, [batch, pos, d_model].
            start_at_layer: the first block to run, the encoder's before the decoder's; n_layers runs only the
                unembedding. Negative counts from the end.
            stop_at_layer: the first block not to run; both streams before it are returned in place of logits.
        """
        cfg = self.cfg
        start = layer_number("start_at_layer", start_at_layer, default=0, n_layers=cfg.n_layers)
        stop = layer_number("stop_at_layer", stop_at_layer, default=cfg.n_layers, n_layers=cfg.n_layers)
        if start > stop:
            raise ValueError(f"start_at_layer must not be past stop_at_layer; got {start_at_layer} and {stop_at_layer}")
        if start_at_layer is None:
            streams = self._embed(self.inputs(tokens))
        else:
            streams = tokens
            if streams.ndim != 3 or streams.shape[-1] != cfg.d_model or not streams.is_floating_point():
                raise ValueError(
                    f"with start_at_layer the input must be residual streams [batch, pos, {cfg.d_model}]; "
                    f"got {streams.dtype} {list(streams.shape)}"
                )
        sides = self.with_gradient(streams).split([cfg.n_prompt, streams.shape[1] - cfg.n_prompt], dim=1)
        for layer in range(start, stop):
            prompt, answer = self._both(self.blocks[layer].hook_resid_pre, *sides)
            if layer < cfg.n_encoder:
                prompt = self.encoder_blocks[layer](prompt)
            else:
                answer = self.decoder_blocks[layer - cfg.n_encoder](answer, prompt)
            sides = self._both(self.blocks[layer].hook_resid_post, prompt, answer)
        streams = torch.cat(sides, dim=1)
        if stop_at_layer is not None:
            return streams
        out = self.unembed(self.ln_final(streams))
        return torch.cat([out[:, 1:], out[:, -1:]], dim=1)  # what is read at p was computed at token p + 1

    def _both(self, point: HookPoint, prompt: Tensor, answer: Tensor) -> tuple[Tensor, Tensor]:
        """The two streams past a hook point that holds them side by side."""
        if not live(point):
            return prompt, answer
        prompt, answer = point(torch.cat([prompt, answer], dim=1)).split([prompt.shape[1], answer.shape[1]], dim=1)
        return prompt, answer

    def inputs(self, tokens: Tensor) -> Tensor:
        """What is read at each position of a record: the prompt, the start token (id d_vocab), the answer moved on by
        one. ValueError where tokens are no such record."""
        cfg = self.cfg
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"tokens must be int64 [batch, pos]; got {tokens.dtype} {list(tokens.shape)}")
        if tokens.numel() and not (int(tokens.min()) >= 0 and int(tokens.max()) < cfg.d_vocab):
            low, high = int(tokens.min()), int(tokens.max())
            raise ValueError(f"tokens must be from 0 to {cfg.d_vocab - 1}; got {low} to {high}")
        if not cfg.n_prompt < tokens.shape[1] <= cfg.n_ctx:
            raise ValueError(
                f"tokens must be a prompt of {cfg.n_prompt} and up to {cfg.n_answer} of an answer, at most n_ctx = "
                f"{cfg.n_ctx} long; got {tokens.shape[1]}"
            )
        start = torch.full_like(tokens[:, :1], cfg.d_vocab)
        return torch.cat([tokens[:, : cfg.n_prompt], start, tokens[:, cfg.n_prompt : -1]], dim=1)

    def _embed(self, inputs: Tensor, *, start: int = 0) -> Tensor:
        """Inputs [batch, pos], which stand at positions from `start` on, as residual streams."""
        resid = self.hook_embed(self.with_gradient(self.embed(inputs)))
        if self.pos_embed is None:
            return resid
        positions = self.pos_embed(inputs, start=start)
        if live(self.hook_pos_embed):  # with a batch dimension, for hooks and ActivationCache
            positions = self.hook_pos_embed(self.with_gradient(positions.expand_as(resid).clone()))
        return resid + positions

    @torch.no_grad()
    def read_prompt(self, prompt: Tensor) -> Tensor:
        """The prompt's residual stream behind the encoder, [batch, n_prompt, d_model], from tokens."""
        resid = self._embed(prompt.long())
        for block in self.encoder_blocks:
            resid = block(resid)
        return resid

    @torch.no_grad()
    def write_on(self, prompt: Tensor, read: Tensor, past: KeyValueCache) -> Tensor:
        """Logits [batch, k, d_vocab] of k further positions of the answer.

        Args:
            prompt: what `read_prompt` gives.
            read: what the decoder reads there, long [batch, k]: the start token d_vocab first, then the answer.
            past: keys and values of the answer's positions before them; theirs are added.
        """
        past.require_room(self.cfg.side("answer"), read)
        resid = self._embed(read, start=self.cfg.n_prompt + past.length)
        for block in self.decoder_blocks:
            resid = block(resid, prompt, past=past)
        past.length += read.shape[1]
        return self.unembed(self.ln_final(resid))

    def new_answer(self, batch: int) -> KeyValueCache:
        """An empty cache of the decoder's keys and values."""
        return KeyValueCache(self.cfg.side("answer"), batch)

    @property
    def fixed_point(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Greedy answers to prompts in a few passes of the decoder, the prompt read once; None where a hook would see
        the passes."""
        from interp.models.answers import fixed_point_answers  # it imports this module

        hooked = any(module._forward_hooks or module._forward_pre_hooks for module in self.modules())
        return None if hooked or self.training else partial(fixed_point_answers, self)


def suits(task: Any) -> str | None:
    """Whether the answer stands as one block behind the prompt; the sentence that says why not, or None."""
    if answer_behind_prompt(task):
        return None
    return f"an encoder–decoder writes an answer that stands behind its prompt; the task {task.name} is not made so"


ENCODER_DECODER_ARCHITECTURE = Architecture(
    config=EncoderDecoderConfig,
    build=EncoderDecoder,
    words="An encoder that reads the prompt both ways, and a decoder that writes the answer by cross-attention to it.",
    suits=suits,
)
