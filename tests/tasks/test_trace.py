"""The hidden-state task: streams, what they determine, and what would be answered if a variable were changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec, Op, Outcome, States, reference, run
from cython_vm.long_runs import sample_long_runs
from interp.tasks import Trace, TraceBatch
from interp.tasks.options import StreamOptions, TaskOptions
from interp.worlds import in_split

SPEC = MachineSpec(n_instructions=24, n_cells=4, n_input=6, n_output=6, bits=3)
TASK = Trace(SPEC, TaskOptions(n_steps=24))
WIDE = MachineSpec(n_instructions=96, n_input=32, n_output=32)


def stream(task: Trace, program: str, **state) -> list[str]:
    tokens = task.render(States.build(task.spec, program=program, **state)).tokens[0].tolist()
    return [task.spec.vocab[token] for token in tokens]


def test_a_stream_by_hand() -> None:
    told = " ".join(stream(TASK, "+[->+<]>.,.", input=[5]))
    assert told.startswith("{ INC WHILE 0 DEC NEXT INC PREV ENDW 0 NEXT PUT NUM_1 GET NUM_5 PUT NUM_5 STOP } }")
    asked = TASK.render(States.build(SPEC, program="+[->+<]>.,.", input=[5]))
    positions = asked.loss_mask[0].nonzero().flatten().tolist()
    assert [stream(TASK, "+[->+<]>.,.", input=[5])[p] for p in positions] == ["WHILE", "ENDW", "PUT", "PUT"]
    assert [SPEC.vocab[t] for t in asked.targets[0, positions].tolist()] == ["0", "0", "NUM_1", "NUM_5"]


def test_the_instruction_that_freezes_is_the_last_and_has_no_answer() -> None:
    assert stream(TASK, "+,", input=[])[:5] == ["{", "INC", "GET", "}", "}"]
    short = Trace(SPEC, TaskOptions(n_steps=2))
    assert stream(short, ".." + "+" * 9) == ["{", "PUT", "NUM_0", "PUT", "NUM_0"]


@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_streams_are_the_references_runs(split) -> None:
    batch = TASK.sample(40, seed=0, split=split)
    for row in range(40):
        state, expected = reference.to_state(batch.examples, row), ["{"]
        assert state.instruction_ptr == state.array_ptr == 0 and not any(state.cells) and not state.output
        for _ in range(24):
            state, latents = reference.step(SPEC, state)
            op, ran = Op(latents["op"] or 0), latents["outcome"] == Outcome.RAN
            expected.append(op.name)
            if not ran:
                break
            if op in (Op.PUT, Op.GET):
                expected.append(f"NUM_{latents['emitted' if op == Op.PUT else 'result']}")
            elif op in (Op.WHILE, Op.ENDW):
                expected.append(str(latents["branch_taken"]))
        names = [SPEC.vocab[token] for token in batch.tokens[row].tolist()]
        assert names == expected + ["}"] * (len(names) - len(expected))


def test_long_runs_are_long_and_varied() -> None:
    states = sample_long_runs(WIDE, 600, n_steps=64, seed=0)
    told = run(states, 64)
    assert (told.n_steps == 64).mean() > 0.85
    assert told.states is not None
    assert (np.bincount(told.states.array_ptr, minlength=10) > 0.01 * len(told.states)).all()
    assert (np.bincount(told.states.cells.ravel(), minlength=16) > 0).all()
    jumps = np.diff(told.states.instruction_ptr.astype(int)) < 0
    assert jumps.sum() > 600  # loops iterate
    assert sample_long_runs(WIDE, 10, n_steps=64, seed=0, start=90) == states[90:100]
    required = sample_long_runs(SPEC, 50, n_steps=(4, 30), required=30, seed=1)
    assert (run(required, 30, keep="last").n_steps == 30).all()
    with pytest.raises(ValueError, match="padded"):
        sample_long_runs(MachineSpec(padded=True), 1, n_steps=4, seed=0)


def replay(tokens: list[str]) -> list[dict[str, int]]:
    """What a reader of the stream alone knows at each token, from the rules of the machine and nothing else."""
    pointer, cells, printed, depth, known = 0, [0] * SPEC.n_cells, 0, 0, []
    at = 1
    known.append(
        {"array_ptr": 0, "operand": 0, "op": -1, "emitted": -1, "loop_depth": 0, "output_length": 0, "result": -1}
        | {f"cell[{i}]": 0 for i in range(SPEC.n_cells)}
    )
    while at < len(tokens) and tokens[at] != "}":
        op, value = tokens[at], cells[pointer]
        answer = (
            tokens[at + 1] if at + 1 < len(tokens) and tokens[at + 1][0] in "N01" and tokens[at + 1] != "NEXT" else None
        )
        result = {"INC": value + 1, "DEC": value - 1}.get(op, value)
        if result > SPEC.max_value or result < 0:
            result = value
        before = {
            "array_ptr": pointer,
            "operand": value,
            "op": int(Op[op]),
            "loop_depth": depth,
            "output_length": printed,
        }
        before |= {f"cell[{i}]": cell for i, cell in enumerate(cells)}
        before |= {"emitted": value if op == "PUT" and printed < SPEC.n_output else -1}
        known.append(before | {"result": -1 if op == "GET" else result})
        if op == "GET" and answer is not None:
            result = int(answer[4:])
        if answer is not None:
            known.append(before | {"result": result})
        frozen = (op == "NEXT" and pointer == SPEC.n_cells - 1) or (op == "PREV" and pointer == 0)
        pointer += 0 if frozen else (op == "NEXT") - (op == "PREV")
        cells[before["array_ptr"]] = result
        printed += op == "PUT"
        depth += (op == "WHILE" and answer == "0") - (op == "ENDW" and answer == "0")
        at += 1 if answer is None else 2
    return known


def test_labels_are_what_a_reader_of_the_stream_works_out() -> None:
    batch = TASK.sample(40, seed=1)
    labels = {
        name: TASK.labels(batch, name)
        for name in (
            "array_ptr",
            "operand",
            "op",
            "emitted",
            "loop_depth",
            "output_length",
            "result",
            *(f"cell[{i}]" for i in range(4)),
        )
    }
    for row in range(40):
        known = replay([SPEC.vocab[token] for token in batch.tokens[row].tolist()])
        for position, values in enumerate(known):
            assert {name: int(table[row, position]) for name, table in labels.items()} == values
        assert all((table[row, len(known) :] == -1).all() for table in labels.values())


def test_instruction_ptr_is_lost_after_an_unknown_loop_and_found_by_jumping_back() -> None:
    batch = TASK.render(States.build(SPEC, program="++[->[.]<]+"))
    names = [SPEC.vocab[token] for token in batch.tokens[0].tolist()]
    ptr = TASK.labels(batch, "instruction_ptr")[0]
    skipped = names.index("1")  # the inner loop is jumped over: how long it is cannot be known
    assert names[skipped - 1] == "WHILE" and ptr[skipped] == 5
    assert names[skipped + 1] == "PREV" and ptr[skipped + 1] == -1
    back = names.index("ENDW")
    assert ptr[back] == -1 and TASK.labels(batch, "jump_target")[0, back] == 3
    assert names[back + 2] == "DEC" and ptr[back + 2] == 3
    assert (TASK.labels(batch, "input_length")[0] == -1).all()
    last = names.index("STOP")
    halting = TASK.labels(batch, "steps_to_halt")[0]
    assert halting[last] == 0 and (np.delete(halting, last) == -1).all()


def test_steps_since_revealed_by_hand() -> None:
    batch = TASK.render(States.build(SPEC, program=",+.[-]>+", input=[0]))
    names = [SPEC.vocab[token] for token in batch.tokens[0].tolist()]
    assert " ".join(names).startswith("{ GET NUM_0 INC PUT NUM_1 WHILE 0 DEC ENDW 0 NEXT INC STOP } } }")
    cell = TASK.steps_since_revealed(batch)[0, :14, 0].tolist()
    #               {  GET  0 INC PUT  1 WHILE 0 DEC ENDW 0 NEXT INC STOP; WHILE shows only that it is not 0
    assert cell == [-1, -1, 0, 1, 2, 0, 1, 1, 2, 3, 0, 1, 2, 3]


def test_score_by_op_branch_and_age() -> None:
    batch = TASK.sample(200, seed=2, split="train")
    predicted = batch.targets.clone()
    put = (batch.tokens == SPEC.op_id(Op.PUT)) & batch.loss_mask
    predicted[put] = SPEC.token_id("EOO")
    scores = TASK.score(predicted, batch)
    rows = scores[scores["metric"] == "exact_match"]
    exact = dict(zip(zip(rows["op"], rows["stratum"], strict=True), rows["estimate"], strict=True))
    assert exact.pop(("PUT", "emitted")) == 0
    assert set(exact.values()) == {1.0} and len(exact) == 4
    ages = scores[scores["metric"] == "token_accuracy"]
    assert np.asarray(ages["n"]).sum() == int(put.sum()) and not np.asarray(ages["estimate"]).any() and len(ages) > 4
    whole = scores.loc[scores["metric"] == "sequence_match", "estimate"].item()
    assert whole == pytest.approx(1 - float(put.any(dim=1).float().mean()))


@pytest.mark.parametrize(
    ("name", "design"),
    [("operand", "independent"), ("array_ptr", "independent"), ("cell[1]", "independent"), ("operand", "minimal")],
)
def test_counterfactual_answers_by_a_reader_of_the_base_stream(name: str, design) -> None:
    """The edited run follows the ops of the base stream; until the judged answer, other answers are as they were."""
    pairs = TASK.counterfactual(40, name, seed=3, design=design, split="train")
    edited = TASK.resolve("stream[@step]", pairs.base, pairs.edit_time)[:, 0].numpy()
    taken = TASK.resolve("stream[@step]", pairs.source, pairs.source_time)[:, 0].numpy()
    assert (TASK.labels(pairs.base, name)[np.arange(40), edited] >= 0).all()
    assert (TASK.labels(pairs.source, name)[np.arange(40), taken] == pairs.values).all()
    assert isinstance(pairs.base, TraceBatch)
    told = pairs.base.run
    assert told.states is not None and told.offsets is not None
    for row in range(40):
        edit, judged = int(pairs.edit_time[row]), int(pairs.judged_time[row])
        steps = told.row(row)
        pointer, cells = int(steps.array_ptr[edit]), steps.cells[edit].astype(int).tolist()
        value = int(pairs.values[row])
        if name == "array_ptr":
            pointer = value
        elif name == "cell[1]":
            cells[1] = value
        for k in range(edit, judged + 1):
            op = Op(steps.program[k][steps.instruction_ptr[k]])
            operand = value if name == "operand" and k == edit else cells[pointer]
            if op in (Op.PUT, Op.WHILE, Op.ENDW):
                real = int(steps.cells[k][steps.array_ptr[k]])
                if k == judged:
                    branch = int((operand == 0) == (op == Op.WHILE))
                    expected = SPEC.number_id(operand) if op == Op.PUT else SPEC.token_id(str(branch))
                    assert pairs.expected[row, 0] == expected
                else:
                    assert operand == real  # not touched by the edit
            elif op == Op.GET:
                cells[pointer] = int(steps.cells[k + 1][steps.array_ptr[k]])
            else:
                cells[pointer] = operand + (op == Op.INC) - (op == Op.DEC) if op in (Op.INC, Op.DEC) else cells[pointer]
                pointer += (op == Op.NEXT) - (op == Op.PREV)
                assert 0 <= pointer < 4 and 0 <= cells[pointer] <= 7
        at = (row, int(pairs.positions[row, 0]))
        assert pairs.unedited[row, 0] == pairs.base.targets[at] == pairs.base.tokens[row, at[1] + 1]
    assert pairs.changes.any() and (design == "minimal" or not pairs.changes.all())
    if design == "minimal":
        assert (pairs.base.examples.program == pairs.source.examples.program).all()
        assert ((pairs.base.examples.input != pairs.source.examples.input).sum(axis=1) == 1).all()


def test_what_cannot_be_swapped_is_refused() -> None:
    for name, match in {"op": r"operand, array_ptr, cell\[i\]", "opernad": "no variable"}.items():
        with pytest.raises(ValueError, match=match):
            TASK.counterfactual(4, name, seed=0)
    with pytest.raises(ValueError, match="array_ptr.*no minimal pairs"):
        TASK.counterfactual(4, "array_ptr", seed=0, design="minimal")


def test_training_sees_no_padding() -> None:
    batch = TASK.sample(8, seed=0, split="train")
    trimmed = TASK.trim(batch)
    assert trimmed.loss_mask[:, -1].any() and not batch.loss_mask[:, trimmed.tokens.shape[1] :].any()
    assert torch.equal(batch.tokens[:, : trimmed.tokens.shape[1]], trimmed.tokens)


def test_units_are_what_the_model_is_shown() -> None:
    """With units="shown" a stream is in one split whatever its program says beyond what it executes."""
    task = Trace(SPEC, StreamOptions(n_steps=24, units="shown"))
    splits = ("fit", "validation", "evaluation")
    drawn = {split: task.sample(60, seed=2, split=split) for split in splits}
    shown = {split: {tuple(row) for row in batch.tokens.tolist()} for split, batch in drawn.items()}
    for one in splits:
        assert in_split(task.groups(drawn[one].examples), one).all()
        assert not any(shown[one] & shown[other] for other in splits if other != one)
    again = task.sample(20, seed=2, start=40, split="evaluation")
    assert torch.equal(again.tokens, drawn["evaluation"].tokens[40:]), "a row depends on its number alone"
    batch = task.sample(300, seed=3, split="all")
    hashes = task.groups(batch.examples)
    for rows in ({tuple(row): h for row, h in zip(batch.tokens.tolist(), hashes, strict=True)},):
        assert len(rows) == len(set(hashes)), "equal streams have equal hashes, others others"


def test_positions_of_an_executed_step() -> None:
    batch = TASK.render(States.build(SPEC, program=",>,<[-]", input=[2, 3]))
    assert TASK.resolve("stream[@step]", batch, 0).tolist() == [[1]]
    assert TASK.resolve("stream[@step]", batch, 2).tolist() == [[4]]  # `,` value `>` `,`
    assert TASK.resolve("stream[@before]", batch, 2).tolist() == [[3]]
    assert TASK.resolve("stream[@before]+stream[0]", batch, 2).tolist() == [[3, 1]]
    with pytest.raises(ValueError, match="stream 0 has no executed instruction 60"):
        TASK.resolve("stream[@step]", batch, 60)
