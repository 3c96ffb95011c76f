"""The bag of heuristics: rules are found in neurons that were made to follow them, and knocked out where they hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import interp
from interp.results import Control, Metric
from interp.studies.sum_heuristics import BAG, _as_many_others, described, heuristic_rows, heuristics

BASE = 10
FIRST, SECOND = (each.ravel() for each in np.meshgrid(np.arange(BASE), np.arange(BASE), indexing="ij"))


def test_a_neuron_that_follows_a_rule_is_described_by_it() -> None:
    known = heuristics(BASE)
    noise = np.random.default_rng(0).random((BASE * BASE, 5)) * 0.1
    table = noise + np.stack(
        [
            (FIRST + SECOND >= 8) & (FIRST + SECOND < 10),
            (SECOND >= 3) & (SECOND < 6),
            (FIRST + SECOND) % BASE == 4,
            FIRST == SECOND,
            np.zeros(BASE * BASE),
        ],
        axis=1,
    )
    table[:, 4] = 0.5  # says the same of every pair
    found = described(table, known)
    kinds = ["the sum in a range", "a digit in a range", "the sum modulo the base", "equal digits"]
    assert [known[at].kind for at in found[:4]] == kinds and found[4] == -1
    for at, neuron in zip(found[:4], range(4), strict=True):
        assert (known[at].pairs.ravel() == (table[:, neuron] > 0.5)).all()


def test_no_rule_holds_for_a_single_pair_or_for_half_of_all() -> None:
    sizes = [each.pairs.sum() for each in heuristics(BASE)]
    assert min(sizes) >= 2 and max(sizes) < BASE * BASE / 2


def test_as_many_others_are_outside_the_bag_and_fire_first() -> None:
    generator = np.random.default_rng(1)
    seen, bag = generator.normal(size=(50, 2, 3, 16)), generator.random((50, 2, 3, 16)) < 0.2
    others = _as_many_others(seen, bag)
    assert not (others & bag).any() and (others.sum(-1) == bag.sum(-1)).all()
    firing_left_out = ((seen > 0) & ~bag & ~others).any(-1)
    silent_taken = ((seen <= 0) & others).any(-1)
    assert not (firing_left_out & silent_taken).any()


def test_a_model_that_adds_has_neurons_that_fire_on_ranges_of_the_sum() -> None:
    run = interp.load(Path(__file__).resolve().parents[2] / "checkpoints" / "addition")
    rows = list(heuristic_rows(run, n=300))
    share = {(r["part"], r["control"]): r["estimate"] for r in rows if r["metric"] == Metric.DESCRIBED}
    assert share["the sum in a range", None] > 0.3 > 0.1 > share["the sum in a range", Control.SHUFFLED_LABELS]
    right = {r["control"]: r["estimate"] for r in rows if r["part"] == BAG}
    assert right[Control.UNPATCHED] == pytest.approx(1.0, abs=0.01)
    assert right[None] < right[Control.RANDOM_PART] < right[Control.UNPATCHED]
