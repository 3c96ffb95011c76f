"""Layouts beyond the default one: what they look like, and that each is read back."""

import dataclasses
import itertools

import numpy as np
import pytest

from cython_vm import MachineSpec, Outcome, States, decode, decode_outcome, encode, sample, step

TINY = {"n_instructions": 2, "n_cells": 3, "n_input": 1, "n_output": 2, "bits": 2}
STYLES = [
    {"pointers": pointers, "punctuation": punctuation, "outcome_token": outcome, "padded": padded}
    for pointers, punctuation, outcome, padded in itertools.product(
        ("one_hot", "index"), ("blocks", "none", "spaced"), (False, True), (False, True)
    )
]


def written(outcome=None, **style):
    spec = MachineSpec(**TINY, **style)
    states = States.build(spec, program="INC", array_ptr=2, cells=[0, 3, 1], output=[2])
    return " ".join(spec.vocab[token] for token in encode(states, outcome)[0])


def test_layouts_by_hand():
    default = "{ [ 1 0 ] [ INC STOP ] [ 0 0 1 ] [ NUM_0 NUM_3 NUM_1 ] [ EOI ] [ NUM_2 EOO ] }"
    assert written() == default
    assert written(punctuation="none") == "1 0 INC STOP 0 0 1 NUM_0 NUM_3 NUM_1 EOI NUM_2 EOO"
    assert written(pointers="index") == "{ [ AT_0 ] [ INC STOP ] [ AT_2 ] [ NUM_0 NUM_3 NUM_1 ] [ EOI ] [ NUM_2 EOO ] }"
    assert written(punctuation="none", pointers="index") == "AT_0 INC STOP AT_2 NUM_0 NUM_3 NUM_1 EOI NUM_2 EOO"
    assert written(punctuation="spaced", pointers="index") == (
        "{ [ AT_0 ] [ INC SPACE STOP ] [ AT_2 ] [ NUM_0 SPACE NUM_3 SPACE NUM_1 ] [ EOI ] [ NUM_2 SPACE EOO ] }"
    )
    assert written(outcome_token=True) == default[:-1] + "[ UNKNOWN ] }"
    overflow = np.array([Outcome.ARRAY_OVERFLOW])
    assert written(overflow, outcome_token=True) == default[:-1] + "[ ARRAY_OVERFLOW ] }"


@pytest.mark.parametrize("style", STYLES, ids=lambda style: "-".join(str(value) for value in style.values()))
def test_every_layout_is_read_back(style):
    for sizes in ({}, {"n_input": 0, "n_output": 0}, {"n_instructions": 1, "n_cells": 1}, {"bits": 8}):
        spec = MachineSpec(**sizes, **style)
        states = sample(spec, 40, seed=5)
        tokens = encode(states)
        assert tokens.shape == (40, spec.state_length) == (40, len(spec.layout.names))
        assert tokens.max() < spec.d_vocab
        assert decode(spec, tokens) == states
        default = dataclasses.replace(spec, pointers="one_hot", punctuation="blocks", outcome_token=False)
        assert np.array_equal(States(default, states.rows).cells, states.cells)
        layout = spec.layout
        assert len(set(layout.names)) == layout.length == len(layout.roles) == len(layout.indices)
        assert layout.roles.max() < layout.n_roles
        for block in layout.blocks:
            slots = range(layout.length)[layout.slice(block)]
            assert [layout.name(position) for position in slots] == [f"{block}[{i}]" for i in range(len(slots))]
            assert [layout.position(block, i) for i in range(len(slots))] == list(slots)
            assert (layout.roles[list(slots)] == 4 + 3 * layout.blocks.index(block)).all()


def test_the_outcome_token_says_what_happened():
    spec = MachineSpec(outcome_token=True, pointers="index")
    transition = step(sample(spec, 300, seed=0))
    shown = encode(transition.next, transition.outcome)
    assert np.array_equal(decode_outcome(spec, shown), transition.outcome)
    assert decode(spec, shown) == transition.next
    assert (decode_outcome(spec, encode(transition.next)) == 255).all()
    with pytest.raises(ValueError, match="outcome must be from 0 to 7, or 255 for none; got 8 at row 0"):
        encode(transition.next[:1], [8])
    with pytest.raises(ValueError, match="outcome needs a layout that shows it"):
        encode(sample(MachineSpec(), 1, seed=0), [0])
    with pytest.raises(ValueError, match="has no outcome token"):
        decode_outcome(MachineSpec(), encode(sample(MachineSpec(), 1, seed=0)))


@pytest.mark.parametrize(
    ("style", "name", "token", "message"),
    [
        (
            {"pointers": "index"},
            "array_ptr[0]",
            "AT_3",
            r"\(array_ptr\[0\]\): one of AT_0 … AT_2 belongs here, got 'AT_3'",
        ),
        ({"pointers": "index"}, "instruction_ptr[0]", "1", "one of AT_0 … AT_1 belongs here, got '1'"),
        (
            {"punctuation": "spaced"},
            "cells.space[0]",
            "NUM_0",
            r"\(cells.space\[0\]\): SPACE belongs here, got 'NUM_0'",
        ),
        ({"punctuation": "none"}, "cells[1]", "EOI", r"\(cells\[1\]\): a number belongs here, got 'EOI'"),
        ({"punctuation": "none"}, "instructions[1]", "INC", "the last instruction must be STOP, got 'INC'"),
        ({"outcome_token": True}, "outcome[0]", "EOI", "an outcome belongs here, got 'EOI'"),
        ({"outcome_token": True}, "outcome.[", "]", "another token belongs here, got ']'"),
        ({"pointers": "index"}, "cells.[", "]", r"\(cells.\[\): another token belongs here, got ']'"),
    ],
)
def test_faults_are_told_where_they_stand(style, name, token, message):
    spec = MachineSpec(**{**TINY, "n_cells": 3, "n_instructions": 2, "n_input": 4}, **style)
    tokens = encode(States.build(spec, program="INC", cells=[0, 3, 1]))
    wrong = spec.token_id(token) if token in spec.vocab else spec.d_vocab
    tokens[0, spec.layout.index(name)] = wrong
    with pytest.raises(ValueError, match=message if token in spec.vocab else message.split(", got")[0]):
        decode(spec, tokens)


def test_bad_styles_are_refused():
    with pytest.raises(ValueError, match="pointers must be one of one_hot, index, got 'binary'"):
        MachineSpec(pointers="binary")
    with pytest.raises(ValueError, match="punctuation must be one of"):
        MachineSpec(punctuation="commas")
    with pytest.raises(TypeError, match="outcome_token must be True or False"):
        MachineSpec(outcome_token=1)  # type: ignore[arg-type]


def test_the_default_style_changes_no_digest():
    spec = MachineSpec()
    assert spec.digest == "f7160382c18d1985"
    assert set(spec.to_dict()) == {"n_instructions", "n_cells", "n_input", "n_output", "bits", "io", "loops", "stops"}
    assert MachineSpec(**MachineSpec(pointers="index").to_dict()).pointers == "index"
    assert MachineSpec(pointers="index").digest != spec.digest
