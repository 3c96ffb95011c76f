"""What the drawings say: colours that read, boards that mark what differs, charts with fixed limits."""

import numpy as np
import pandas as pd
import pytest

from app.components.board import Guess, probability, program_board, ribbon, slots_board
from app.components.heads import colored, head_grid
from app.components.heatmap import filled, heatmap
from app.predictions import Prediction, difference
from app.results_view import clearest, controlled_gap, kind_of, overview, site_order, site_words
from app.run_access import split_command
from app.theme import CIVIDIS, GLYPHS, OP_COLORS, SIGNED, contrast, text_on
from cython_vm import MachineSpec, Op, States, encode, step
from interp.results import rows_frame
from interp.worlds.machine import MachineWorld

SPEC = MachineSpec(n_instructions=8, n_cells=6, n_input=3, n_output=3, bits=3)
WORLD = MachineWorld(SPEC)


def test_every_opcode_has_a_glyph_and_a_colour_that_text_reads_on() -> None:
    assert set(GLYPHS) == set(OP_COLORS) == {op.name for op in Op}
    assert len(set(GLYPHS.values())) == len(Op)
    for color in OP_COLORS.values():
        assert contrast(color, text_on(color)) >= 4.5


def test_signed_scale_is_neutral_in_the_middle() -> None:
    middle = SIGNED[len(SIGNED) // 2]
    assert middle[1:3] == middle[3:5] == middle[5:7]


@pytest.mark.parametrize(("p", "text"), [(1.0, ">.99"), (0.994, ".99"), (0.5, ".50"), (0.004, "<.01")])
def test_probabilities_are_never_rounded_to_certainty(p: float, text: str) -> None:
    assert probability(p) == text


def test_the_tape_underlines_what_changes_and_crosses_what_is_wrong() -> None:
    guesses = [Guess("1", 0.9, True), Guess("5", 0.6, False)]
    html = slots_board("Tape", names=["cells[0]", "cells[1]"], now=["0", "2"], truth=["1", "2"], guesses=guesses,
                       pointer=0, next_pointer=1, pointer_guess=[Guess("0", 1, True), Guess("1", 1, True)])  # fmt: skip
    assert html.count("✗") == 1
    assert "<span class='slot wrong'" not in html.split("model says")[0]
    truth = html.split("machine next")[1].split("model says")[0]
    assert "class='slot changed'>1" in truth
    assert "class='slot here'>2" in truth
    assert html.count("▲") == 3  # now, machine, model


def test_boards_escape_what_they_are_given() -> None:
    html = slots_board("<b>", names=["<i>"], now=["<u>"], truth=["<u>"], guesses=[Guess("<u>", 1, True)])
    assert "<b>" not in html
    assert "<u>" not in html


def test_program_board_marks_now_truth_and_prediction() -> None:
    pointer = [Guess("1" if i == 2 else "0", 0.7, i == 0) for i in range(3)]
    html = program_board(["INC", "DEC", "STOP"], pointer=0, next_pointer=1, pointer_guess=pointer,
                         op_guess=[Guess("INC", 1, True)] * 3, n_written=2)  # fmt: skip
    assert html.count("▼") == 1
    assert html.count("▲") == 2  # the machine's next, and where the model puts it
    assert html.count("✗") == 2  # not at 1, and wrongly at 2
    assert html.count('role="button"') == 3


def test_ribbon_says_right_and_wrong_in_words_too() -> None:
    html = ribbon(["INC", "PUT"], [True, False], now=1)
    assert "step 1, INC, predicted right" in html
    assert "step 2, PUT, predicted wrong" in html
    assert html.count("✗") == html.count("✓") == 1


def test_heads_run_over_one_fixed_scale() -> None:
    assert np.array_equal(colored(np.array([0.0, 1.0])), np.array([[0, 34, 78], [254, 232, 56]]))
    html = head_grid(np.full((2, 3, 4, 4), 0.25), picked=(1, 2))
    assert html.count("data-pick=") == 6
    assert 'data-pick="1.2"' in html.split("class='head now'")[1].split(">")[0]


def test_heatmap_keeps_given_limits_and_leaves_gaps_empty() -> None:
    values = np.array([[0.1, np.nan], [0.2, 0.3]])
    spec = heatmap(values, rows=["a", "b"], columns=["x", "y"], limits=(-1, 1), colors=SIGNED, picked=(1, 0))
    assert (spec["visualMap"]["min"], spec["visualMap"]["max"]) == (-1, 1)
    assert filled(values) == [(0, 0), (1, 0), (1, 1)]
    data = spec["series"][0]["data"]
    assert [item["value"][:3] for item in data] == [[0, 0, 0.1], [0, 1, 0.2], [1, 1, 0.3]]
    assert ["itemStyle" in item for item in data] == [False, True, False]
    assert len({item["name"] for item in data}) == 3  # a click picks one cell, not a column


def prediction_of(state: States, **edits: str) -> Prediction:
    """A prediction that is right but for the slots named in `edits` (brackets in names as double underscores)."""
    truth = encode(step(state).next).astype(np.int64)
    tokens = truth.copy()
    for name, token in edits.items():
        tokens[0, SPEC.layout.index(name.replace("__", "[") + "]")] = SPEC.token_id(token)
    return Prediction(tokens, truth, np.ones(truth.shape, np.float32), np.ones(truth.shape, np.float32))


def test_difference_is_said_in_a_sentence() -> None:
    state = States.build(SPEC, program="INC NEXT", cells=[2])
    assert difference(prediction_of(state), 0, SPEC) == "All 48 slots of the predicted state are right."
    wrong = prediction_of(state, cells__0="NUM_5", instruction_ptr__1="0", instruction_ptr__3="1")
    said = difference(wrong, 0, SPEC)
    assert "puts the instruction pointer at 3 (the machine: at 1)" in said
    assert "says 5 in cell 0 (the machine: 3)" in said
    assert said.endswith("The other 45 of 48 slots are right.")
    assert not wrong.right[0]
    both = difference(prediction_of(state, array_ptr__3="1"), 0, SPEC)
    assert "puts the array pointer at 0 and 3 (the machine: at 0)" in both
    nowhere = difference(prediction_of(state, array_ptr__0="0"), 0, SPEC)
    assert "puts the array pointer nowhere (the machine: at 0)" in nowhere


def probe_rows() -> pd.DataFrame:
    key = {"task": "step_inplace", "method": "logistic", "metric": "accuracy", "n": 100}
    first = {**key, "variable": "operand", "position": "array_ptr", "site": "blocks.0.hook_resid_post"}
    second = {**key, "variable": "cell[1]", "position": "array_ptr", "site": "hook_embed"}
    return rows_frame(
        [
            {**first, "estimate": 0.9},
            {**first, "estimate": 0.3, "control": "control_task"},
            {**first, "estimate": 0.5, "control": "embedding_only"},
            {**second, "estimate": 0.4},
        ]
    )


def test_gap_joins_each_row_with_its_own_control() -> None:
    gap = controlled_gap(probe_rows(), "control_task")
    assert gap.gap.tolist() == pytest.approx([0.6])  # the second row has no such control and is left out
    assert controlled_gap(probe_rows(), "embedding_only").gap.tolist() == pytest.approx([0.4])
    values, variables, columns = overview(probe_rows(), "estimate")
    assert variables == ["operand", "cell[1]"]
    assert columns == [("array_ptr", "hook_embed"), ("array_ptr", "blocks.0.hook_resid_post"), None]
    assert np.isnan(values[0, 0])
    assert values[1, 0] == pytest.approx(0.4)


def test_the_clearest_variable_stands_above_its_best_control() -> None:
    assert clearest(probe_rows()) == [("operand", "array_ptr", "blocks.0.hook_resid_post", pytest.approx(0.4))]


def test_sites_and_variables_are_named_and_ordered() -> None:
    sites = ["blocks.1.hook_resid_post", "hook_embed", "blocks.0.hook_resid_post", "blocks.1.hook_attn_out"]
    assert [site_words(site) for site in site_order(sites)] == ["embedding", "after L0", "attention L1", "after L1"]
    assert (kind_of(WORLD, "cell[3]"), kind_of(WORLD, "operand"), kind_of(WORLD, "next_cell[0]")) == (
        "root",
        "fetch",
        "result",
    )


@pytest.mark.parametrize(
    ("message", "sentence", "command"),
    [
        ("runs/x/probes.parquet does not exist yet; make it with: tapelens probe runs/x",
         "runs/x/probes.parquet does not exist yet.", "tapelens probe runs/x"),
        ("a/b was measured under config 1, but this run is 2; make it anew with: tapelens probe a --fresh",
         "a/b was measured under config 1, but this run is 2.", "tapelens probe a --fresh"),
        ("r/model.safetensors is not a whole safetensors file (x); restore it or train again",
         "r/model.safetensors is not a whole safetensors file (x).", "tapelens train --fresh --out r"),
        ("no run has format 9; this version reads format 1", "No run has format 9; this version reads format 1.", ""),
    ],
)  # fmt: skip
def test_messages_split_into_sentence_and_command(message: str, sentence: str, command: str) -> None:
    assert split_command(message) == (sentence, command)


def test_cividis_grows_steadily_lighter() -> None:
    from app.theme import luminance

    assert [luminance(c) for c in CIVIDIS] == sorted(luminance(c) for c in CIVIDIS)
