"""Pairs for state interchange, against the machine in slow Python."""

import pytest
import torch

from cython_vm import MachineSpec, Op, Outcome, reference
from interp.tasks import TASKS, Trace
from interp.tasks.options import TaskOptions

SPEC = MachineSpec(n_instructions=24, n_cells=4, n_input=6, n_output=6, bits=3)
TASK = Trace(SPEC, TaskOptions(n_steps=24))
JUDGED = (Op.PUT, Op.WHILE, Op.ENDW)


def told_states(tokens: list[str]):
    """The tape machine fed a stream's tokens: (pointer, cells) before each token, by position; None once it ended."""
    pointer, cells, found = 0, [0] * SPEC.n_cells, []
    for place, token in enumerate(tokens):
        found.append((pointer, list(cells)))
        if token == "NEXT":
            pointer += 1
        elif token == "PREV":
            pointer -= 1
        elif token in ("INC", "DEC"):
            if not 0 <= pointer < SPEC.n_cells:
                break
            cells[pointer] += 1 if token == "INC" else -1
        elif token == "GET" and tokens[place + 1].startswith("NUM_"):
            cells[pointer] = int(tokens[place + 1][4:])
        if not (0 <= pointer < SPEC.n_cells and 0 <= cells[pointer] <= SPEC.max_value):
            break
    return found


def answer_of(op: str, value: int) -> str:
    return f"NUM_{value}" if op == "PUT" else str(int(value == 0 if op == "WHILE" else value != 0))


@pytest.mark.parametrize(
    "name", ["array_ptr", "cell[0]", "cell[1]", "cell[@array_ptr+0]", "cell[@array_ptr-1]", "cell[@array_ptr+1]"]
)
def test_the_expected_answer_is_base_from_the_edited_state(name: str) -> None:
    """Base's own tokens behind the edit are executed from the edited pointer and cells, by hand."""
    pairs = TASK.state_pairs(40, name, seed=0)
    assert int(pairs.changes.sum()) == 40
    vocab = SPEC.vocab
    for row in range(len(pairs)):
        base, source = ([vocab[t] for t in getattr(pairs, side)[row].tolist()] for side in ("base", "source"))
        at, judged = int(pairs.at[row]), int(pairs.positions[row])
        (pointer, cells), (other, tape) = told_states(base)[at + 1], told_states(source)[at + 1]
        if name == "array_ptr":
            value, pointer = other, other
        else:
            offset = int(name[len("cell[@array_ptr") : -1]) if "@" in name else None
            place = int(name[5:-1]) if offset is None else pointer + offset
            value = tape[int(name[5:-1]) if offset is None else other + offset]
            cells[place] = value
        assert value == pairs.values[row]
        for position in range(at + 1, judged):
            token = base[position]
            pointer += {"NEXT": 1, "PREV": -1}.get(token, 0)
            if token in ("INC", "DEC"):
                cells[pointer] += 1 if token == "INC" else -1
            if token == "GET":
                cells[pointer] = int(base[position + 1][4:])
        assert vocab[pairs.expected[row]] == answer_of(base[judged], cells[pointer])
        assert vocab[pairs.unedited[row]] == base[judged + 1]
        assert Op(int(pairs.op[row])).name == base[judged]
        between = [token for token in base[at + 1 : judged] if token in Op.__members__]
        assert len(between) == pairs.lag[row]


def test_sources_of_the_same_value_and_another_time() -> None:
    pairs = TASK.state_pairs(60, "cell[1]", seed=1)
    alike = differs = 0
    for row in range(len(pairs)):
        at = int(pairs.at[row])
        if pairs.same[row, 0] >= 0:
            tokens = [SPEC.vocab[t] for t in pairs.same[row].tolist()]
            base = [SPEC.vocab[t] for t in pairs.base[row].tolist()]
            assert told_states(tokens)[at + 1][1][1] == told_states(base)[at + 1][1][1]
            assert tokens != [SPEC.vocab[t] for t in pairs.source[row].tolist()] or not pairs.changes[row]
            alike += 1
        source = [SPEC.vocab[t] for t in pairs.source[row].tolist()]
        assert pairs.other_at[row] != at
        differs += told_states(source)[int(pairs.other_at[row]) + 1][1][1] != pairs.values[row]
    assert alike > 20 and differs > 20


@pytest.mark.parametrize("name", ["cell[0]", "cell[@array_ptr+1]"])
def test_bystanders_read_another_cell(name: str) -> None:
    """The judged cell is not the one that is set, and the world's answer with the edit is base's own."""
    pairs = TASK.state_pairs(40, name, seed=2, kind="bystander")
    assert len(pairs) == 40 and not pairs.changes.any()
    for row in range(40):
        base = [SPEC.vocab[t] for t in pairs.base[row].tolist()]
        told, at, judged = told_states(base), int(pairs.at[row]), int(pairs.positions[row])
        place = told[at + 1][0] + 1 if "@" in name else 0
        assert told[judged][0] != place
        assert not set(base[at + 1 : judged]) & {op.name for op in JUDGED}
    with pytest.raises(ValueError, match="no bystanders"):
        TASK.state_pairs(4, "array_ptr", seed=0, kind="bystander")


def test_retrieval_pairs_are_asked_in_base_and_source() -> None:
    pairs = TASK.state_pairs(40, "operand", seed=3, kind="retrieved")
    assert not pairs.lag.any()
    assert torch.equal(pairs.positions, pairs.at + 1)
    ops = {SPEC.op_id(op) for op in JUDGED}
    for side in (pairs.base, pairs.source):
        assert set(side.gather(1, pairs.positions[:, None])[:, 0].tolist()) <= ops


def test_splits_and_refusals() -> None:
    pairs = TASK.state_pairs(10, "cell[0]", seed=0, split="fit")
    held = TASK.state_pairs(10, "cell[0]", seed=0)
    assert not set(pairs.groups.tolist()) & set(held.groups.tolist())
    with pytest.raises(ValueError, match="can be set"):
        TASK.state_pairs(4, "result", seed=0)
    with pytest.raises(ValueError, match="tells no stream"):
        TASKS["step_inplace"](SPEC).state_pairs(4, "operand", seed=0)


def test_the_reference_takes_these_streams() -> None:
    """The hand-made reading of streams above is the machine's."""
    batch = TASK.sample(20, seed=5)
    for row in range(len(batch)):
        tokens = [SPEC.vocab[t] for t in batch.tokens[row].tolist()]
        found, state = told_states(tokens), reference.to_state(batch.examples, row)
        for position, token in enumerate(tokens):
            if position and token in Op.__members__:
                assert (state.array_ptr, list(state.cells)) == found[position]
                state, latents = reference.step(SPEC, state)
                if latents["outcome"] != Outcome.RAN:
                    break
