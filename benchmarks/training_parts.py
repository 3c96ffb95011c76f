"""Real training steps at the `step_inplace` preset: records a second, where the time goes, and what compiling gives.

A step is what the training loop does: draw a batch from the machine, forward, backward with clipping, Muon and AdamW.
The loop draws the next batch in a thread meanwhile; here it is drawn in its turn, so that its whole cost is seen. The
models take their steps in turns, in one process and changing order; every time is a median over steps.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import PlainTransformer
from interp.models import build_model
from interp.tasks import TASKS
from interp.training import PRESETS
from interp.training.batches import Batches
from interp.training.optimizer import Optimizers

logger = logging.getLogger(__name__)

PRESET = "step_inplace"
PARTS = ("sampling", "forward", "backward", "optimizer")
_WARMUP = 5


class StepTimer:
    """A model that takes training steps of the preset, timed part by part.

    Args:
        model: holds the weights, the hidden matrices of its blocks under names that begin with `blocks.`.
        forward: tokens to logits; `model` itself, or a compiled wrapper.
    """

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        config = PRESETS[PRESET]
        self.model, self.forward, self.clip = model, forward, config.training.gradient_clip
        self.batches = Batches(config, TASKS[config.task](config.spec, config.options), records=None)
        self.optimizers = Optimizers(model, config.training)
        self.seconds: list[list[float]] = []  # a step each, by PARTS

    def step(self, number: int) -> None:
        """Take one step and note the seconds of its parts."""
        times = [time.perf_counter()]
        batch = self.batches.draw(number)
        times.append(time.perf_counter())
        logits = self.forward(batch.tokens)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-1)
        times.append(time.perf_counter())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        times.append(time.perf_counter())
        self.optimizers.step(number)
        times.append(time.perf_counter())
        self.seconds.append([after - before for before, after in pairwise(times)])

    def milliseconds(self, part: str | None = None) -> float:
        """The median step after the warm-up, or one of its PARTS."""
        steps = self.seconds[_WARMUP:]
        return 1e3 * statistics.median(sum(each) if part is None else each[PARTS.index(part)] for each in steps)


def rows(*, steps: int, compiled: bool) -> list[dict[str, Any]]:
    """Rows `records_per_second`, `step_share_<part>` and, with `compiled`, `step_time_compiled`.

    The shares give milliseconds of a part as ours and of the whole step as peer: ratio 20 is a share of 5 %.
    """
    config = PRESETS[PRESET]
    model = build_model(config.model).train()
    timers = {"hooked": StepTimer(model, model), "plain": StepTimer(*_plain())}
    if compiled and shutil.which("g++") is None:
        logger.warning("no row step_time_compiled: torch.compile needs a C++ compiler")
        compiled = False
    if compiled:
        again = build_model(config.model).train()
        timers["compiled"] = StepTimer(again, torch.compile(again))
    for number in range(_WARMUP + steps):
        for timer in list(timers.values())[:: 1 if number % 2 else -1]:
            timer.step(number)
    whole = {name: timer.milliseconds() for name, timer in timers.items()}
    ours, peer = (1e3 * config.training.batch_size / whole[name] for name in ("hooked", "plain"))
    peer_name = "nanoGPT-style module, same sampler and optimizers"
    out = [_row("records_per_second", ours, peer, peer_name, ours / peer, "records/s")]
    for part in PARTS:
        spent = timers["hooked"].milliseconds(part)
        out.append(_row(f"step_share_{part}", spent, whole["hooked"], "the whole step", whole["hooked"] / spent))
    if compiled:
        ours, peer = whole["compiled"], whole["hooked"]
        out.append(_row("step_time_compiled", ours, peer, "the same model, not compiled", peer / ours))
    return out


def _plain() -> tuple[nn.Module, nn.Module]:
    """The peer, and its weights under the names that the optimizers go by."""
    peer = PlainTransformer(PRESETS[PRESET].model.d_model, act=F.relu).train()
    named = nn.Module()
    named.blocks = peer.h
    named.rest = nn.ModuleList([peer.wte, peer.wpe, peer.ln_f, peer.lm_head])
    return named, peer


def _row(name: str, ours: float, peer: float, peer_name: str, ratio: float, unit: str = "ms/step") -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio, "unit": unit}
