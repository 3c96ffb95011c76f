"""Continuous diffusion: an answer's embeddings are denoised, beside a prompt that is never noised (Li et al. 2022).

    1. Every token has a learned embedding e(v) of length sqrt(d_embed), so that none can shrink into the noise.
    2. A pass reads prompt embeddings, noised answer embeddings x_t, what the pass before it predicted
       (self-conditioning, Chen et al. 2022) and the time t, through a bidirectional transformer, and predicts x_0.
    3. A prediction is rounded to a token by softmax over its products with the embeddings; as all are of one length,
       the likeliest token is the nearest embedding.
    4. Training (diffusion_lm_training.py): squared error of the prediction and cross-entropy of its rounding, which
       keeps embeddings apart: were two of them one, their tokens could not be told.

`model(tokens)` makes `denoising_steps` passes from noise drawn once (`fixed_noise`, the same for every row), and gives
the last one's logits; whatever stands in the answer's place is not read. Logits at position p are those of token p + 1,
as in a causal record; activations of token p stand at position p.

Hook points, `{t}` a pass from 0, `{l}` a block from 0; `blocks` have all hook points of a transformer's, apart for
every pass over one set of weights, so that a cache keeps every pass and a patch at pass 3 touches pass 3 alone:

    hook_embed                          [batch, prompt_pos, d_model], the prompt
    hook_pos_embed                      [batch, pos, d_model]
    steps.{t}.hook_noised_embed         [batch, answer_pos, d_embed], x_t; an edit is what the passes go on from
    steps.{t}.hook_self_condition       [batch, answer_pos, d_embed], the prediction of pass t - 1; 0 at the first
    steps.{t}.hook_time_embed           [batch, d_model], added at the answer's positions
    steps.{t}.blocks.{l}.…              t < max_steps
    steps.{t}.ln_final.…                [batch, pos, …]
    steps.{t}.hook_prediction           [batch, pos, d_embed], x_0 as this pass has it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.base import HookedModel
from interp.models.block import TransformerBlock
from interp.models.diffusion_lm_config import DiffusionLMConfig, Sampler
from interp.models.diffusion_lm_facts import DiffusionLMFacts
from interp.models.embed import POSITIONS
from interp.models.hooks import live
from interp.models.initial_weights import draw_weights
from interp.models.looped import view
from interp.models.noise_schedules import bound, denoise_embeddings, noised, signal
from interp.models.norms import make_norm
from interp.models.switches import Switches

_FREQUENCIES = 16  # waves that tell the time to a pass
_NOISE_SEED = 0  # of `fixed_noise`


class OnePass(NamedTuple):
    """What one pass over a true answer, noised, gives."""

    logits: Tensor  # [batch, pos, d_vocab]
    predicted: Tensor  # [batch, answer_pos, d_embed]
    clean: Tensor  # [batch, answer_pos, d_embed], the embeddings of the answer


class SphereEmbed(nn.Module):
    """Token embeddings of length sqrt(d_embed), W_E [d_vocab, d_embed] before they are brought to it."""

    def __init__(self, cfg: DiffusionLMConfig) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_embed))

    @property
    def table(self) -> Tensor:
        """The embeddings in use, [d_vocab, d_embed]."""
        return F.normalize(self.W_E, dim=-1) * math.sqrt(self.W_E.shape[1])

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] to vectors [batch, pos, d_embed]."""
        return F.embedding(tokens, self.table)


class DenoisingPass(nn.Module):
    """One pass's hook points over the shared weights. It holds no weights of its own: its state dict is empty."""

    def __init__(self, core: nn.ModuleList, ln_final: nn.Module) -> None:
        super().__init__()
        self.hook_noised_embed = HookPoint()  # [batch, answer_pos, d_embed]
        self.hook_self_condition = HookPoint()  # [batch, answer_pos, d_embed]
        self.hook_time_embed = HookPoint()  # [batch, d_model]
        self.blocks = nn.ModuleList(view(block) for block in core)
        self.ln_final = view(ln_final)
        self.hook_prediction = HookPoint()  # [batch, pos, d_embed]

    def state_dict(self, *args: Any, destination: Any = None, **options: Any) -> Any:
        """Nothing: the weights are the model's."""
        return {} if destination is None else destination


class DiffusionLM(Switches, DiffusionLMFacts, HookedModel):
    """The model of this module's docstring; `build_model(cfg)` makes one with initial weights from `cfg.seed`."""

    def __init__(self, cfg: DiffusionLMConfig) -> None:
        super().__init__()
        cfg = cfg.as_written
        self.cfg = cfg
        self.embed = SphereEmbed(cfg)
        self.embed_noised = nn.Linear(2 * cfg.d_embed, cfg.d_model, bias=False)  # x_t beside what was predicted
        self.embed_time = nn.Linear(2 * _FREQUENCIES, cfg.d_model, bias=False)
        self.hook_embed = HookPoint()  # [batch, prompt_pos, d_model]
        self.pos_embed = None
        if cfg.positional_embedding_type in POSITIONS:
            self.pos_embed = POSITIONS[cfg.positional_embedding_type](cfg)
            self.hook_pos_embed = HookPoint()  # [batch, pos, d_model]
        # The weights; their own hook points are left out below, each pass has others.
        self.core = nn.ModuleList(TransformerBlock(cfg, layer=layer) for layer in range(cfg.n_layers))
        self.ln_final = make_norm(cfg.d_model, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.unembed = nn.Linear(cfg.d_model, cfg.d_embed, bias=cfg.use_bias)
        self.steps = nn.ModuleList(DenoisingPass(self.core, self.ln_final) for _ in range(cfg.most_steps))
        self.reset_parameters()
        self.to(getattr(torch, cfg.dtype))
        self.register_load_state_dict_post_hook(_forget_steps)
        self.setup()
        for name in list(self.hook_dict):
            if name.startswith(("core.", "ln_final.")):
                del self.hook_dict[name], self.mod_dict[name]
            elif name.endswith(("_input", "hook_attn_in")) and ".attn." in name:
                self.add_alias(name.replace(".attn.", "."), name)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw every weight anew from `cfg.seed`; tokens enter and leave the stream as in a transformer."""
        draw_weights(self, depth=self.cfg.n_layers)
        for each in (self.embed_noised, self.unembed):  # embeddings are sqrt(d_embed) long
            each.weight.div_(math.sqrt(self.cfg.d_embed))

    @property
    def W_E(self) -> Tensor:
        """The embeddings as the stream has them, [d_vocab, d_model]; computed, so writing to it changes nothing."""
        return self.embed.table @ self.embed_noised.weight[:, : self.cfg.d_embed].T

    @property
    def W_U(self) -> Tensor:
        """From the normalised stream to logits, [d_model, d_vocab]; computed."""
        return self.unembed.weight.T @ self.embed.table.T

    @property
    def b_U(self) -> Tensor:
        """[d_vocab]; computed."""
        bias = self.unembed.bias
        return self.embed.table.new_zeros(self.cfg.d_vocab) if bias is None else self.embed.table @ bias

    def fixed_noise(self, steps: int, n_answer: int) -> Tensor:
        """The noise of `model(tokens)`, [step, 1, answer_pos, d_embed]: a function of nothing else than its shape."""
        generator = torch.Generator().manual_seed(_NOISE_SEED)
        drawn = torch.randn(self.cfg.most_steps, 1, self.cfg.n_answer, self.cfg.d_embed, generator=generator)
        return drawn[:steps, :, :n_answer].to(self.embed.W_E)

    def drawn_noise(self, n: int, *, seed: int, steps: int | None = None) -> Tensor:
        """Noise for `compute`, another for every row, [step, n, answer_pos, d_embed]."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(self._checked_steps(steps), n, self.cfg.n_answer, self.cfg.d_embed, generator=generator).to(
            self.embed.W_E
        )

    def compute(
        self,
        tokens: Tensor,
        *,
        denoising_steps: int | None = None,
        sampler: Sampler | None = None,
        clamp: bool | None = None,
        noise: Tensor | None = None,
        at: Tensor | None = None,
        conditioned: bool = False,
        returns: Literal["logits", "passes"] = "logits",
    ) -> Any:
        """Logits [batch, pos, d_vocab] of the token behind each position; those of the last position repeat.

        Args:
            tokens: integers [batch, pos], pos <= n_ctx; behind the prompt they are not read, unless with `at`.
            denoising_steps: passes from noise to the answer; None: as the configuration says.
            sampler, clamp: see DiffusionLMConfig; None: as it says.
            noise: standard normal, [step, 1 or batch, answer_pos, d_embed], by default `fixed_noise`.
            at: of each row, in [0, 1]: the answer in `tokens` is noised up to this time and denoised in one pass, with
                the hook points of pass 0; an OnePass is returned.
            conditioned: with `at`: a first pass, without gradients, gives what the second is conditioned on.
            returns: "passes" for what every pass read and predicted, a `Passes`.

        Raises:
            ValueError: tokens that do not fit, or passes or noise out of range.
        """
        prompt, answer = self._checked(tokens)
        stream = self._prompt_stream(prompt, tokens)
        if at is not None:
            return self._one_pass(stream, answer, at, noise, conditioned=conditioned)
        steps = self._checked_steps(denoising_steps)
        shape = (steps, len(tokens), answer.shape[1], self.cfg.d_embed)
        noise = self.fixed_noise(steps, answer.shape[1]) if noise is None else noise
        if len(noise) < steps or noise.shape[1] not in (1, shape[1]) or noise.shape[2:] != shape[2:]:
            raise ValueError(f"noise must be {list(shape)}, or the same for every row; got {list(noise.shape)}")
        last: list[Tensor] = []

        def denoiser(step: int, t: float, x: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
            x, found = self._pass(step, x.new_full((len(x),), t), stream, x, guess)
            last[:] = [found]
            return x, found[:, stream.shape[1] - answer.shape[1] :]

        found = denoise_embeddings(
            denoiser,
            noise[:steps].expand(shape),
            schedule=self.cfg.schedule,
            sampler=self.cfg.sampler if sampler is None else sampler,
            clamp=self.nearest if (self.cfg.clamp if clamp is None else clamp) else None,
        )
        return found if returns == "passes" else self.rounded(last[0], shift=True)

    def rounded(self, predicted: Tensor, *, shift: bool = False) -> Tensor:
        """Logits [..., d_vocab] of predictions [..., d_embed]; `shift` moves them to the position before their own."""
        logits = predicted @ self.embed.table.T
        return torch.cat([logits[:, 1:], logits[:, -1:]], dim=1) if shift else logits

    def nearest(self, predicted: Tensor) -> Tensor:
        """The nearest embedding to each prediction, [..., d_embed] both."""
        return self.embed(self.rounded(predicted).argmax(-1))

    def _one_pass(
        self, stream: Tensor, answer: Tensor, at: Tensor, noise: Tensor | None, *, conditioned: bool
    ) -> OnePass:
        clean, n_prompt = self.embed(answer), stream.shape[1] - answer.shape[1]
        x = noised(
            clean,
            self.fixed_noise(1, answer.shape[1])[0] if noise is None else noise[0],
            signal(self.cfg.schedule, at)[:, None, None],
        )
        guess = torch.zeros_like(x)
        if conditioned:
            with torch.no_grad():
                guess = self._pass(0, at, stream, x, guess)[1][:, n_prompt:]
        _, found = self._pass(0, at, stream, x, guess)
        return OnePass(self.rounded(found, shift=True), found[:, n_prompt:], clean)

    def _pass(self, step: int, t: Tensor, stream: Tensor, x: Tensor, guess: Tensor) -> tuple[Tensor, Tensor]:
        """x as it was read, and the prediction [batch, pos, d_embed] at time t [batch]."""
        own = cast(Any, self.steps[step])
        if live(own.hook_self_condition):
            guess = own.hook_self_condition(
                self.with_gradient(guess.clone())
            )  # the prediction itself stays what it was
        x = own.hook_noised_embed(self.with_gradient(x))
        time = own.hook_time_embed(self.embed_time(waves(t, dtype=x.dtype)))
        resid = self.embed_noised(torch.cat([x, guess], dim=-1)) + time[:, None]
        n_prompt = stream.shape[1] - x.shape[1]
        resid = torch.cat([stream[:, :n_prompt], resid + stream[:, n_prompt:]], dim=1)
        for block in own.blocks:
            resid = block(resid)
        return x, own.hook_prediction(self.unembed(own.ln_final(resid)))

    def _prompt_stream(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """What every pass begins with: the prompt's embeddings and all positions', [batch, pos, d_model]."""
        vectors = self.embed(prompt)
        entered = F.linear(vectors, self.embed_noised.weight[:, : self.cfg.d_embed])
        entered = self.hook_embed(self.with_gradient(entered))
        stream = F.pad(entered, (0, 0, 0, tokens.shape[1] - prompt.shape[1]))
        if self.pos_embed is None:
            return stream
        positions = self.pos_embed(tokens)
        if live(self.hook_pos_embed):  # with a batch dimension, for hooks and ActivationCache
            positions = self.hook_pos_embed(self.with_gradient(positions.expand_as(stream).clone()))
        return stream + positions

    def _checked(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt and answer."""
        if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"tokens must be int64 [batch, pos]; got {tokens.dtype} {list(tokens.shape)}")
        if tokens.shape[1] > self.cfg.n_ctx:
            raise ValueError(f"tokens must be at most n_ctx = {self.cfg.n_ctx} long; got {tokens.shape[1]}")
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.cfg.d_vocab:
            raise ValueError(
                f"tokens must be from 0 to {self.cfg.d_vocab - 1}; got {int(tokens.min())} to {int(tokens.max())}"
            )
        return tokens[:, : self.cfg.n_prompt], tokens[:, self.cfg.n_prompt :]

    def _checked_steps(self, steps: int | None) -> int:
        steps = int(self.cfg.denoising_steps if steps is None else steps)
        if not 1 <= steps <= self.cfg.most_steps:
            raise ValueError(f"denoising_steps must be from 1 to max_steps = {self.cfg.most_steps}; got {steps}")
        return steps

    @property
    def fixed_point(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Answers to prompts [batch, n_prompt] as the configuration makes them; a guess [batch, n] is not read."""

        def decode(prompt: Tensor, guess: Tensor) -> Tensor:
            with torch.no_grad():
                return self(torch.cat([prompt, guess], dim=1))[:, self.cfg.n_prompt - 1 : -1].argmax(-1)

        return decode

    @torch.no_grad()
    def answer_bound(self, tokens: Tensor, *, draws: int = 8, seed: int = 0) -> Tensor:
        """An upper bound on the nats of each answer given its prompt, [batch]; see `noise_schedules.bound`.

        Args:
            tokens: integers [batch, n_ctx], prompt and true answer.
            draws: noise levels a row.
            seed: of the noise.
        """
        prompt, answer = self._checked(tokens)
        stream = self._prompt_stream(prompt, tokens)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            return self._pass(0, t, stream, x, torch.zeros_like(x))[1][:, prompt.shape[1] :]

        generator = torch.Generator().manual_seed(seed)
        schedule = self.cfg.schedule
        return bound(predict, self.embed.table, answer, schedule=schedule, draws=draws, generator=generator)


def waves(t: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Times [batch] from 0 to 1 as sines and cosines of 16 wavelengths from 2 to 1/32, [batch, 32]."""
    rates = math.pi * 2 ** torch.linspace(0, 6, _FREQUENCIES, device=t.device, dtype=torch.float64)
    angles = t[:, None].to(torch.float64) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)


def _forget_steps(module: nn.Module, incompatible: Any) -> None:
    """Passes hold no weights of their own, so none are missing."""
    missing = incompatible.missing_keys
    missing[:] = [name for name in missing if not name.startswith("steps.")]
