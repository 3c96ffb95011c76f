"""The hand-set networks solve `sticky` exactly, for every N, loose and strict; and interchange finds what is known of
them."""

from __future__ import annotations

from typing import Any

import pytest

from interp.compiled.strings import HAND_SET
from interp.evaluation.language import divergence
from interp.evaluation.texts import judge_texts, sample_texts
from interp.interventions import Site, iia_sweep
from interp.results import rows_frame, select
from interp.tasks import TASKS
from interp.worlds.strings import Sticky, StringWorld


@pytest.mark.parametrize("name", HAND_SET)
@pytest.mark.parametrize("n", range(6))
@pytest.mark.parametrize("strict", [False, True])
def test_they_are_the_rule(name: str, n: int, strict: bool) -> None:
    rule = Sticky(n=n, strict=strict, letters=1, length=9)
    task: Any = TASKS["strings"](StringWorld(rule))
    found = divergence(HAND_SET[name](rule), task)
    assert found.exact and abs(found.kl) < 1e-10 and found.illegal < 1e-40


@pytest.mark.parametrize("name", HAND_SET)
def test_what_they_write_is_allowed(name: str) -> None:
    rule = Sticky(n=3, letters=26, length=30)
    task: Any = TASKS["strings"](StringWorld(rule))
    texts = sample_texts(HAND_SET[name](rule), task, 60, seed=0)
    assert judge_texts(task.world, texts, set()).in_distribution == 1


@pytest.mark.parametrize("name", HAND_SET)
def test_interchange_finds_the_run_where_it_is_and_nowhere_else(name: str) -> None:
    """The answer key: whether the run is long enough stands in the hidden vector beside the class; the embedding, at
    the same place, has the class alone."""
    rule = Sticky(n=2, letters=2, length=12)
    task: Any = TASKS["strings"](StringWorld(rule))
    model = HAND_SET[name](rule)
    sites = [Site(hook, "string[@here]") for hook in (model.residual_hooks()[0], model.residual_hooks()[-1])]
    base_class: dict[str, Any] = {"n_pairs": 60, "n_changing": 0, "seed": 0}
    rows = rows_frame(iia_sweep(model, task, ["run", "class"], sites, **base_class))
    changes = select(rows, metric="iia", stratum="changes", control=None).set_index(["variable", "site"]).estimate
    embedding, last = (site.hook for site in sites)
    assert changes["run", embedding] == 0, "an embedding says nothing of the run"
    # The whole vector brings source's class along: right where the classes agree, or the class is what was asked.
    assert changes["run", last] > changes["run", embedding]
    assert changes["class", last] > 0
