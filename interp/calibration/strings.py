"""Two networks that solve `sticky`, neither a transformer: is the run found where the weights keep it, and only there?

On each of the hand-set networks (`interp.compiled.strings`) the run length is asked for at the embedding, which has the
class of the character alone, and at the last layer, where the weights write whether the class may be left. A probe
reads it (accuracy, beside the commonest length); interchange swaps it, whole vectors and the three dimensions of the
answer key beside random ones, at the character after which base and source have the same class and runs that differ in
what they allow. Stratum "own" (the last layer) or "rival" (the embedding).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.calibration.settings import CalibrationSettings
from interp.compiled.strings import HAND_SET
from interp.interventions.joint import swapped_answers
from interp.results import Aggregation, Control, Method, Metric, wilson_interval
from interp.tasks import TASKS
from interp.tasks.sites import Site
from interp.worlds.strings import Sticky, StringWorld
from probes import PROBES

Rows = list[dict[str, Any]]
N = 2  # of sticky
VARIABLE = "run"
_FOUND = 20  # times as many pairs are drawn: few differ in this alone


@dataclass(frozen=True, eq=False)
class StringSubject:
    """A hand-set network under calibration; its key is the hook, and the dimensions there that say what may be left."""

    name: str
    model: Any
    task: Any
    key: tuple[str, Tensor]


def string_subject(name: str) -> StringSubject:
    """One of STRING_NETWORKS."""
    rule = Sticky(n=N)
    model = HAND_SET[name.removesuffix("_strings")](rule)
    hook = model.residual_hooks()[-1]
    task = TASKS["strings"](StringWorld(rule))
    with torch.no_grad():
        _, cache = model.run_with_cache(task.sample(1, seed=0).tokens, names_filter=[hook])
    return StringSubject(name, model, task, (hook, torch.eye(cache[hook].shape[-1])[-3:]))


STRING_NETWORKS = {
    "averaging_strings": "the mean of the classes of a window, and a ReLU that keeps a mean of 1 alone",
    "recurrent_strings": "a register of saturated units that counts how long the class has gone on",
}


def string_calibration(
    model: Any, key: tuple[str, Tensor], task: Any, settings: CalibrationSettings, report: Callable[[float], None]
) -> Rows:
    """A probe and interchange at both places of one network."""
    rows: Rows = []
    for number, hook in enumerate((model.residual_hooks()[0], key[0])):
        stratum = "own" if hook == key[0] else "rival"
        common = {"variable": VARIABLE, "granularity": "string", "stratum": stratum, "site": hook}
        rows += [{**row, **common} for row in _read(model, task, hook, settings)]
        rows += [{**row, **common} for row in _swapped(model, task, hook, key, settings)]
        report((number + 1) / 2)
    return rows


def _read(model: Any, task: Any, hook: str, settings: CalibrationSettings) -> Rows:
    """Accuracy of a logistic probe on held-out strings, and of the commonest run."""
    parts = []
    for split in ("fit", "evaluation"):
        batch = task.sample(settings.n_states // 6, seed=settings.seed, split=split)
        with torch.no_grad():
            _, cache = model.run_with_cache(batch.tokens, names_filter=[hook])
        labels = torch.from_numpy(task.labels(batch, VARIABLE))
        labels[:, 0] = -1  # the start has no run
        parts.append((cache[hook][labels >= 0], labels[labels >= 0]))
    (x, y), (held, wanted) = parts
    said = PROBES["logistic"]().fit(x, y).predict(held)
    guess = torch.mode(y).values
    judged = {None: torch.as_tensor(said) == wanted, Control.MAJORITY_CLASS: wanted == guess}
    return [
        {"method": Method.LOGISTIC, "metric": Metric.ACCURACY, "control": control, **_share(right.numpy())}
        for control, right in judged.items()
    ]


def _swapped(model: Any, task: Any, hook: str, key: tuple[str, Tensor], settings: CalibrationSettings) -> Rows:
    """IIA of the whole vector; where the answer key is, of its dimensions, and of as many random ones."""
    drawn = task.counterfactual(_FOUND * settings.n_swaps, VARIABLE, seed=settings.seed)
    both = ((drawn.base, drawn.edit_time), (drawn.source, drawn.source_time))
    base, source = (task.world.read(batch.examples, "class", at) for batch, at in both)
    rows = np.flatnonzero(drawn.changes & (base == source))[: settings.n_swaps]
    batches = [task.render(batch.examples[rows]) for batch, _ in both]
    expected, positions = drawn.expected[rows], drawn.positions[rows]

    def right(basis: Tensor | None) -> np.ndarray:
        with torch.no_grad():
            said = swapped_answers(
                model, task, batches[0], [(Site(hook, "string[@here]"), batches[1])], positions=positions,
                edit_time=drawn.edit_time[rows], source_times=[drawn.source_time[rows]], bases=[basis],
            )  # fmt: skip
        return (said == expected).all(dim=1).numpy()

    with torch.no_grad():
        alone = model(batches[0].tokens).argmax(-1).gather(1, positions)
    found: list[tuple[Method, Control | None, np.ndarray]] = [
        (Method.FULL_VECTOR, None, right(None)),
        (Method.FULL_VECTOR, Control.UNPATCHED, (alone == expected).all(dim=1).numpy()),
    ]
    if hook == key[0]:
        generator = torch.Generator().manual_seed(settings.seed)
        random = torch.linalg.qr(torch.randn(key[1].T.shape, generator=generator))[0].T
        for control, basis in ((None, key[1]), (Control.RANDOM_SUBSPACE, random)):
            found.append((Method.TRUE_SUBSPACE, control, right(basis)))
    return [
        {"method": method, "metric": Metric.IIA, "control": control, **_share(each)} for method, control, each in found
    ]


def _share(right: np.ndarray) -> dict[str, Any]:
    low, high = wilson_interval(int(right.sum()), len(right))
    interval = {"ci_low": low, "ci_high": high, "interval_kind": "wilson", "n": len(right)}
    return {"aggregation": Aggregation.MEAN, "estimate": float(right.mean()), **interval}
