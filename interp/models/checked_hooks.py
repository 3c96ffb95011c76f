"""Hooks by checked names: what is accepted fires, and what would not fire raises ValueError."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from interp.models.facts import ModelFacts
from interp.models.hooks import live_backward

Predicate = Callable[[str], bool]
Names = str | Iterable[str] | Predicate | None
Hooks = Iterable[tuple[str | Predicate, Callable]]


class CheckedHooks(ModelFacts, HookedRootModule):
    """HookedRootModule with its names checked at every entry point.

    Some hook points cost memory and are offered only when switched on; `switches` maps the last part of their name to
    the name of the switch, a flag on `cfg` set with `set_<switch>(True)`. Asked for by name while off they raise
    ValueError; a predicate skips them, and raises where it matches nothing else. A hook set on the hook point itself
    (`model.hook_dict[name].add_hook`, `.register_forward_hook`) fires whatever the switch.

    A pass through some layers alone (`start_at_layer`, `stop_at_layer`) goes by the hooks of the others. Where no pass
    of a `with model.hooks(…)` reaches a hook, leaving it raises ValueError. `add_hook` has no such end: its hooks
    belong to their layers, and fire in each pass that runs them.
    """

    switches: dict[str, str] = {}  # noqa: RUF012  # a constant of the class

    def __init__(self) -> None:
        super().__init__()
        self.aliases: dict[str, str] = {}  # further names of hook points, taken and cached beside their own
        self.n_passes = 0  # forward passes so far, compiled ones aside; a subclass's forward counts them

    def add_alias(self, alias: str, name: str) -> None:
        """Let hook point `name` be asked for as `alias` too; call after `setup()`."""
        self.aliases[alias] = name
        self.mod_dict[alias] = self.hook_dict[name]

    def matching_hooks(self, names: Names = None) -> list[str]:
        """The own names of the hook points that are asked for and offered.

        Args:
            names: a name or alias, any iterable of them, or a predicate on them; None for every point that is offered.

        Raises:
            ValueError: a name is unknown or switched off, or a predicate matches nothing that is offered.
        """
        if names is None:
            return [name for name in self.hook_dict if self._switch_off(name) is None]
        if not callable(names):
            return [self._require_hook(name) for name in ([names] if isinstance(names, str) else names)]
        by_alias = {own for alias, own in self.aliases.items() if names(alias)}
        matched = [name for name in self.hook_dict if names(name) or name in by_alias]
        offered = [name for name in matched if self._switch_off(name) is None]
        if offered:
            return offered
        if not matched:
            raise ValueError("the predicate on names matches no hook point of the model, so its hook would never fire")
        switch = self._switch_off(matched[0])
        raise ValueError(
            f"the predicate on names matches only hook points that are switched off, such as {matched[0]!r}: "
            f"call set_{switch}(True) first"
        )

    def hooks(  # type: ignore[override]
        self,
        fwd_hooks: Hooks = (),
        bwd_hooks: Hooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> AbstractContextManager[Self]:
        """As in HookedRootModule; pairs may come from any iterable.

        Raises:
            ValueError: as in `matching_hooks`; or at the end, where passes were made and none reached a hook's point.
        """
        fwd_hooks, bwd_hooks = list(fwd_hooks), list(bwd_hooks)
        for name, _ in (*fwd_hooks, *bwd_hooks):
            self.matching_hooks(name)
        return self._hooks_that_fire(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts)

    @contextmanager
    def _hooks_that_fire(self, fwd: list, bwd: list, reset_hooks_end: bool, clear_contexts: bool) -> Iterator[Self]:
        asked = [name for name, _ in (*fwd, *bwd)]
        with self.hooks_that_may_fire(fwd, bwd, reset_hooks_end, clear_contexts), self.reached(asked):
            yield self

    def hooks_that_may_fire(
        self, fwd: list, bwd: list, reset_hooks_end: bool, clear_contexts: bool
    ) -> AbstractContextManager[Self]:
        """`hooks` for points of which any that a pass reaches will do."""
        return cast(Any, super().hooks(fwd, bwd, reset_hooks_end, clear_contexts))

    def run_with_hooks(  # type: ignore[override]
        self,
        *model_args: Any,
        fwd_hooks: Hooks = (),
        bwd_hooks: Hooks = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **options: Any,
    ) -> Any:
        """Run the model with hooks that are removed afterwards; `model_args` and `options` are what forward takes.

        Raises:
            ValueError: as in `matching_hooks`; a hook's point was not reached in this pass (`stop_at_layer`); or
                `bwd_hooks` would be removed before a backward pass: use `with model.hooks(bwd_hooks=…)` around both.
        """
        fwd_hooks, bwd_hooks = list(fwd_hooks), list(bwd_hooks)
        if bwd_hooks and reset_hooks_end:
            raise ValueError(
                "bwd_hooks would be removed before a backward pass can fire them: run forward and backward inside "
                "`with model.hooks(bwd_hooks=…)`, or pass reset_hooks_end=False"
            )
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self(*model_args, **options)

    def add_hook(
        self,
        name: str | Predicate,
        hook: Callable,
        dir: Literal["fwd", "bwd"] = "fwd",
        is_permanent: bool = False,
        level: int | None = None,
        prepend: bool = False,
    ) -> None:
        """As in HookedRootModule, which also says how to remove it; ValueError as in `matching_hooks`."""
        matching = self.matching_hooks(name)
        for each in [name] if isinstance(name, str) else matching:  # an alias stays one: the hook sees it
            self.check_and_add_hook(self._point(each), each, hook, dir, is_permanent, level, prepend)

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
        """As in HookedRootModule; the hook sees the name that was asked for, be it an alias."""
        alias = [hook_point_name] if hook_point_name in self.aliases else None
        hook_point.add_hook(hook, dir, is_permanent, level, prepend, alias_names=alias)

    @contextmanager
    def reached(self, asked: Iterable[str | Predicate]) -> Iterator[None]:
        """Raise ValueError at the end if passes were made and all went by a name, or by all that a predicate means.

        It is noted by a hook of PyTorch's own, so that nothing shows among the hooks of the user.
        """
        reached: set[str] = set()

        def note(point: Any, args: Any, out: Any) -> None:
            reached.add(point.name)

        before = self.n_passes
        wanted = [self.matching_hooks(each) for each in asked]
        handles = [self.hook_dict[name].register_forward_hook(note) for name in {n for names in wanted for n in names}]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        for names in wanted if self.n_passes > before else ():
            if not reached.intersection(names):
                raise ValueError(
                    f"hook point {names[0]!r} did not fire in any forward pass: "
                    "it lies outside start_at_layer and stop_at_layer"
                )

    def with_gradient(self, x: Tensor) -> Tensor:
        """What enters the first hook point, made to require a gradient where a backward hook would else stay silent.

        That is so where what came before is frozen. Forward must pass through here what it starts from.
        """
        if not torch.is_grad_enabled() or x.requires_grad or not live_backward(*self.hook_points()):
            return x
        return x.detach().requires_grad_()

    def _point(self, name: str) -> HookPoint:
        return cast(HookPoint, self.mod_dict[name])

    def _enable_hook(self, name: str | Predicate, hook: Callable, dir: Literal["fwd", "bwd"]) -> None:
        self.add_hook(name, hook, dir, level=self.context_level)

    def _switch_off(self, name: str) -> str | None:
        switch = self.switches.get(name.rpartition(".")[2])
        return None if switch is None or getattr(self.cfg, switch) else switch

    def _require_hook(self, name: str) -> str:
        """The hook point's own name; ValueError where there is none, or it is switched off."""
        own = self.hook_name(name)
        switch = self._switch_off(name)
        if switch is not None:
            raise ValueError(f"hook point {name!r} fires only after set_{switch}(True)")
        return own
