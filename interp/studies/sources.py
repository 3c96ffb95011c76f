"""Where a value that is asked for comes from, in streams: right after it was overwritten, and read from where?

What a token is to a value (`made`, `told`, `overwritten` …) stands in `interp.tasks.value_sources`. (1) Is a value
right by how its cell came by it, where it was not told since? An additive memory without decay must lose where GET
overwrites; one that replaces need not. (2) Of what each head reads at PUT, what share comes from each kind of token,
beside the share that they have of all tokens? A head's weights are its attention, or its effective attention where
heads hold a matrix (interp.models.effective_attention: exact of values, but a heuristic; magnitudes are taken, as
weights may be negative). They say where a value comes from, not that it is used: that is what state interchange says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from interp.ranges import counted
from interp.reading import RunError
from interp.results import Aggregation, Control, Method, Metric, rows_frame, wilson_interval
from interp.runs import Run
from interp.runs.further_frames import SOURCES
from interp.stage_options import SourceOptions
from interp.studies.holding import Progress, quiet
from interp.tasks.value_sources import HISTORIES, KINDS

_BATCH = 64


@counted(n=1)
@torch.no_grad()
def measure_sources(
    run: Run, *, n: int = SourceOptions.n, seed: int = SourceOptions.seed, progress: Progress = quiet
) -> pd.DataFrame:
    """Both answers, as rows of the tidy frame.

    Args:
        run: of a task with `value_sources`: `trace`, on a machine with PUT and GET.
        n: held-out streams.
        seed: of these.
        progress: called with (streams done, of how many, what is going on).

    Returns:
        TOKEN_ACCURACY of PUT by history (`stratum`), with Wilson intervals; and ATTENTION by head (`site`) and kind of
        token (`part`), means over the PUTs that have such tokens before them, `stratum` their history where it was
        overwritten. Rows with the control `even` are the shares of tokens themselves.

    Raises:
        RunError: the task asks for no such values.
    """
    if not run.task.has_value_sources:
        raise RunError(f"the task {run.task.name} asks for no value that an earlier instruction has set")
    examples = run.task.draw(n, seed=seed)
    right, histories, shares = [], [], {}
    for start in range(0, n, _BATCH):
        progress(start, n, "reading streams")
        streams = run.task.render(examples[np.arange(start, min(n, start + _BATCH))])
        asked = run.task.value_sources(streams)
        logits, weights = _weights(run.model, streams.tokens)
        said = (logits.argmax(-1) == streams.targets).numpy()[asked.row, asked.position]
        right.append(said[asked.untold])
        histories.append(asked.history[asked.untold])
        weights["even"] = np.ones((len(streams), 1, *streams.tokens.shape[1:], streams.tokens.shape[1]))
        there = np.stack([(asked.kinds == kind).any(axis=1) for kind in range(len(KINDS))], axis=-1)
        for name, each in weights.items():
            found = asked.shares(each[asked.row, :, asked.position])
            shares.setdefault(name, []).append(np.where(there[:, None], found, np.nan))
    rows = [*_accuracy_rows(np.concatenate(right), np.concatenate(histories))]
    for name, parts in shares.items():
        rows += _share_rows(name, np.concatenate(parts))
    return rows_frame(rows)


def _weights(model: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """Logits, and what every layer's heads weigh by the name of a hook: [batch, head, query, key]."""
    seen = list(model.attention_hooks())
    layers = {} if seen else {layer: model.effective_attention_hooks(layer) for layer in range(model.cfg.n_layers)}
    names = seen + [name for hooks in layers.values() for name in hooks]
    logits, cache = model.run_with_cache(tokens, names_filter=names)
    found = {name: model.on_record(name, cache[name]).float().numpy() for name in seen}
    for layer, hooks in layers.items():
        if hooks:
            found[hooks[0].rpartition(".")[0]] = model.effective_attention(layer, cache).float().numpy()
    return logits, found


def _accuracy_rows(right: np.ndarray, history: np.ndarray) -> Iterator[dict[str, Any]]:
    for place, name in enumerate(HISTORIES):
        n = int((history == place).sum())
        if n:
            successes = int(right[history == place].sum())
            low, high = wilson_interval(successes, n)
            yield {
                "stratum": name, "metric": Metric.TOKEN_ACCURACY, "aggregation": Aggregation.MEAN,
                "method": Method.GREEDY, "estimate": successes / n, "ci_low": low, "ci_high": high, "n": n,
            }  # fmt: skip


def _share_rows(name: str, shares: np.ndarray) -> Iterator[dict[str, Any]]:
    """By head and kind of token, from [asked, head, kind], NaN where there is none."""
    for head in range(shares.shape[1]):
        for kind, part in enumerate(KINDS):
            here = shares[:, head, kind]
            here = here[~np.isnan(here)]
            if len(here):
                yield {
                    "site": None if name == "even" else f"{name}[{head}]", "part": part,
                    "control": Control.EVEN if name == "even" else None, "metric": Metric.ATTENTION,
                    "aggregation": Aggregation.MEAN, "estimate": float(here.mean()), "n": len(here),
                }  # fmt: skip


def sources_stage(
    run: Run,
    options: SourceOptions = SourceOptions(),  # noqa: B008 (frozen)
    *,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """`measure_sources`, kept in the run's folder."""
    rows = measure_sources(run, **vars(options), progress=progress)
    SOURCES.write(run, rows, settings=vars(options))
    return SOURCES.read(run)
