"""Programs as a person types them, the walk of the machine, and addresses that bring a start back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import program
from app.program import ProgramError, Start
from app.selection import Selection, parse, spell
from cython_vm import MachineSpec, Op, Outcome, sample

SPEC = MachineSpec(n_instructions=8, n_cells=6, n_input=3, n_output=3, bits=3)
OPS = tuple(op.name for op in Op)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("+[-]", "INC WHILE DEC ENDW"),
        ("inc while dec endw", "INC WHILE DEC ENDW"),
        ("> < . ,", "NEXT PREV PUT GET"),
        ("INC ++", "INC INC INC"),
        ("+ STOP - STOP STOP", "INC STOP DEC"),
        ("", ""),
    ],
)
def test_words_and_signs_spell_programs(text: str, names: str) -> None:
    assert program.parse(text, SPEC) == tuple(names.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("+[", "WHILE without an ENDW"),
        ("]", "ENDW without a WHILE"),
        ("FOO", "'FOO' is neither"),
        ("+" * 9, "9 instructions; this machine has 8 slots"),
    ],
)
def test_bad_programs_get_one_sentence(text: str, expected: str) -> None:
    with pytest.raises(ProgramError, match=expected) as caught:
        program.parse(text, SPEC)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(("text", "expected"), [("8", "from 0 to 7; got '8'"), ("x", "got 'x'"), ("1 2 3 4", "got 4")])
def test_bad_input_gets_one_sentence(text: str, expected: str) -> None:
    with pytest.raises(ProgramError, match=expected):
        program.parse_numbers(text, what="input", limit=SPEC.n_input, spec=SPEC)


def test_the_example_loops_prints_and_halts() -> None:
    walk = program.walk(program.build(program.first(SPEC), SPEC))
    assert walk.ending == "halted"
    assert walk.ops.count("ENDW") == 3  # went round
    assert list(walk.states.output[-1]) == [3, 2, 1]  # printed
    assert walk.n_steps == 14


@pytest.mark.parametrize(
    ("text", "ending", "outcome"),
    [
        ("<", "froze", Outcome.ARRAY_UNDERFLOW),
        ("+[>+]", "froze", Outcome.ARRAY_OVERFLOW),
        (",,,,", "froze", Outcome.INPUT_EMPTY),
        ("+[]", "cut", Outcome.RAN),
    ],
)
def test_a_walk_says_why_it_ended(text: str, ending: str, outcome: Outcome) -> None:
    start = Start(program=program.parse(text, SPEC), input=(1, 2, 3))
    walk = program.walk(program.build(start, SPEC))
    assert (walk.ending, walk.outcomes[-1]) == (ending, outcome.name)
    assert walk.n_steps == (program.MAX_STEPS if ending == "cut" else len(walk.ops))


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_any_state_survives_the_address(seed: int) -> None:
    state = sample(SPEC, 1, seed=seed)
    start = program.from_address(program.to_address(program.of_state(state)), SPEC)
    assert start is not None
    assert program.build(start, SPEC) == state


@pytest.mark.parametrize(
    "parameters", [{"program": "FOO"}, {"program": "INC", "array_ptr": "6"}, {"program": "INC", "cells": "9"},
                   {"program": "INC", "instruction_ptr": "x"}, {"program": "INC", "input": "1.1.1.1"}]
)  # fmt: skip
def test_a_broken_address_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        program.from_address(parameters, SPEC)


def test_every_machine_gets_an_example() -> None:
    for spec in (SPEC, MachineSpec(), MachineSpec(1, 1, 0, 0, 1), MachineSpec(loops=False), MachineSpec(io=False)):
        assert program.walk(program.build(program.first(spec), spec)).n_steps >= 1


@given(
    pick=st.sampled_from(
        [("", ""), ("head", "1.3:cells[2]"), ("edge", "input->a1.h3<q>"), ("probe", "op|hook_embed|all")]
    ),
    op=st.sampled_from(["", *OPS]),
    step=st.integers(0, 199),
)
def test_a_selection_survives_the_address(pick: tuple[str, str], op: str, step: int) -> None:
    chosen = Selection(kind=pick[0], id=pick[1], op=op, step=step)
    assert parse(spell(chosen), OPS) == (chosen, [])


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"kind": "cat", "id": "x"}, "kind='cat'"),
        ({"kind": "node"}, "nothing is picked"),
        ({"op": "JUMP"}, "op='JUMP'"),
        ({"step": "-1"}, "step='-1'"),
        ({"step": "0"}, "step='0'"),
    ],
)
def test_a_stale_address_falls_back_with_a_notice(parameters: dict[str, str], told: str) -> None:
    chosen, notices = parse(parameters, OPS)
    assert chosen == Selection()
    assert len(notices) == 1
    assert told in notices[0]
