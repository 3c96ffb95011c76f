"""Named position sets."""

import numpy as np
import pytest
import torch

from cython_vm import sample

from .conftest import SPEC


@pytest.fixture(scope="module")
def states():
    return sample(SPEC, 40, seed=3)


@pytest.fixture
def batch(inplace, states):
    return inplace.render(states)


def test_names_resolve_to_the_layout(inplace, batch):
    layout = SPEC.layout
    everywhere = inplace.resolve("all", batch)
    assert (everywhere == torch.arange(layout.length)).all()
    cells = layout.slice("cells")
    assert (inplace.resolve("cells", batch) == torch.arange(cells.start, cells.stop)).all()
    assert (inplace.resolve("cells[2]", batch) == layout.position("cells", 2)).all()
    assert (inplace.resolve("cells.[", batch) == cells.start - 1).all()


def test_pointed_slots_follow_each_state(inplace, states, batch):
    cells = inplace.resolve("cells[@array_ptr]", batch)[:, 0].numpy()
    assert (cells == SPEC.layout.slice("cells").start + states.array_ptr).all()
    tokens = batch.tokens
    held = tokens.gather(1, inplace.resolve("cells[@array_ptr]", batch))[:, 0].numpy()
    assert (held == SPEC.number_id(0) + states.cells[np.arange(len(states)), states.array_ptr]).all()
    hot = inplace.resolve("instruction_ptr[@instruction_ptr]", batch)
    assert (tokens.gather(1, hot) == SPEC.token_id("1")).all()


def test_unions_are_ordered_and_disjoint(inplace, batch):
    union = inplace.resolve("array_ptr + cells[@array_ptr]", batch)
    parts = [inplace.resolve(name, batch) for name in ("array_ptr", "cells[@array_ptr]")]
    assert (union == torch.cat(parts, dim=1)).all()
    with pytest.raises(ValueError, match="overlap in row 0"):
        inplace.resolve("cells+cells[@array_ptr]", batch)


def test_default_sets_resolve(task, states):
    for name in task.position_sets():
        assert task.resolve(name, task.render(states)).shape[0] == len(states)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cellz", "did you mean 'cells'"),
        ("cells[9]", "no positions are named"),
        ("tape[@array_ptr]", "the block 'tape', which has no slots"),
        ("cells[@array_pointer]", "array_ptr"),
        ("instructions[@jump_target]", "no value"),
    ],
)
def test_bad_names_say_what_is_wrong(inplace, batch, name, message):
    with pytest.raises(ValueError, match=message):
        inplace.resolve(name, batch)
