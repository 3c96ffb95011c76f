"""Models of text side by side: the baseline beside nanoGPT, every architecture in equal time, and what length costs.

    nanogpt_…            nanoGPT's setting for a CPU (4 layers, 4 heads, 128 wide, block 64, batch 12), ours and the
                         plain module on the same batches, step by step in turns: time of a step, bits a character
    bits_<architecture>  about equal parameters, equal processor time of training: bits a character of held-out text
    distinct_…, copied_… what each of these writes behind the beginnings of held-out windows, beside the text itself
    write_…_<length>     tokens a second that are written when so many were read, and memory_…: what is held for it;
                         of models that fill in, tokens a second of so many that are written together

Seconds are processor time of one thread, so that load from elsewhere falls on nobody. Settings are the same for all and
were chosen on no evaluation text.

    tapelens bench text --json
    python -m benchmarks.text --steps 2000 --seconds 25 > docs/text.json     (the rows of docs/text.md)
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.plain_gpt import PlainGPT
from interp.evaluation.text_quality import copied, distinct
from interp.files import write_json
from interp.models import MODELS, build_model
from interp.models.kv_cache import KeyValueCache
from interp.tasks import TASKS
from interp.training.text_presets import LENGTH, text_model
from interp.worlds.text import TextWorld

logger = logging.getLogger(__name__)

ARCHITECTURES = (
    "transformer", "path", "rnn", "gru", "lstm", "linear_attention", "delta", "mamba", "mamba2", "looped", "iterative",
    "masked_diffusion", "diffusion_lm", "window", "ngram",
)  # fmt: skip
LENGTHS = (256, 1024, 4096)
RATE, WARM_UP = 2e-3, 50  # of AdamW for all; then the rate falls to nothing over the time there is
_PROMPT, _WRITTEN, _ROWS = 16, 112, 24  # tokens given and written, and how many texts
_PASSES = 32  # of masked diffusion, for a text; continuous diffusion takes as many as it has
_COUNTED = 1000  # batches that an n-gram counts: it is done sooner than time is up, and more would teach it nothing
_AT_LENGTH = 8  # tokens that are timed at each length


def rows(
    *,
    steps: int = 400,
    seconds: float = 6.0,
    lengths: tuple[int, ...] = LENGTHS,
    architectures: tuple[str, ...] = ARCHITECTURES,
    threads: int = 1,
    kept: Path | None = None,
) -> list[dict[str, Any]]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio (above 1 = ours is better), unit.

    Args:
        steps: of the comparison with nanoGPT; its own setting has 2,000.
        seconds: of processor time, each architecture's training.
        lengths: tokens read before writing is timed.
        architectures: which to train; the first is what the others are held against.
        threads: PyTorch threads; restored afterwards.
        kept: a folder where what was measured of each architecture is kept, so that a long run can be taken up again.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = beside_nanogpt(steps)
        found += in_equal_time(architectures, seconds, kept=kept)
        for length in lengths:
            found += at_length(length, architectures)
        return found
    finally:
        torch.set_num_threads(before)


def _row(name: str, ours: float | None, peer: float | None, peer_name: str, unit: str, *, more: bool) -> dict[str, Any]:
    """more: whether more is better. What could not be measured, such as words of a text without any, is None."""
    ours, peer = (None if value is None or math.isnan(value) else value for value in (ours, peer))
    ratio = (ours / peer if more else peer / ours) if ours and peer else None
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ratio, "unit": unit}


# Our baseline beside a plain module.


def beside_nanogpt(steps: int) -> list[dict[str, Any]]:
    """All on the same batches, in turns and in changing order: our baseline, of nanoGPT's very shape, at its own rate;
    the same with the norms of this package's other transformers; and the plain module, at nanoGPT's rate."""
    world = TextWorld.of(length=65)  # 64 are asked for
    task: Any = TASKS["text"](world)
    config = text_model("transformer", world)
    normed = replace(config, normalization_type="RMS", qk_norm=True)
    ours, twin, peer = build_model(config), build_model(normed), PlainGPT(d_vocab=len(task.vocab), n_ctx=65)
    steppers = [_Stepper(ours, task, RATE), _Stepper(twin, task, RATE), _Stepper(peer, task, 1e-3)]
    medians = _in_turns(steppers, task, steps)
    bits = [_bits(model.eval(), task) for model in (ours, twin, peer)]
    name = "plain nanoGPT module"
    found = []
    for which, suffix in ((0, ""), (1, "_normed")):
        found += [
            _row(f"nanogpt_step{suffix}", medians[which], medians[2], name, "ms/step", more=False),
            _row(f"nanogpt_bits{suffix}", bits[which], bits[2], name, "bits/character", more=False),
            _row(
                f"nanogpt_parameters{suffix}", _size((ours, twin)[which]), _size(peer), name, "parameters", more=False
            ),
        ]
    return [*found, _row("nanogpt_steps", steps, steps, name, "steps", more=False)]


def _in_turns(steppers: list[_Stepper], task: Any, steps: int) -> list[float]:
    """Train all, a step each in turn; the median milliseconds of processor time of a step of each."""
    times: list[list[float]] = [[] for _ in steppers]
    for step in range(steps):
        batch = task.sample(12, seed=0, start=12 * step, split="fit")
        scale = min(1.0, (step + 1) / 100) * (0.1 + 0.45 * (1 + math.cos(math.pi * step / steps)))
        for turn in range(len(steppers)):
            which = (step + turn) % len(steppers)
            start = time.thread_time()
            steppers[which].step(batch, scale)
            times[which].append(time.thread_time() - start)
        if step % 200 == 199:
            logger.info("beside nanoGPT: step %d of %d", step + 1, steps)
    return [1e3 * statistics.median(each) for each in times]


class _Stepper:
    """AdamW as nanoGPT sets it: weight decay on matrices, gradients clipped at 1."""

    def __init__(self, model: nn.Module, task: Any, rate: float, objective: Callable | None = None) -> None:
        self.model, self.task, self.rate, self.objective = model.train(), task, rate, objective
        groups = [
            {"params": [p for p in model.parameters() if (p.ndim >= 2) == wide], "weight_decay": 0.1 if wide else 0.0}
            for wide in (True, False)
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
        self.count = 0

    def step(self, batch: Any, scale: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * scale
        if self.objective is None:
            loss = self.task.loss(self.model(batch.tokens), batch)
        else:
            found = self.objective(self.model, self.task, batch, torch.Generator().manual_seed(self.count))
            loss = found[0] if isinstance(found, tuple) else found
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.count += 1


def _bits(model: Any, task: Any) -> float:
    """Bits a character of all held-out text, windows side by side."""
    return task.also_measured(model, n=10**9, split="evaluation")[0]["estimate"]


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Every architecture in equal time.


def in_equal_time(names: tuple[str, ...], seconds: float, *, kept: Path | None = None) -> list[dict[str, Any]]:
    """Train each for so much processor time; then bits, size, steps, and what it writes."""
    world = TextWorld.of(length=LENGTH)
    windows = world.side_by_side("evaluation", _ROWS)
    own = _quality([world.decode(row[_PROMPT:]) for row in windows.tokens], world)
    found: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    for name in names:
        measured = _kept(name, world, seconds, kept)
        first = first or measured
        found += [
            _row(f"{what}_{name}", measured[what], first[what], names[0], unit, more=what == "steps")
            for what, unit in (("bits", "bits/character"), ("parameters", "parameters"), ("steps", "steps"))
        ]
        found += [
            _row(f"{what}_{name}", measured[what], own[what], "held-out text", "share", more=True) for what in own
        ]
    kinds = world.end + 1
    found.append(_row("vocabulary", kinds, kinds, "characters, and the end", "tokens", more=False))
    found.append(_row("seconds", seconds, seconds, "processor time of each training", "s", more=False))
    return found


def _kept(name: str, world: TextWorld, seconds: float, folder: Path | None) -> dict[str, Any]:
    """What was measured of an architecture: read from `folder` where it was kept, of the same model and time."""
    asked = {"model": text_model(name, world).to_dict(), "world": world.identity(), "seconds": seconds}
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        if held["asked"] == json.loads(json.dumps(asked)):
            return held["measured"]
    measured = _measured(name, world, seconds)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"asked": asked, "measured": measured})
    return measured


def _measured(name: str, world: TextWorld, seconds: float) -> dict[str, Any]:
    """Bits a character, parameters and steps of an architecture trained for so long, and what it then writes."""
    task: Any = TASKS["text"](world)
    model: Any = build_model(text_model(name, world))
    count = _train(model, task, seconds)
    model.eval()
    measured = {"bits": _bits(model, task), "parameters": _size(model), "steps": count}
    logger.info("%s: %.3f bits a character after %d steps", name, measured["bits"], count)
    prompts = world.side_by_side("evaluation", _ROWS).tokens[:, :_PROMPT]
    return measured | _quality(_written(model, task, prompts), world)


def _quality(texts: list[str], world: TextWorld) -> dict[str, Any]:
    """None where there are no words enough."""
    found = {"distinct_2": distinct(texts, 2), "copied_4": copied(texts, world.units_of("fit"))}
    return {name: None if math.isnan(share) else share for name, share in found.items()}


def _train(model: Any, task: Any, seconds: float) -> int:
    architecture = MODELS[model.cfg.architecture]
    stepper = _Stepper(model, task, RATE, architecture.objective)
    spent = 0.0
    while spent < seconds and not (architecture.fit is not None and stepper.count == _COUNTED):
        batch = task.sample(16, seed=0, start=16 * stepper.count, split="fit")
        start = time.thread_time()
        if architecture.fit is not None:
            with torch.no_grad():
                architecture.fit(model, task, batch)
            stepper.count += 1
        else:
            stepper.step(batch, min(1.0, (stepper.count + 1) / WARM_UP) * max(0.02, 1 - spent / seconds))
        spent += time.thread_time() - start
    return stepper.count


def _written(model: Any, task: Any, prompts: Any) -> list[str]:
    """What is written behind the beginning of each window, sampled at temperature 0.8; a model that fills in fills the
    rest of a window, behind as much of the beginning as it can be shown."""
    start = torch.from_numpy(prompts)
    if model.max_denoising_steps is None:
        whole = model.generate(start, _WRITTEN, temperature=0.8, seed=0, return_type="tokens")
    elif model.decides_for_good:
        from interp.models.denoising import denoise

        given, length = model.cfg.n_prompt, task.n_ctx
        shown = torch.full((len(start), length), model.cfg.d_vocab)
        shown[:, :_PROMPT] = start
        answer = denoise(model, shown[:, :given], steps=_PASSES, start=shown[:, given:]).tokens
        whole = torch.cat([shown[:, :given], answer], dim=1)
    else:
        given = start[:, : model.cfg.n_prompt]
        filled, _ = model.filled_in(given, model.max_denoising_steps, model.denoising_orders[0])
        whole = torch.cat([given, filled], dim=1)
    return [task.decode(row[_PROMPT:]) for row in whole]


# What length costs.


@torch.no_grad()
def at_length(length: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Tokens a second of writing, one text, with `length` tokens read; and MiB that are held between two tokens. A
    model that fills in writes so many tokens together, in its number of passes, and holds nothing."""
    world = TextWorld.of(length=length)
    found: list[dict[str, Any]] = []
    first: tuple[float, float] | None = None
    for name in names:
        fills = text_model(name, world).attention_dir == "bidirectional"
        model: Any = build_model(text_model(name, world if fills else _longer(world, length + _AT_LENGTH))).eval()
        tokens = torch.randint(model.cfg.d_vocab, (1, length), generator=torch.Generator().manual_seed(0))
        past = None if fills else model.new_cache(1)
        if past is not None:
            model(tokens, past_kv_cache=past)
        speed = _filling_speed(model, tokens) if fills else _writing_speed(model, tokens, past)
        held = _held(past) / 2**20
        logger.info("%s at %d tokens: %.0f tokens a second", name, length, speed)
        first = first or (speed, held)
        found.append(_row(f"write_{name}_{length}", speed, first[0], names[0], "tokens/s", more=True))
        if past is not None:
            found.append(_row(f"memory_{name}_{length}", held, first[1], names[0], "MiB", more=False))
    return found


def _writing_speed(model: Any, tokens: Tensor, past: Any) -> float:
    """Tokens a second, one behind the other; without a cache everything is read again for each."""
    times = []
    for number in range(_AT_LENGTH if past is not None else 3):
        start = time.thread_time()
        if past is None:
            model(torch.cat([tokens, tokens[:, :number]], dim=1))
        else:
            model(tokens[:, number : number + 1], past_kv_cache=past)
        times.append(time.thread_time() - start)
    return 1 / statistics.median(times)


def _filling_speed(model: Any, tokens: Tensor) -> float:
    """Tokens a second where all are filled in together, from the time of one pass."""
    passes = _PASSES if model.decides_for_good else model.max_denoising_steps
    options = {} if model.decides_for_good else {"denoising_steps": 1}
    times = []
    for _ in range(2):
        start = time.thread_time()
        model(tokens, **options)
        times.append(time.thread_time() - start)
    return tokens.shape[1] / (passes * min(times))


def _longer(world: TextWorld, length: int) -> TextWorld:
    """The same text in longer examples."""
    return TextWorld.from_dict({**world.to_dict(), "length": length})


def _held(past: Any) -> int:
    """Bytes of what a cache holds of one text."""
    if past is None:
        return 0
    if isinstance(past, KeyValueCache):
        parts: list[Tensor] = [past.keys[:, :, :, : past.length], past.values[:, :, :, : past.length]]
    else:
        parts = [value for layer in past.layers for value in layer.values()]
    return sum(each.numel() * each.element_size() for each in parts)


if __name__ == "__main__":
    import tyro

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    print(json.dumps(tyro.cli(rows), indent=1))
