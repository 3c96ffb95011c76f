"""The hand-set networks solve `sticky` exactly, for every N, loose and strict; and interchange finds what is known of
them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.compiled.strings import HAND_SET
from interp.evaluation.language import divergence
from interp.evaluation.texts import judge_texts, sample_texts
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
    drawn = task.counterfactual(400, "run", seed=0)
    same = task.world.read(drawn.base.examples, "class", drawn.edit_time) == task.world.read(
        drawn.source.examples, "class", drawn.source_time
    )
    rows = np.flatnonzero(drawn.changes & same)  # else the swap brings another class along
    assert len(rows) >= 20
    for hook, share in ((model.residual_hooks()[0], 0.0), (model.residual_hooks()[-1], 1.0)):
        source = model.run_with_cache(drawn.source.tokens)[1][hook]
        taken = source[np.arange(len(drawn)), drawn.source_time]

        def swap(act: torch.Tensor, hook: Any, taken: torch.Tensor = taken) -> torch.Tensor:
            act = act.clone()
            act[np.arange(len(drawn)), drawn.edit_time] = taken
            return act

        logits = model.run_with_hooks(drawn.base.tokens, fwd_hooks=[(hook, swap)])
        said = logits[np.arange(len(drawn)), drawn.edit_time].argmax(-1)
        assert (said == drawn.expected[:, 0]).float()[rows].mean() == share, hook
