"""Contrasts of streams, chains and outputs: worked by hand, and against a simulation that reads tokens alone."""

from __future__ import annotations

import numpy as np
import pytest

from cython_vm import MachineSpec, Op, States, program_hash
from interp.tasks import Chain, Output, Trace
from interp.tasks.options import ChainOptions, StreamOptions
from interp.tasks.output_contrasts import exchanged
from interp.tasks.trace_contrasts import Exchange, Executed, pairs_of_streams
from interp.worlds.base import in_split

SPEC = MachineSpec(n_instructions=24, n_cells=4, n_input=6, n_output=6, bits=3)
TRACE = Trace(SPEC, StreamOptions(n_steps=24))
SHORT = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2)
CHAIN = Chain(SHORT, ChainOptions(n_steps=3))
OUTPUT = Output(SHORT, StreamOptions(n_steps=16))


def words(tokens) -> list[str]:
    return [SPEC.vocab[token] for token in tokens.tolist()]


@pytest.mark.parametrize(
    ("program", "given", "exchange", "judged", "before", "after"),
    [
        # INC told as NEXT: PUT reads the empty second cell
        ("+.>.", [], Exchange(0, Op.NEXT), 1, "NUM_1", "NUM_0"),
        # NEXT told as INC: the last PUT reads the first cell, now 2
        ("+.>.", [], Exchange(2, Op.INC), 3, "NUM_0", "NUM_2"),
        # another value read: nothing depends on it until it is printed, three instructions later
        (",>+<.", [5], Exchange(0, Op.GET, 3), 4, "NUM_5", "NUM_3"),
        # WHILE reads 0 and jumps
        (",[-].", [1], Exchange(0, Op.GET, 0), 1, "0", "1"),
        # the second INC told as DEC: WHILE reads 0 and jumps
        ("++[->+<]>.", [], Exchange(1, Op.DEC), 2, "0", "1"),
    ],
)
def test_streams_by_hand(program, given, exchange, judged, before, after):
    starts = States.build(SPEC, program=program, input=given)
    assert Executed(TRACE, starts).first_difference(0, exchange) == judged
    pairs = pairs_of_streams(TRACE, "by hand", [(starts, exchange, judged)], redraw_rate=0.0)
    assert SPEC.vocab[pairs.clean_answer[0, 0]] == before
    assert SPEC.vocab[pairs.corrupted_answer[0, 0]] == after
    clean, corrupted = words(pairs.clean.tokens[0]), words(pairs.corrupted.tokens[0])
    assert clean[pairs.positions[0, 0] + 1] == before
    different = [place for place in range(len(clean)) if clean[place] != corrupted[place]]
    told = exchange.op.name if exchange.value is None else f"NUM_{exchange.value}"
    assert [corrupted[place] for place in different] == [told]


@pytest.mark.parametrize(
    ("program", "given", "exchange"),
    [
        ("+.>.", [], Exchange(2, Op.PREV)),  # freezes at the first cell
        ("+.", [], Exchange(0, Op.DEC)),  # freezes at 0
        ("+>.", [], Exchange(0, Op.NEXT)),  # PUT reads an empty cell all the same
        ("+.+", [], Exchange(2, Op.NEXT)),  # no answer follows
    ],
)
def test_exchanges_that_decide_nothing_are_no_pairs(program, given, exchange):
    assert Executed(TRACE, States.build(SPEC, program=program, input=given)).first_difference(0, exchange) is None


def simulated(tokens: list[str], until: int) -> tuple[str | None, bool]:
    """What the op token at place `until` answers by the tokens before it, and whether all of those were possible."""
    cells, pointer, fits = [0] * SPEC.n_cells, 0, True
    place = 1
    while True:
        op = tokens[place]
        pointer += (op == "NEXT") - (op == "PREV")
        fits = fits and 0 <= pointer < SPEC.n_cells
        if not fits:
            return None, False
        cells[pointer] += (op == "INC") - (op == "DEC")
        fits = fits and 0 <= cells[pointer] <= SPEC.max_value
        answer = None
        if op == "PUT":
            answer = f"NUM_{cells[pointer]}"
        elif op in ("WHILE", "ENDW"):
            answer = str(int((cells[pointer] == 0) == (op == "WHILE")))
        if place == until:
            return answer, fits
        if op == "GET":
            cells[pointer] = int(tokens[place + 1].removeprefix("NUM_"))
        fits = fits and (answer is None or tokens[place + 1] == answer)
        place += 2 if op in ("PUT", "GET", "WHILE", "ENDW") else 1


@pytest.mark.parametrize("name", [op.name for op in Op if op != Op.STOP])
def test_drawn_streams_differ_in_one_token_and_in_the_first_answer_that_depends_on_it(name):
    pairs = TRACE.contrast(name).draw(12, seed=3, half=1)
    assert pairs.contrast == name and len(pairs) == 12
    assert in_split(TRACE.groups(pairs.clean.examples), "evaluation").all()
    for row in range(12):
        clean, corrupted = words(pairs.clean.tokens[row]), words(pairs.corrupted.tokens[row])
        (place,) = (place for place in range(len(clean)) if clean[place] != corrupted[place])
        judged = int(pairs.positions[row, 0])
        answers = [SPEC.vocab[answer[row, 0]] for answer in (pairs.clean_answer, pairs.corrupted_answer)]
        assert answers[0] != answers[1]
        assert simulated(clean, judged) == (answers[0], True)
        assert simulated(corrupted, judged) == (answers[1], True)  # all answers before it are right in both
        if name in ("NEXT", "PREV", "INC", "DEC"):
            assert clean[place] == name and corrupted[place] in ("NEXT", "PREV", "INC", "DEC")
        elif name == "GET":
            assert clean[place - 1] == "GET"
        else:
            assert clean[judged] == name
            assert {clean[place], corrupted[place]} == {"INC", "DEC"} or clean[place - 1] == "GET"
    again = TRACE.contrast(name).draw(12, seed=3, half=1)
    assert (again.corrupted.tokens == pairs.corrupted.tokens).all()
    other = TRACE.contrast(name).draw(12, seed=3, half=0)
    assert not {*other.groups} & {*pairs.groups}


def test_examples_execute_the_op():
    batch = TRACE.contrast("GET").examples(20, 1)
    assert len(batch) == 20 and (batch.tokens == SPEC.op_id(Op.GET)).any(dim=1).all()
    assert len(CHAIN.contrast("PREV").examples(7, 1)) == 7
    assert len(OUTPUT.contrast("PUT").examples(7, 1)) == 7


def test_what_has_no_contrast_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="no contrast 'STOP': it is the last instruction of a run and decides no ans"):
        TRACE.contrast("STOP")
    with pytest.raises(ValueError, match="no contrast 'STOP': every program ends with it"):
        OUTPUT.contrast("STOP")
    with pytest.raises(ValueError, match="no contrast 'WHILE': exchanged, one bracket leaves the other of its pair"):
        OUTPUT.contrast("WHILE")
    with pytest.raises(ValueError, match="no contrast 'STOP': a chain's first step halts nowhere"):
        CHAIN.contrast("STOP")
    with pytest.raises(ValueError, match="a direct chain has no contrasts"):
        Chain(SHORT, ChainOptions(n_steps=3, direct=True)).contrasts()
    with pytest.raises(ValueError, match="has no contrast 'JUMP'; it has NEXT"):
        TRACE.contrast("JUMP")


def test_an_output_by_hand():
    """The one INC becomes each other instruction; the STOPs behind the PUT stay."""
    starts = States.build(SHORT, program="+.", input=[])
    rng = np.random.default_rng(0)
    seen = {}
    for _ in range(40):
        clean, corrupted = exchanged(OUTPUT, starts, Op.INC, rng)
        op = Op(int(corrupted.program[0, 0]))
        assert (clean.program[0, 1:] == corrupted.program[0, 1:]).all()
        tokens = OUTPUT.expected(OUTPUT.world.answer(corrupted))[0]
        seen[op.name] = [SHORT.vocab[token] for token in tokens]
    assert [SHORT.vocab[t] for t in OUTPUT.expected(OUTPUT.world.answer(starts))[0]] == ["NUM_1", "EOO"]
    assert seen == {
        "NEXT": ["NUM_0", "EOO"],
        "PREV": ["EOO", "EOO"],  # freezes
        "DEC": ["EOO", "EOO"],  # freezes
        "PUT": ["NUM_0", "NUM_0"],
        "GET": ["EOO", "EOO"],  # nothing to read
    }


@pytest.mark.parametrize("name", ["NEXT", "INC", "PUT", "GET"])
def test_drawn_outputs_differ_in_one_executed_instruction(name):
    pairs = OUTPUT.contrast(name).draw(20, seed=0, half=0)
    clean, corrupted = pairs.clean.examples, pairs.corrupted.examples
    place = clean.program != corrupted.program
    assert (place.sum(axis=1) == 1).all()
    assert (clean.program[place] == Op[name]).all()
    assert np.isin(corrupted.program[place], [Op.NEXT, Op.PREV, Op.INC, Op.DEC, Op.PUT, Op.GET]).all()
    assert (clean.input == corrupted.input).all()
    answers = [OUTPUT.expected(OUTPUT.world.answer(each)) for each in (clean, corrupted)]
    assert (pairs.clean_answer.numpy() == answers[0]).all()
    assert (pairs.corrupted_answer.numpy() == answers[1]).all()
    assert ((pairs.weights.numpy() > 0) == (answers[0] != answers[1])).all()
    np.testing.assert_allclose(pairs.weights.sum(1), 1)
    assert (program_hash(clean) % 20 == 0).all()


@pytest.mark.parametrize("name", ["NEXT", "INC", "WHILE"])
def test_a_chain_is_judged_on_its_first_next_state(name):
    pairs = CHAIN.contrast(name).draw(15, seed=0, half=1)
    clean, corrupted = pairs.clean.examples, pairs.corrupted.examples
    length = SHORT.state_length
    assert (clean.program[np.arange(15), clean.instruction_ptr] == Op[name]).all()
    assert (clean.instruction_ptr != corrupted.instruction_ptr).all()
    assert (corrupted.replace("instruction_ptr", clean.instruction_ptr)).equal(clean).all()
    world = CHAIN.world
    first, other = (world.step(each) for each in (clean, corrupted))
    assert (first.outcome == 0).all()  # the task's own states: none freezes
    assert (pairs.clean_answer.numpy() == first.tokens()).all()
    assert (pairs.corrupted_answer.numpy() == other.tokens()).all()
    compared = (first.tokens() != other.tokens()) & (world.encode(clean) == world.encode(corrupted))
    assert ((pairs.weights.numpy() > 0) == compared).all()
    assert (pairs.positions.numpy() == np.arange(length - 1, 2 * length - 1)).all()
    shown = pairs.corrupted.tokens[:, length:]
    assert (shown == pairs.clean.tokens[:, length:]).all() and (shown[:, :length] == pairs.clean_answer).all()
