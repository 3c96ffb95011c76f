"""What every architecture shares: hooks by checked names, an ActivationCache, tokens, directions in the vocabulary."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedRootModule
from transformer_lens.hook_points import HookPoint, NamesFilter

from interp.models.facts import ModelFacts

Tokens = str | int | Sequence[str] | Sequence[int] | Tensor


class HookedModel(ModelFacts, HookedRootModule):
    """A HookedRootModule on which the tools of TransformerLens run.

    A subclass builds its modules, calls `setup()`, and defines `forward(tokens) -> logits`, `W_U`, `b_U` and
    `ln_final`. Some hook points cost memory and fire only when switched on; `switches` maps the last part of their
    name to the name of the switch, a flag on `cfg` set with `set_<switch>(True)`.
    """

    cfg: Any  # a frozen dataclass with the fields architecture, d_vocab, n_ctx, seed, dtype and the model's own
    switches: dict[str, str] = {}  # noqa: RUF012  # a constant of the class
    vocab: tuple[str, ...] | None = None  # token names in id order, for to_tokens; not part of the weights

    def __init__(self) -> None:
        super().__init__()
        self.aliases: dict[str, str] = {}  # further names of hook points, taken and cached beside their own

    def add_alias(self, alias: str, name: str) -> None:
        """Let hook point `name` be asked for as `alias` too; call after `setup()`."""
        self.aliases[alias] = name
        self.mod_dict[alias] = self.hook_dict[name]

    def run_with_cache(  # type: ignore[override]
        self,
        *model_args: Any,
        names_filter: NamesFilter = None,
        remove_batch_dim: bool = False,
        return_cache_object: bool = True,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Run and keep activations.

        Args:
            model_args: what forward takes; `options` takes its keywords, and those of HookedRootModule.run_with_cache
                (device, incl_bwd, pos_slice, …).
            names_filter: a hook name, a list of them, or a predicate on names; None keeps everything that fires.
            remove_batch_dim: drop the batch dimension; the batch must be of size 1.
            return_cache_object: False for the plain dict.

        Returns:
            (logits, ActivationCache).

        Raises:
            ValueError: a hook name is unknown, or its switch is off.
        """
        out, cache = super().run_with_cache(
            *model_args, names_filter=names_filter, remove_batch_dim=remove_batch_dim, **options
        )
        for alias, name in self.aliases.items():
            if name in cache:
                cache[alias] = cache[name]
        return out, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache

    def get_caching_hooks(
        self, names_filter: NamesFilter = None, *args: Any, **options: Any
    ) -> tuple[dict, list, list]:
        """As in HookedRootModule; hook points that are switched off are left out, and asking for one raises."""
        if names_filter is None:
            keep: Callable[[str], bool] = lambda name: True  # noqa: E731
        elif callable(names_filter):
            keep = names_filter
        else:
            names = [names_filter] if isinstance(names_filter, str) else names_filter
            keep = {self._require_hook(name) for name in names}.__contains__
        return super().get_caching_hooks(lambda name: keep(name) and self._switch_off(name) is None, *args, **options)

    def hooks(  # type: ignore[override]
        self,
        fwd_hooks: Sequence[tuple[str | Callable, Callable]] = (),
        bwd_hooks: Sequence[tuple[str | Callable, Callable]] = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> AbstractContextManager[HookedModel]:
        """As in HookedRootModule; a name that is unknown or switched off raises ValueError instead of never firing."""
        for name, _ in (*fwd_hooks, *bwd_hooks):
            if isinstance(name, str):
                self._require_hook(name)
        return super().hooks(list(fwd_hooks), list(bwd_hooks), reset_hooks_end, clear_contexts)

    def add_hook(
        self,
        name: str | Callable[[str], bool],
        hook: Callable,
        dir: Literal["fwd", "bwd"] = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """As in HookedRootModule, which also says how to remove it; checks a name as `hooks` does."""
        if isinstance(name, str):
            self._require_hook(name)
        super().add_hook(name, hook, dir, is_permanent, level, prepend)

    def check_and_add_hook(
        self,
        hook_point: HookPoint,
        hook_point_name: str,
        hook: Callable,
        dir: Literal["fwd", "bwd"] = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """Add one hook; it sees as `hook.name` the name that was asked for, an alias too."""
        alias = [hook_point_name] if hook_point_name in self.aliases else None
        hook_point.add_hook(hook, dir, is_permanent, level, prepend, alias_names=alias)

    def _enable_hook_with_name(self, name: str, hook: Callable, dir: Literal["fwd", "bwd"]) -> None:
        self.check_and_add_hook(cast(HookPoint, self.mod_dict[name]), name, hook, dir, level=self.context_level)

    def _switch_off(self, name: str) -> str | None:
        switch = self.switches.get(name.rpartition(".")[2])
        return None if switch is None or getattr(self.cfg, switch) else switch

    def _require_hook(self, name: str) -> str:
        """The hook point's own name; ValueError where there is none, or it would not fire."""
        own = self.hook_name(name)
        switch = self._switch_off(name)
        if switch is not None:
            raise ValueError(f"hook point {name!r} fires only after set_{switch}(True)")
        return own

    def _set_state(self, name: str, value: Any) -> None:
        self.cfg = copy.copy(self.cfg)
        object.__setattr__(self.cfg, name, value)  # state, not a field: see config.py

    def _apply(self, fn: Callable, recurse: bool = True) -> HookedModel:
        super()._apply(fn, recurse)  # .to, .cuda, … all pass here
        self._set_state("device", str(next(self.parameters()).device))
        return self

    def answer(self, task: Any, batch: Any) -> Any:
        """What the model answers to a batch of a task: by default the task's own way of decoding from logits."""
        return task.answer(self, batch)

    W_U: Tensor  # [d_model, d_vocab]
    ln_final: nn.Module

    def to_tokens(self, input: Tokens, prepend_bos: bool = False) -> Tensor:
        """Token ids of one sequence or a batch, as a LongTensor [batch, pos] on the model's device.

        Args:
            input: one token name, a sequence of names or ids (or a batch of such), or an integer tensor.
            prepend_bos: accepted as TransformerLens's tools pass it; the vocabularies here have no such token.

        Raises:
            ValueError: an unknown name, an id outside the vocabulary, or names while `model.vocab` is not set.
        """
        if prepend_bos:
            raise ValueError("prepend_bos must be False: the vocabulary has no beginning-of-sequence token")
        device = next(self.parameters()).device
        if isinstance(input, str | int):
            input = [input]  # type: ignore[assignment]
        tokens = torch.as_tensor(self._ids(input), device=device)
        if tokens.dtype.is_floating_point or tokens.dtype == torch.bool or tokens.ndim not in (1, 2):
            raise ValueError(f"tokens must be integers [pos] or [batch, pos]; got {tokens.dtype} {list(tokens.shape)}")
        tokens = tokens.long() if tokens.ndim == 2 else tokens.long()[None]
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.cfg.d_vocab:
            raise ValueError(
                f"tokens must be from 0 to {self.cfg.d_vocab - 1}; got {int(tokens.min())} to {int(tokens.max())}"
            )
        return tokens

    def to_single_token(self, string: str) -> int:
        """The id of one token name. Raises ValueError for an unknown one."""
        return self._ids(string)

    def _ids(self, names: Any) -> Any:
        if isinstance(names, str):
            if self.vocab is None:
                raise ValueError(f"model.vocab must be set before a name such as {names!r} can be read")
            if names not in self.vocab:
                close = difflib.get_close_matches(names, self.vocab, n=3)
                hint = f"; did you mean {', '.join(close)}?" if close else ""
                raise ValueError(f"unknown token {names!r}{hint}")
            return self.vocab.index(names)
        return [self._ids(name) for name in names] if isinstance(names, list | tuple) else names

    def tokens_to_residual_directions(self, tokens: str | int | Tensor) -> Tensor:
        """The direction of the normalised residual stream that raises a token's logit, [..., d_model].

        It is the token's column of W_U with the gain of the final norm folded in, since an ActivationCache divides by
        the norm's scale and applies no gain. So `logit_attrs` over a full decomposition sums to the token's logit less
        what no component wrote, `ln_final.b @ W_U + b_U` (see `logit_bias`).
        """
        ids = self._ids(tokens) if isinstance(tokens, str) else tokens
        gain = getattr(self.ln_final, "w", None)
        weight = self.W_U.T if gain is None else self.W_U.T * gain
        return weight[ids]
