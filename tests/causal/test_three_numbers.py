"""IIA, effect and side accuracy by hand and by stratum; the copy that is swapped with its original; minimal pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

import interp
from interp.interventions import BASE_RIGHT, SharedPairs, Site, Swap, iia_sweep, stratum_rows
from interp.interventions.by_stratum import StratifiedPairs, matching
from interp.interventions.scores import Scores, judge
from interp.results import Metric, records, rows_frame, select
from interp.tasks import Task

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


class Echo(HookedRootModule):
    """Answers each position with the token that stands there, but for a position that always answers one token: a model
    of plain TransformerLens modules, whose only activation is the one-hot of its input."""

    def __init__(self, d_vocab: int, stuck: tuple[int, int] | None = None):
        super().__init__()
        self.d_vocab, self.stuck = d_vocab, stuck
        self.hook_embed = HookPoint()
        self.anywhere = nn.Parameter(torch.zeros(1))
        self.setup()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.hook_embed(torch.nn.functional.one_hot(tokens, self.d_vocab).float())
        if self.stuck is not None:
            position, token = self.stuck
            logits = logits.clone()
            logits[:, position] = torch.nn.functional.one_hot(torch.tensor(token), self.d_vocab)
        return logits


def test_three_numbers_of_one_pair_by_hand():
    """Five places, the last not judged and the first punctuation: two should change, two should stay."""
    expected = torch.tensor([[9, 1, 2, 3, 4]])
    unedited = torch.tensor([[9, 0, 0, 3, 7]])
    valid = torch.tensor([[True, True, True, True, False]])
    content = torch.tensor([[False, True, True, True, True]])

    def numbers(*answer: int) -> list[float]:
        answers = torch.tensor([answer])
        found = judge(answers, expected=expected, unedited=unedited, valid=valid, content=content)
        return [float(found[metric][0]) for metric in (Metric.IIA, Metric.EFFECT_ACCURACY, Metric.SIDE_ACCURACY)]

    assert numbers(9, 1, 2, 3, 0) == [1, 1, 1]  # what is not judged does not count
    assert numbers(9, 1, 0, 3, 4) == [0, 0.5, 1]
    assert numbers(9, 1, 2, 0, 4) == [0, 1, 0]
    assert numbers(8, 1, 2, 3, 4) == [0, 1, 1]  # punctuation is neither
    assert numbers(9, 0, 0, 3, 7) == [0, 0, 1]  # nothing was done
    two = judge(
        torch.tensor([[[9, 1, 2, 3, 0]], [[9, 0, 2, 0, 0]]]),
        expected=expected, unedited=unedited, valid=valid, content=content,
    )  # fmt: skip
    assert [float(each[0]) for each in two.values()] == [0.5, 0.75, 0.5]  # the mean of two runs
    nothing = judge(expected, expected=expected, unedited=expected, valid=valid, content=content)
    assert np.isnan(nothing[Metric.EFFECT_ACCURACY]).all()
    assert nothing[Metric.SIDE_ACCURACY] == [1]


def test_means_are_over_places_then_over_pairs(inplace):
    """A pair with one changed place counts as much as one with three; a pair without any is left out."""
    pairs = SharedPairs.draw(inplace, ["cell[1]"], n_pairs=40, seed=0)
    rows = pairs.members["cell[1]"]
    targets, unedited = pairs.targets["cell[1]"], pairs.unedited["cell[1]"]
    answers = targets.clone()
    answers[:, inplace.spec.layout.slice("cells")] = 0  # no token of a number: every cell is wrong
    changed, content = targets != unedited, torch.from_numpy(inplace.content)
    kept = answers == targets
    effect, side = [], []
    for pair in range(len(rows)):
        if (there := changed[pair]).any():
            effect.append(float(kept[pair][there].float().mean()))
            there = ~changed[pair] & content
            side.append(float(kept[pair][there].float().mean()))
    scores = Scores(inplace, pairs, design="independent", seed=0, n_bootstrap=20)
    scores.add("cell[1]", Site("anywhere"), {"method": "full_vector"}, answers)
    frame = rows_frame(scores.rows({"cell[1]": np.ones(len(rows), dtype=bool)}))
    assert 0 < np.mean(effect) < 1
    assert select(frame, metric="effect_accuracy").estimate.item() == pytest.approx(np.mean(effect))
    assert select(frame, metric="side_accuracy").estimate.item() == pytest.approx(np.mean(side))
    assert select(frame, metric="effect_accuracy").n.item() == len(effect) == pairs.changes["cell[1]"].sum()
    assert select(frame, metric="iia", stratum=BASE_RIGHT).n.item() == len(effect)


@pytest.mark.parametrize("stuck", [None, "cell"])
def test_a_model_that_repeats_its_input(inplace, stuck):
    """STOP is repeated rightly, so a swapped cell is right; the other cells are no part of it. A model that has one
    of them wrong answers fewer bases right: they are a row of their own, and the side of the rest falls."""
    cells = inplace.spec.layout.slice("cells")
    spoiled = None if stuck is None else (cells.start + 2, inplace.spec.number_id(0))
    model = Echo(inplace.spec.d_vocab, spoiled)
    swap = Swap(Site("hook_embed", "cells[1]"))
    frame = rows_frame(stratum_rows(model, inplace, "cell[1]", [swap], n=32, n_bootstrap=20))
    stop = select(frame, op="STOP", stratum="changes")
    numbers = {row["metric"]: row["estimate"] for row in records(select(stop, control=None))}
    assert numbers["effect_accuracy"] == 1
    assert select(stop, control="unpatched", metric="effect_accuracy").estimate.item() == 0
    same = select(stop, control="same_value", metric="iia").estimate.item()
    drawn = StratifiedPairs.draw(inplace, "cell[1]", n=32, seed=0)
    assert drawn is not None and drawn.same_value is not None
    base = drawn.pairs.base.examples[drawn.pairs.members["cell[1]"]][drawn.strata == drawn.names.index("STOP")]
    if stuck is None:
        assert numbers["iia"] == numbers["side_accuracy"] == same == 1
    else:
        zero = base.cells[:, 2] == 0  # what it happens to have right
        assert 0 < zero.mean() < 1
        assert numbers["iia"] == pytest.approx(zero.mean())
        n_content = int(inplace.content.sum()) - 1
        assert numbers["side_accuracy"] == pytest.approx(1 - (1 - zero.mean()) / n_content)
        right = select(frame, op="STOP", stratum=BASE_RIGHT, metric="iia", control=None)
        assert right.n.item() == zero.sum()
        assert right.estimate.item() == 1


def test_the_copy_is_swapped_with_its_original():
    """After the first layer, the cell under the pointer holds the operand and the cell: swapped, INC and DEC are right,
    and PUT, WHILE and ENDW, which leave the cell as it was, do what the operand says and spoil the cell."""
    run: Any = interp.load(CHECKPOINTS / "step_inplace")
    swap = Swap(Site("blocks.0.hook_resid_post", "cells[@array_ptr]"))
    frame = rows_frame(stratum_rows(run.model, run.task, "operand", [swap], n=16, seed=4, n_bootstrap=50))
    measured = select(frame, stratum="changes", control=None)
    iia = {row["op"]: row["estimate"] for row in records(select(measured, metric="iia"))}
    effect = {row["op"]: row["estimate"] for row in records(select(measured, metric="effect_accuracy"))}
    side = {row["op"]: row["estimate"] for row in records(select(measured, metric="side_accuracy"))}
    assert set(iia) == {"INC", "DEC", "PUT", "WHILE", "ENDW"}  # nothing else depends on it
    for op in ("INC", "DEC"):
        assert iia[op] > 0.8
    for op in ("PUT", "WHILE", "ENDW"):
        assert iia[op] < 0.1
        assert effect[op] > 0.9
        assert 0.9 < side[op] < 1
    same = select(frame, stratum="changes", control="same_value", metric="iia")
    assert same.estimate.min() > 0.8
    unpatched = select(frame, stratum="changes", control="unpatched", metric="iia")
    assert unpatched.estimate.max() == 0


def test_minimal_pairs_of_the_operand_edit_every_kind_of_ancestor(inplace):
    """The pointer, or the cell under it; nothing else."""
    drawn = inplace.counterfactual(64, "operand", seed=0, design="minimal")
    base, source = drawn.base.examples, drawn.source.examples
    pointer = base.array_ptr != source.array_ptr
    cells = base.cells != source.cells
    assert ((pointer.astype(int) + cells.sum(1)) == 1).all()
    assert pointer.sum() >= 8
    assert (~pointer).sum() >= 8
    under = cells[np.arange(len(base)), base.array_ptr]
    assert under[~pointer].all()
    for block in ("instructions", "input", "output"):
        where = inplace.spec.layout.slice(block)
        assert (drawn.base.tokens[:, where] == drawn.source.tokens[:, where]).all()


def test_base_right_is_judged_on_base_as_it_is(task: Task):
    """Pairs of `step` show the counterfactual answer; the model's own is asked behind base's."""
    from .conftest import random_model

    model: Any = random_model(task)
    frame = rows_frame(
        iia_sweep(model, task, ["operand"], [Site("blocks.0.hook_resid_post", "cells")], n_pairs=24, n_bootstrap=20)
    )
    assert len(select(frame, stratum=BASE_RIGHT)) == 0  # a random model answers no base right


def test_matching_takes_equal_values_alone():
    rng = np.random.default_rng(0)
    own, values = np.array([2, -1, 5, 0, 2]), np.array([0, 2, 2, 3, -1])
    for _ in range(20):
        found = matching(own, values, rng)
        assert list(found[[1, 2, 3]]) == [-1, -1, 0]
        assert set(found[[0, 4]]) <= {1, 2}
