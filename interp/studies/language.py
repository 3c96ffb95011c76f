"""What a model of strings uses: the order of its context, and for Markov chains its phases over training.

    order of context    the k-th last character is exchanged for a random one: how far the model's next-character
                        distribution moves (total variation), beside how far the rule's own moves
    phases              KL from the posteriors of the uniform, the unigram and the bigram rule to the model, at every
                        checkpoint that the run kept (Edelman et al. 2024), and each head's induction score: the
                        share of its attention on the characters that followed earlier uses of the last one

Rows go to RUN/language.parquet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.results import Aggregation, Control, Metric, rows_frame
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.worlds import Rows

SEED = 4  # of the held-out strings


def language_stage(run: Run, *, n: int = 1000, longest: int = 8, progress: Progress = quiet) -> pd.DataFrame:
    """Measure and write RUN/language.parquet. Returns its rows.

    Args:
        run: a run about a world with "language".
        n: held-out strings.
        longest: characters back that are exchanged, at most.
        progress: called with (done, of how many, what is going on).

    Raises:
        ValueError: a world without texts.
    """
    if "language" not in run.task.world.capabilities:
        raise run.task.world.lacks("language")
    rows = context_rows(run, n=n, longest=longest)
    models = posterior_models(run.task)
    steps = run.steps if models else ()
    for number, step in enumerate(steps):
        progress(number, len(steps), f"step {step:,}")
        rows += phase_rows(run.at_step(step).model, run.task, models, n=min(n, 256), step=step)
    if models and not steps:
        rows += phase_rows(run.model, run.task, models, n=min(n, 256), step=run.step)
    frame = rows_frame(rows)
    run.write_frame("language", frame, settings={"n": n, "longest": longest})
    return frame


def context_rows(run: Run, *, n: int, longest: int) -> list[dict[str, Any]]:
    """How far next-character distributions move with the k-th last character (lag k, from 0: the last one)."""
    task, model = run.task, run.model
    world, length = task.world, task.n_ctx
    rows, size = task.draw(n, seed=SEED), len(task.world.rule.alphabet)
    rng, at = np.random.default_rng(SEED), length - 1  # judged where most has been read; strings that end, before END
    reads = np.minimum(world.lengths(rows) - 1, at)
    found = []
    with torch.inference_mode():
        for lag in range(min(longest, at)):
            place = reads - 1 - lag
            kept = np.flatnonzero(place >= 0)
            changed = rows.values[kept].copy()
            other = rng.integers(1, size, size=len(kept))
            changed[np.arange(len(kept)), place[kept]] = (changed[np.arange(len(kept)), place[kept]] + other) % size
            pair = [rows[kept], Rows(changed)]
            here = (np.arange(len(kept)), reads[kept])
            said = [model(task.render(each).tokens)[here].double().softmax(-1).numpy() for each in pair]
            exact = [world.rule.distribution(world.states(each, reads[kept])) for each in pair]
            for control, (one, two) in ((None, said), (Control.RULE, exact)):
                moved = 0.5 * np.abs(one - two).sum(axis=1)
                found.append(
                    {
                        "metric": Metric.TOTAL_VARIATION,
                        "aggregation": Aggregation.MEAN,
                        "control": control,
                        "lag": lag,
                        "estimate": float(moved.mean()),
                        "n": len(moved),
                    }
                )
    return found


def posterior_models(task: Any) -> Mapping[str, Any]:
    """Simpler distributions than the rule's, by name, each of states; {} where the rule declares none."""
    posterior = getattr(task.world.rule, "posterior", None)
    if posterior is None:
        return {}
    k = len(task.world.rule.alphabet)
    return {
        "uniform": lambda states: np.full((len(states), k), 1 / k),
        "unigram": lambda states: posterior(states, 0),
        "bigram": lambda states: posterior(states, 1),
    }


def phase_rows(model: Any, task: Any, models: Mapping[str, Any], *, n: int, step: int) -> list[dict[str, Any]]:
    """KL from each simpler distribution to the model, over all characters but the first; and induction by head."""
    rows = task.draw(n, seed=SEED)
    states = task.world.rule.states(rows.values)[:, 1:-1]  # once a character is read
    hooks = model.attention_hooks()
    with torch.inference_mode():
        logits, cache = model.run_with_cache(task.render(rows).tokens, names_filter=list(hooks))
    said = logits[:, 1:].double().log_softmax(-1).numpy()[..., : len(task.world.rule.alphabet)]
    common: dict[str, Any] = {"checkpoint_step": step, "aggregation": Aggregation.MEAN, "n": n}
    found = []
    for name, of_states in models.items():
        theirs = of_states(states.reshape(-1, states.shape[-1])).reshape(said.shape)
        kl = (theirs * (np.log(theirs) - said)).sum(-1).mean()
        found.append(common | {"metric": Metric.KL, "variable": name, "estimate": float(kl)})
    followed = _followed(rows.values[:, : task.n_ctx - 1])
    for hook in hooks:
        pattern = model.on_record(hook, cache[hook]).numpy()[:, :, 1:, 1:]  # [n, head, query, key] of characters
        share = (pattern * followed[:, None]).sum(-1)  # [n, head, query]
        some = followed.any(-1)
        for head in range(pattern.shape[1]):
            found.append(
                common
                | {
                    "metric": Metric.INDUCTION,
                    "site": f"{hook} head {head}",
                    "estimate": float(share[:, head][some].mean()),
                }
            )
    return found


def _followed(characters: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether the character at a key followed an earlier use of the one at the query, bool [n, query, key]."""
    n, length = characters.shape
    before = np.concatenate([np.full((n, 1), -1), characters[:, :-1]], axis=1)
    same = before[:, None, :] == characters[:, :, None]
    return same & (np.arange(length)[None, :] <= np.arange(length)[:, None])
