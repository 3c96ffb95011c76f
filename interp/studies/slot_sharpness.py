"""How sharp a plan must be for soft execution to be exact, and how far back gradients reach through it.

1. A curve. The true plan is given as distributions: every field's true entry leads by MARGIN logits, divided by a
   temperature; kinds and contents are exact in one set of rows ("addresses"), soft as well in the other
   ("everything"). The machine runs it softly, as it stands, or sharpened by the same temperature at every step. How
   many answers are right, and how probable the true address was.
2. Gradients. The controller's own plan (or the true one, where that is given) runs softly; the norm of the gradient of
   the answer's loss with respect to the memory after each executed step, averaged over inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models import build_model
from interp.models.slot_memory import State, step
from interp.results import Aggregation, IntervalKind, Method, Metric
from interp.runs import Run
from interp.studies.slot_runs import SEED, executing, share
from interp.tasks import TASKS
from interp.training.slot_presets import resized_for

MARGIN = 4.0  # logits by which the true entry leads at temperature 1
TEMPERATURES = (1.0, 0.8, 0.7, 0.6, 0.5, 0.3, 0.2, 0.1)
AS_IT_STANDS, SHARPENED = "as it stands", "sharpened at every step"
ADDRESSES, EVERYTHING = "addresses", "everything"
_LEAST = 1e-6


def softened(state: State, temperature: float, *, fields: str) -> State:
    """The state before the first step with the true entry of each field leading by MARGIN / temperature logits.

    Args:
        state: one-hots.
        temperature: above 0.
        fields: ADDRESSES: pointers alone; EVERYTHING: kinds and contents too.
    """

    def soft(field: Tensor) -> Tensor:
        return F.softmax(MARGIN * field / temperature, dim=-1)

    state = state._replace(pointers=soft(state.pointers))
    return state if fields == ADDRESSES else state._replace(kinds=soft(state.kinds), contents=soft(state.contents))


def ran_softly(model: Any, state: State, n_steps: int, temperature: float) -> State:
    """The state after so many soft steps of the model's machine."""
    for _ in range(n_steps):
        state = step(state, model.alu, model.bits, hard=False, temperature=temperature, seen=lambda _, value: value)
    return state


@torch.no_grad()
def sharpness_rows(run: Run, size: int, *, n: int) -> Iterator[dict[str, Any]]:
    """The curve at one size of the input: the share of right answers at every temperature, and the true address's
    probability."""
    larger: Any = run.config.world.changed(size=size, least=size)
    task = TASKS[run.config.task](larger)
    cfg = resized_for(run.config.model, larger).as_written  # type: ignore[arg-type]
    model: Any = build_model(replace(cfg, alu="table", dtype="float64")).eval()
    batch = task.sample(n, seed=SEED)
    start, n_steps = model.given_state(task.memories(batch)), int(task.n_steps(batch).max())  # type: ignore[attr-defined]
    true = torch.from_numpy(larger.answer(batch.examples).values)
    slots = list(larger.program.answers)
    for fields in (ADDRESSES, EVERYTHING):
        for temperature in TEMPERATURES:
            state = softened(start, temperature, fields=fields)
            key = {
                "method": Method.GREEDY, "stratum": f"size {size}", "time": size, "part": fields,
                "position": f"temperature {temperature:g}",
            }  # fmt: skip
            certain = float(state.pointers.amax(-1).mean())
            yield {**key, "metric": Metric.CONFIDENCE, "estimate": certain, "aggregation": Aggregation.MEAN, "n": n}
            for how, each in ((AS_IT_STANDS, 1.0), (SHARPENED, temperature)):
                final = ran_softly(model, state, n_steps, each)
                right = (final.contents[:, slots].argmax(-1) == true).all(1).numpy()
                yield {**key, "map": how, "metric": Metric.EXACT_MATCH, **share(right)}


def gradient_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """Of the answer's loss with respect to the memory after each executed step: the norm, averaged over `n` inputs."""
    norms = gradient_norms(run, n=n)
    for at, norm in enumerate(norms.mean(0).tolist(), start=1):
        spread = np.quantile(norms[:, at - 1], (0.05, 0.95))
        yield {
            "method": Method.GREEDY, "metric": Metric.GRADIENT_NORM, "site": "hook_memory", "time": at,
            "estimate": norm, "ci_low": spread[0], "ci_high": spread[1], "interval_kind": IntervalKind.EXAMPLES,
            "aggregation": Aggregation.MEAN, "n": n,
        }  # fmt: skip


def gradient_norms(run: Run, *, n: int) -> np.ndarray:
    """The norms of `gradient_rows` one by one, [n, step]."""
    task = run.task
    model = executing(run, run.config.model, "soft")  # type: ignore[arg-type]
    batch = task.sample(n, seed=SEED)
    temperature = model.cfg.temperature
    if model.cfg.plan_given:
        state = model.given_state(task.memories(batch))
    else:
        with torch.no_grad():
            state = model.planned_state(model(batch.tokens, returned="plan"))
    held: list[Tensor] = []
    with torch.enable_grad():
        state = state.with_memory(state.memory().detach().requires_grad_())
        for _ in range(int(task.n_steps(batch).max())):
            state = step(state, model.alu, model.bits, hard=False, temperature=temperature, seen=lambda _, value: value)
            held.append(state.memory())
            state = state.with_memory(held[-1])
        true = torch.from_numpy(run.config.world.answer(batch.examples).values)
        says = state.contents[:, list(run.config.world.program.answers)].gather(-1, true[..., None])  # type: ignore[attr-defined]
        grads = torch.autograd.grad(-says.clamp(min=_LEAST).log().mean(dim=(1, 2)).sum(), held)
    return torch.stack([each.flatten(1).norm(dim=1) for each in grads], dim=1).numpy()
