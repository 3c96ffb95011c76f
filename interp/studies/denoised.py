"""How continuous diffusion comes to an answer: passes and samplers, what is carried between passes, its embeddings.

1. Exact match by the number of passes and the sampler, with another noise for every example; one pass is the row that
   all others are beside.
2. Between two passes the sample x_t and the prediction that the next pass is conditioned on are all that is carried.
   Either, or both, are another example's (source's) from one pass on, the prompt is still base's: is the answer base's
   own again, or source's? Judged on pairs that the model answers differently.
3. Reliability of slots (slot_calibration.py) after one pass and after all.
4. The cosine of every two embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.results import Aggregation, Method, Metric
from interp.runs import Run
from interp.studies.filling import PASSES, Fills, drawn, passes_of, share_row
from interp.studies.holding import Progress, quiet
from interp.studies.slot_calibration import slot_calibration
from interp.training.scoring import evaluate

_CARRIED = {
    "sample": ("hook_noised_embed",),
    "prediction": ("hook_self_condition",),
    "both": ("hook_noised_embed", "hook_self_condition"),
}


def measure_denoised(run: Run, *, n: int, seed: int, progress: Progress = quiet) -> list[dict[str, Any]]:
    """Rows of this module's docstring.

    Args:
        run: of a model whose passes have hook points of their own and carry embeddings.
        n: examples of each part; an eighth as many pairs.
        seed: of everything.
        progress: called with (done, total, what it is at).
    """
    parts = {
        "passes": partial(passes_rows, n=n),
        "swaps": partial(carried_rows, n=max(16, n // 8)),
        "calibration": partial(calibration_rows, n=n),
    }
    rows: list[dict[str, Any]] = []
    for done, (name, part) in enumerate(parts.items()):
        progress(done, len(parts), f"{run.name}: {name}")
        rows += part(run, seed=seed)
    return [*rows, *embedding_rows(run)]


def passes_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 1 of this module's docstring: rows of EXACT_MATCH, macro and by stratum."""
    most = run.model.max_denoising_steps
    counts = [count for count in (1, 2, 4, 8) if count <= most]
    ways = [(count, "ddim") for count in counts] + [(count, "ddpm") for count in counts if count == PASSES]
    for count, sampler in ways:
        scored = evaluate(Fills(run.model, count, sampler), run.task, n=n, seed=seed)  # type: ignore[arg-type]
        name = "denoise_once" if count == 1 else f"denoise_{sampler}"
        wanted = scored.loc[scored["metric"] == Metric.EXACT_MATCH].assign(time=count, method=name)
        yield from wanted.to_dict("records")


@torch.inference_mode()
def carried_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 2 of this module's docstring: IIA (source's answer), RETURN (base's own), `time` the pass that is next."""
    model, passes = run.model, passes_of(run.model, PASSES)
    both = drawn(run, 2 * n, seed=seed + 1)
    base, noise = both.tokens[:n], model.drawn_noise(2 * n, seed=seed, steps=passes)
    names = [f"steps.{t}.{end}" for t in range(1, passes) for end in _CARRIED["both"]]
    logits, cache = model.run_with_cache(
        both.tokens, names_filter=names, denoising_steps=passes, noise=noise, return_cache_object=False
    )
    own = _answers(model, logits)
    apart = (own[:n] != own[n:]).any(1)
    for part, ends in _CARRIED.items():
        for t in range(1, passes):
            hooks = [(f"steps.{t}.{end}", _put(cache[f"steps.{t}.{end}"][n:])) for end in ends]
            swapped = model.run_with_hooks(base, fwd_hooks=hooks, denoising_steps=passes, noise=noise[:, :n])
            said = _answers(model, swapped)
            for metric, truth in ((Metric.IIA, own[n:]), (Metric.RETURN, own[:n])):
                hits = (said == truth).all(1)[apart].numpy()
                yield share_row(hits, method=Method.FULL_VECTOR, part=part, time=t + 1, metric=metric)


@torch.inference_mode()
def calibration_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 3 of this module's docstring."""
    model, task = run.model, run.task
    for passes in (1, passes_of(model, PASSES)):
        confidence, right = [], []
        for start in range(0, n, 256):
            batch = drawn(run, min(256, n - start), seed=seed + 2 + start)
            noise = model.drawn_noise(len(batch), seed=seed + start, steps=passes)
            logits = model(batch.tokens, denoising_steps=passes, noise=noise)[:, model.cfg.n_prompt - 1 : -1]
            p, tokens = logits.double().softmax(-1).max(-1)
            confidence.append(p.numpy())
            right.append((tokens == batch.tokens[:, model.cfg.n_prompt :]).numpy())
        method = "denoise_once" if passes == 1 else f"denoise_{model.cfg.sampler}"
        every = np.concatenate(confidence), np.concatenate(right)
        yield from slot_calibration(*every, task.answer_names, method=method, time=passes)


def embedding_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Part 4 of this module's docstring: COSINE, the two tokens in `position` and `part`."""
    table = torch.nn.functional.normalize(run.model.embed.table.detach().double(), dim=1)
    cosines, names = (table @ table.T).numpy(), run.task.vocab
    for a in range(len(names)):
        for b in range(a):
            own = {"position": names[a], "part": names[b], "metric": Metric.COSINE, "aggregation": Aggregation.MEAN}
            yield {**own, "estimate": float(cosines[a, b]), "n": 1}


def _answers(model: Any, logits: Tensor) -> Tensor:
    return logits[:, model.cfg.n_prompt - 1 : -1].argmax(-1)


def _put(values: Tensor) -> Any:
    return lambda act, hook: values
