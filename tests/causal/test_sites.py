"""Named position sets."""

import numpy as np
import pytest
import torch

from cython_vm import sample
from interp.interventions import default_position_sets, resolve

from .conftest import SPEC


@pytest.fixture(scope="module")
def states():
    return sample(SPEC, 40, seed=3)


def test_names_resolve_to_the_layout(inplace, states):
    names, layout = inplace.position_names, SPEC.layout
    everywhere = resolve(names, "all", states)
    assert (everywhere == torch.arange(layout.length)).all()
    cells = layout.slice("cells")
    assert (resolve(names, "cells", states) == torch.arange(cells.start, cells.stop)).all()
    assert (resolve(names, "cells[2]", states) == layout.position("cells", 2)).all()
    assert (resolve(names, "cells.[", states) == cells.start - 1).all()


def test_pointed_slots_follow_each_state(inplace, states):
    cells = resolve(inplace.position_names, "cells[@array_ptr]", states)[:, 0].numpy()
    assert (cells == SPEC.layout.slice("cells").start + states.array_ptr).all()
    tokens = inplace.render(states).tokens
    held = tokens.gather(1, resolve(inplace.position_names, "cells[@array_ptr]", states))[:, 0].numpy()
    assert (held == SPEC.number_id(0) + states.cells[np.arange(len(states)), states.array_ptr]).all()
    hot = resolve(inplace.position_names, "instruction_ptr[@instruction_ptr]", states)
    assert (tokens.gather(1, hot) == SPEC.token_id("1")).all()


def test_unions_are_ordered_and_disjoint(inplace, states):
    union = resolve(inplace.position_names, "array_ptr + cells[@array_ptr]", states)
    parts = [resolve(inplace.position_names, name, states) for name in ("array_ptr", "cells[@array_ptr]")]
    assert (union == torch.cat(parts, dim=1)).all()
    with pytest.raises(ValueError, match="overlap in row 0"):
        resolve(inplace.position_names, "cells+cells[@array_ptr]", states)


def test_default_sets_resolve(task, states):
    for name in default_position_sets(SPEC):
        assert resolve(task.position_names, name, states).shape[0] == len(states)


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
def test_bad_names_say_what_is_wrong(inplace, states, name, message):
    with pytest.raises(ValueError, match=message):
        resolve(inplace.position_names, name, states)
