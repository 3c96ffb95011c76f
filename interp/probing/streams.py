"""The probe sweep over streams (the task `trace`), where pointer and cells are never in the input.

For every hook in turn, activations at the chosen tokens are read, all variables are fitted in one stack with their
controls (`targets`), scored on streams of held-out programs, and let go: memory holds one hook's activations at a time.

The variable `cells` is the tape: accuracy pools all cells, also by the steps since the stream last revealed the cell
(`stratum`), and joint exactness is the share of tokens at which every cell is right at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cython_vm import variable
from interp.interventions.activations import stop_layer
from interp.probing.estimators import check_methods
from interp.probing.examples import HookResult, SweepConfig, check_hooks, residual_hooks, to_fit
from interp.probing.stream_data import StreamTokens, draw_tokens, stream_variables
from interp.probing.targets import Targets
from interp.tasks.trace import Trace

DEFAULT_PLACES = ("stream",)


def stream_sweep(
    model: Any,
    task: Trace,
    *,
    untrained: Any,
    config: SweepConfig,
    skip: Callable[[str, str, str], bool] = lambda hook, place, method: False,
    progress: Callable[[float, float, str], None] | None = None,
) -> Iterator[HookResult]:
    """Fit and score probes at one hook after the other.

    Args:
        model: the hooked model, in eval mode.
        task: draws the streams and knows the machine.
        untrained: the same architecture with the weights that training began from.
        config: what to probe for, where and how.
        skip: (hook, place, method) that are measured already and left out.
        progress: called with (done, of how many, what is going on).

    Raises:
        ValueError: an unknown method, variable, place or hook, a variable without two values at a place, or too few
            programs.
    """
    check_methods(config.methods)
    check_hooks(model, config.hooks)
    names = list(config.variables) or stream_variables(task.spec)
    for name in names:
        variable(task.spec, name)
    hooks = list(config.hooks) or residual_hooks(model.cfg.n_layers)
    embedding = residual_hooks(0)[0]
    places = config.places or DEFAULT_PLACES
    total = len(places) * len(hooks) * len(config.methods)
    report = progress or (lambda done, total, at: None)
    done = 0
    for place in places:
        todo = [(hook, m) for hook in hooks for m in config.methods if not skip(hook, place, m)]
        done += len(hooks) * len(config.methods) - len(todo)
        if not todo:
            continue
        report(done, total, f"streams at {place}")
        parts = {
            "fit": _tokens(task, names, place, config, config.n // 2, held_out=False),
            "held": _tokens(task, names, place, config, config.n - config.n // 2, held_out=True),
        }
        targets = Targets.of(
            names,
            task.spec.variables(),
            parts["fit"],
            parts["held"],
            at=place,
            n_cells=task.spec.n_cells,
            seed=config.seed,
            controls=config.controls,
            asked=bool(config.variables),
        )
        for hook in hooks:
            methods = [m for h, m in todo if h == hook]
            if not methods:
                continue
            x = _read(model, parts, hook)
            blank = _read(untrained, parts, hook) if config.controls else None
            for method in methods:
                report(done, total, f"{method}, {hook}, {place}")
                if hook != embedding and (place, method) not in targets.embedding:
                    targets.embed(place, method, _read(model, parts, embedding))
                rows, errors, readouts = targets.measure(hook, place, method, x, blank)
                done += 1
                yield HookResult(hook, (place,), method, rows, errors, readouts)
    report(total, total, "")


def _tokens(task: Trace, names: list[str], place: str, config: SweepConfig, n: int, *, held_out: bool) -> StreamTokens:
    return draw_tokens(
        task,
        n,
        variables=names,
        place=place,
        per_stream=config.per_stream,
        seed=config.seed,
        split="evaluation" if held_out else "train",
    )


def _read(model: Any, parts: dict[str, StreamTokens], hook: str) -> dict[str, Tensor]:
    return {part: to_fit(token_activations(model, data, hook)) for part, data in parts.items()}


@torch.no_grad()
def token_activations(model: Any, data: StreamTokens, hook: str, *, batch_size: int = 64) -> Tensor:
    """The activation at each chosen token, float32 [m, d]; heads are laid side by side.

    Forward passes stop after the hook's layer, and nothing but the chosen tokens is kept.
    """
    stop = stop_layer(model, [hook])
    found: list[Tensor] = []
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook: Any) -> None:
        kept.append(activation)

    for start in range(0, len(data.tokens), batch_size):
        low, high = np.searchsorted(data.row, [start, start + batch_size])
        if low == high:
            continue
        row, position = (torch.from_numpy(part[low:high]) for part in (data.row - start, data.position))
        tokens = data.tokens[start : start + batch_size]
        with model.hooks(fwd_hooks=[(hook, keep)]):
            model(tokens, stop_at_layer=stop) if stop is not None else model(tokens)
        found.append(kept.pop()[row, position].flatten(1).float())
    return torch.cat(found)
