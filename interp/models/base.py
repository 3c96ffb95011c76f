"""What every architecture shares: hooks, caches, tokens, losses and generation as TransformerLens users know them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from typing import Any, Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.caching import CachedRuns
from interp.models.model_config import ModelConfig, with_state
from interp.models.tokens import TokenNames, Tokens

SMALL_INTEGERS = (torch.uint8, torch.int8, torch.int16)
Returned = Literal["logits", "loss", "both"] | None


class Output(NamedTuple):
    """What `return_type="both"` gives."""

    logits: Tensor  # [batch, pos, d_vocab]
    loss: Tensor  # scalar, or [batch, pos - 1] with loss_per_token


class HookedModel(TokenNames, CachedRuns):
    """A HookedRootModule on which the tools of TransformerLens run.

    A subclass builds its modules, calls `setup()`, and defines `compute(tokens) -> logits`, `W_U`, `b_U`, `ln_final`
    and its facts (facts.py).
    """

    cfg: Any  # a frozen dataclass with the fields architecture, d_vocab, n_ctx, seed, dtype and the model's own
    b_U: Tensor  # [d_vocab]

    def compute(self, tokens: Tensor, **options: Any) -> Tensor:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos]; an architecture's own keywords are documented there."""
        raise NotImplementedError(f"{type(self).__name__} must define compute(tokens) -> logits")

    def forward(
        self, input: Tokens, return_type: Returned = "logits", *, loss_per_token: bool = False, **options: Any
    ) -> Any:
        """Logits of tokens, their loss, or both.

        Args:
            input: tokens [batch, pos], or whatever else `to_tokens` reads: a text, names, ids.
            return_type: "logits" [batch, pos, d_vocab]; "loss", see `loss_fn`; "both", an Output; or None.
            loss_per_token: the loss of each next token, [batch, pos - 1], in place of their mean.
            options: the architecture's own keywords, see its `compute`.

        Raises:
            ValueError: tokens that do not fit; or a loss is asked for where there is none: of a model that looks ahead,
                of one token, or with layers left out.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise ValueError(f"return_type must be 'logits', 'loss', 'both' or None; got {return_type!r}")
        tokens = input if isinstance(input, Tensor) else self.to_tokens(input)
        tokens = tokens.long() if tokens.dtype in SMALL_INTEGERS else tokens  # as arrays of states come
        if not torch.compiler.is_compiling():
            self.n_passes += 1
            self._require_known(options)
            if tokens.is_inference() and torch.is_grad_enabled():
                tokens = tokens.clone()  # what was made in inference mode cannot be kept for a backward pass
        if return_type in ("loss", "both"):
            self._require_loss(tokens, options)
        out = self.compute(tokens, **options)
        if return_type == "logits":
            return out
        if return_type is None:
            return None
        loss = self.loss_fn(out, tokens, per_token=loss_per_token)
        return loss if return_type == "loss" else Output(out, loss)

    def _require_known(self, options: dict[str, Any]) -> None:
        known = signature(self.compute).parameters if options else {}
        if any(each.kind is each.VAR_KEYWORD for each in known.values()):
            return  # it hands them on
        for name in options:
            if name not in known:
                takes = ", ".join(list(known)[1:]) or "none"
                raise TypeError(
                    f"{name} is no option of the architecture {self.cfg.architecture}, which takes: {takes}"
                )

    def _require_loss(self, tokens: Tensor, options: dict[str, Any]) -> None:
        if not self.is_causal:
            raise ValueError(
                "the loss here is that of the next token, and this model looks ahead at it: "
                "use task.loss(model(tokens), batch)"
            )
        for name in ("start_at_layer", "stop_at_layer"):
            if options.get(name) is not None:
                raise ValueError(f"a loss needs tokens in and logits out: no {name} with it")
        if tokens.ndim == 2 and tokens.shape[1] < 2:
            raise ValueError(f"the loss of the next token needs at least two tokens; got {tokens.shape[1]}")

    def loss_fn(self, logits: Tensor, tokens: Tensor, *, per_token: bool = False) -> Tensor:
        """Cross-entropy of each next token in nats: the mean over [batch, pos - 1], or each with `per_token`.

        Args:
            logits: [batch, pos, d_vocab]; half precision is raised to float32.
            tokens: integers [batch, pos].
            per_token: as above.
        """
        predicted = logits[:, :-1]  # the last position has no next token
        predicted = predicted.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(predicted.flatten(0, 1), tokens[:, 1:].flatten().long(), reduction="none")
        return losses.view(len(tokens), -1) if per_token else losses.mean()

    def generate(
        self,
        input: Tokens,
        max_new_tokens: int = 10,
        *,
        do_sample: bool = True,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop_tokens: Iterable[int | str] = (),
        seed: int | None = None,
        generator: torch.Generator | None = None,
        use_past_kv_cache: bool = True,
        return_type: Literal["input", "tokens", "str"] = "input",
    ) -> Any:
        """Write on from a prompt. Hooks fire once a token; with the cache they see new positions alone.

        Args:
            input: what `to_tokens` reads, at least one token.
            max_new_tokens: how many at most.
            do_sample: draw from the softmax; False takes the arg max.
            temperature: what logits are divided by, above 0.
            top_k: draw among the k likeliest tokens alone.
            top_p: draw among the fewest likeliest tokens whose probabilities reach p, in (0, 1].
            stop_tokens: ids or names. A row ends with the first that it writes and is filled up with it.
            seed: of the draws; neither this nor `generator` draws from PyTorch's own stream.
            generator: the same, given.
            use_past_kv_cache: read each token once, where the architecture can; the same tokens up to float error.
            return_type: "tokens" [batch, pos]; "str", texts; "input", whichever `input` was.

        Returns:
            The prompt and what follows.

        Raises:
            ValueError: a value out of range, a sequence that would be too long, or a model that looks ahead.
        """
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0 (do_sample=False takes the arg max); got {temperature!r}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {top_k!r}")
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; got {top_p!r}")
        if seed is not None and generator is not None:
            raise ValueError("give seed or generator, not both")
        if return_type not in ("input", "tokens", "str"):
            raise ValueError(f"return_type must be 'input', 'tokens' or 'str'; got {return_type!r}")
        from interp.models.generation import generate_tokens

        prompt = self.to_tokens(input)
        if seed is not None:
            generator = torch.Generator(prompt.device).manual_seed(seed)
        written = generate_tokens(
            self,
            prompt,
            max_new_tokens,
            do_sample=do_sample,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            stop_tokens=[self.to_single_token(stop) if isinstance(stop, str) else stop for stop in stop_tokens],
            generator=generator,
            use_past_kv_cache=use_past_kv_cache,
        )
        first = input if isinstance(input, str) else input[0] if isinstance(input, list | tuple) and input else None
        if return_type == "tokens" or (return_type == "input" and not isinstance(first, str)):
            return written
        return self.to_string(written[0] if len(written) == 1 else written)

    def answer(self, task: Any, batch: Any) -> Any:
        """What the model answers to a batch of a task: by default the task's own way of decoding from logits."""
        return task.answer(self, batch)

    @property
    def config(self) -> Any:
        """`cfg`, by the name that Hugging Face's tools look for."""
        return self.cfg

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the parameters are."""
        return next(self.parameters()).dtype

    def _set_state(self, name: str, value: Any) -> None:
        self.cfg = with_state(self.cfg, **{name: value})

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        with torch.inference_mode(False):  # .to, .cuda, .half, … all pass here; moved weights can still be trained
            super()._apply(fn, recurse)
        state = {"device": str(self.device)} | ({"dtype": self.dtype} if isinstance(self.cfg, ModelConfig) else {})
        self.cfg = with_state(self.cfg, **state)
        return self
