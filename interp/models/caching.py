"""Activations and their gradients kept in a cache, cut along the axes that the model declares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint
from transformer_lens.utilities.slice import Slice

from interp.models.checked_hooks import CheckedHooks, Names


class Cache(ActivationCache):
    """TransformerLens's cache; its ways to take a residual stream apart are refused where a model has no such parts.

    Raises:
        ValueError: by `decompose_resid` and its kin, for a model that does not declare `has_residual_parts`.
    """

    def _need_parts(self, method: str) -> None:
        model: Any = self.model
        if not model.has_residual_parts:
            raise ValueError(
                f"{method} takes a residual stream apart into what attention heads and MLPs write; the architecture "
                f"{model.cfg.architecture!r} has no such parts"
            )

    def decompose_resid(self, *args: Any, **options: Any) -> Any:
        self._need_parts("decompose_resid")
        return super().decompose_resid(*args, **options)

    def get_full_resid_decomposition(self, *args: Any, **options: Any) -> Any:
        self._need_parts("get_full_resid_decomposition")
        return super().get_full_resid_decomposition(*args, **options)

    def compute_head_results(self) -> None:
        self._need_parts("compute_head_results")
        super().compute_head_results()

    def stack_head_results(self, *args: Any, **options: Any) -> Any:
        self._need_parts("stack_head_results")
        return super().stack_head_results(*args, **options)

    def get_neuron_results(self, *args: Any, **options: Any) -> Any:
        self._need_parts("get_neuron_results")
        return super().get_neuron_results(*args, **options)

    def stack_neuron_results(self, *args: Any, **options: Any) -> Any:
        self._need_parts("stack_neuron_results")
        return super().stack_neuron_results(*args, **options)


class CachedRuns(CheckedHooks):
    """run_with_cache and its kin, as in HookedRootModule; names are checked as everywhere."""

    def run_with_cache(  # type: ignore[override]
        self,
        *model_args: Any,
        names_filter: Names = None,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        metric: Callable[[Any], Tensor] | None = None,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        pos_slice: Any = None,
        return_cache_object: bool = True,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Run and keep activations.

        Args:
            model_args: what forward takes; `options` takes its keywords.
            names_filter: a hook name, an iterable of them, or a predicate; None keeps everything that fires.
            device: where activations are kept; None for where they are.
            remove_batch_dim: drop the batch dimension; the batch must be of size 1.
            incl_bwd: also keep the gradient of `metric` at each point, under its name + "_grad". Gradients are switched
                on for it, and those of the parameters are left as they were.
            metric: what is differentiated, a function of forward's output to a scalar; not needed with
                return_type="loss".
            reset_hooks_end, clear_contexts: as in HookedRootModule.
            pos_slice: the positions to keep: an int (the axis stays, with one entry), a slice, a list of positions, a
                tuple as slice takes it, or a TransformerLens Slice. Patterns and scores are cut along their queries.
            return_cache_object: False for the plain dict.

        Returns:
            (forward's output, the cache).

        Raises:
            ValueError: as in `matching_hooks`; a point that was asked for was not reached (`stop_at_layer`);
                `incl_bwd` without a scalar to differentiate; or `remove_batch_dim` with a larger batch.
        """
        if incl_bwd and metric is None and options.get("return_type") != "loss":
            raise ValueError(
                "incl_bwd=True needs a scalar to differentiate: pass metric=…, a function of the logits, "
                "or return_type='loss'"
            )
        if metric is not None and not incl_bwd:
            raise ValueError("metric is what incl_bwd=True differentiates: pass both or neither")
        if remove_batch_dim and model_args and isinstance(model_args[0], Tensor) and len(model_args[0]) != 1:
            raise ValueError(f"remove_batch_dim needs a batch of 1; got {len(model_args[0])} rows")
        names = names_filter if names_filter is None or callable(names_filter) else self.matching_hooks(names_filter)
        cache, fwd, bwd = self.get_caching_hooks(
            names, incl_bwd, device, remove_batch_dim=remove_batch_dim, pos_slice=pos_slice
        )
        asked = [] if names is None else [names] if callable(names) else names
        with self.hooks_that_may_fire(fwd, bwd, reset_hooks_end, clear_contexts), self.reached(asked):
            run = partial(self._run_and_differentiate, metric) if incl_bwd else self
            out = run(*model_args, **options)
        return out, Cache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache

    def _run_and_differentiate(self, metric: Callable[[Any], Tensor] | None, *model_args: Any, **options: Any) -> Any:
        parameters = list(self.parameters())
        kept = [parameter.grad for parameter in parameters]
        self.zero_grad(set_to_none=True)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                out = self(*model_args, **options)
                value = out if metric is None else metric(out)
                if not isinstance(value, Tensor) or value.numel() != 1:
                    what = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                    raise ValueError(f"the metric must be one number, a scalar tensor; got {what}")
                if not value.requires_grad:
                    raise ValueError("the metric must be computed from forward's output with gradients; it has none")
                value.backward()
        finally:
            for parameter, grad in zip(parameters, kept, strict=True):
                parameter.grad = grad
        return out

    def get_caching_hooks(  # type: ignore[override]
        self,
        names_filter: Names = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict | None = None,
        pos_slice: Any = None,
    ) -> tuple[dict, list, list]:
        """The hooks that fill a cache, not yet added: (cache, forward hooks, backward hooks); see run_with_cache.

        With `remove_batch_dim`, a batch of more than one row stays as it is.
        """
        kept: dict[str, Tensor] = {} if cache is None else cache
        positions = None if pos_slice is None else Slice.unwrap(pos_slice)
        further: dict[str, list[str]] = {}
        for alias, name in self.aliases.items():
            further.setdefault(name, []).append(alias)

        def save(act: Tensor, hook: HookPoint, suffix: str = "") -> None:
            name = cast(str, hook.name)
            axes = self.axes(name) if positions is not None or remove_batch_dim else ()
            act = act.detach().to(device)
            if positions is not None and {"pos", "query_pos"} & set(axes):
                act = positions.apply(act, dim=axes.index("pos" if "pos" in axes else "query_pos"))
            if remove_batch_dim and act.shape[axes.index("batch")] == 1:
                act = act.squeeze(axes.index("batch"))
            for each in (name, *further.get(name, ())):
                kept[each + suffix] = act

        save.reads_only = True  # nothing need be copied for it
        self.is_caching = True
        names = self.matching_hooks(names_filter)
        bwd = [(name, partial(save, suffix="_grad")) for name in names] if incl_bwd else []
        return kept, [(name, save) for name in names], bwd

    def add_caching_hooks(  # type: ignore[override]
        self,
        names_filter: Names = None,
        incl_bwd: bool = False,
        device: torch.device | str | None = None,
        remove_batch_dim: bool = False,
        cache: dict | None = None,
    ) -> dict:
        """Add the hooks of `get_caching_hooks` and return the cache that later passes fill; `reset_hooks` ends it."""
        kept, fwd, bwd = self.get_caching_hooks(names_filter, incl_bwd, device, remove_batch_dim, cache)
        for name, hook in fwd:
            self.add_hook(name, hook)
        for name, hook in bwd:
            self.add_hook(name, hook, "bwd")
        return kept
