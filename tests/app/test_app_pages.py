"""Every page without a browser, on a whole run; test_app_broken_runs.py has the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

import interp
from app import program
from app.predictions import predict
from app.probe_errors import confusion
from app.theme import token_text
from cython_vm import MachineSpec, Op, decode, encode, sample
from cython_vm import step as machine_step
from interp.calibration import score
from interp.compiled import compile_model
from interp.probing import SweepConfig
from interp.runs.compiled_run import compile_run
from interp.runs.probe_errors import read_errors
from interp.studies.probe_sweep import probe_run

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
PAGES = ("step", "attention", "probe_results", "circuit", "intervene")


def button(at: AppTest, key: str):
    return next(b for b in at.button if b.key == key)


def box(at: AppTest, key: str):
    return next(b for b in at.selectbox if b.key == key)


@pytest.mark.parametrize("page", PAGES)
def test_a_whole_run_opens_without_complaint(page: str, open_page: Open, run_folder: Path) -> None:
    at = open_page(page, run_folder)
    assert not at.exception
    assert not at.error


def test_a_compiled_run_shows_its_answer_key(open_page: Open, words: Words, tmp_path: Path) -> None:
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)
    compile_run(compile_model(spec), tmp_path / "compiled")
    at = open_page("step", tmp_path / "compiled")
    assert not at.exception
    assert "whose weights were set by hand" in words(at)
    at = open_page("attention", tmp_path / "compiled", kind="head", id="1.1:{")
    assert not at.exception
    assert "it attends to the slot of instructions that instruction_ptr points to" in words(at)


@pytest.mark.parametrize(
    ("page", "method", "called"),
    [
        ("probe_results", "logistic", "logistic"),
        ("circuit", "eap_ig", "edge scores by EAP-IG, attribution with integrated gradients"),
    ],
)
def test_results_stand_beside_their_calibration(
    page: str, method: str, called: str, open_page: Open, words: Words, run_folder: Path
) -> None:
    phrase = score(method)
    assert phrase is not None
    assert f"whose mechanism is known, {called}: {phrase}" in words(open_page(page, run_folder))


def test_the_status_is_the_models_own(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("step", run_folder)
    run = interp.load(run_folder)
    walk = program.walk(program.build(program.first(run.config.spec), run.config.spec))
    right = (run.predict(encode(walk.states[:-1])) == encode(walk.states[1:])).all(axis=1)
    for step in range(3):
        said = at.markdown[0].value
        assert f"step {step + 1} of {walk.n_steps}" in said
        assert f"next **{walk.ops[step]}**" in said
        assert ("right ✓" if right[step] else "wrong ✗") in said
        button(at, "next").click().run()
    told = words(at)
    if right.all():
        assert f"all **{walk.n_steps}** steps right" in told
    else:
        assert f"**{(~right).sum()} of {walk.n_steps}** steps" in told


def test_back_and_next_stop_at_the_ends(open_page: Open, run_folder: Path) -> None:
    at = open_page("step", run_folder, step="14")
    assert button(at, "next").disabled
    assert not button(at, "back").disabled
    at = open_page("step", run_folder)
    assert button(at, "back").disabled


@pytest.mark.parametrize(
    ("typed", "told"),
    [("+[", "WHILE without an ENDW"), ("jump", "'jump' is neither"), ("+" * 300, "300 instructions")],
)
def test_a_bad_program_is_refused_and_the_old_one_stays(
    typed: str, told: str, open_page: Open, run_folder: Path
) -> None:
    at = open_page("step", run_folder)
    before = at.markdown[0].value
    at.text_input[0].set_value(typed)
    next(b for b in at.button if b.label == "Run it").click().run()
    assert told in at.error[0].value
    assert at.markdown[0].value == before
    assert not at.exception


def test_a_typed_program_runs_and_enters_the_address(open_page: Open, run_folder: Path) -> None:
    at = open_page("step", run_folder)
    at.text_input[0].set_value("inc inc put")
    at.text_input[1].set_value("3")
    next(b for b in at.button if b.label == "Run it").click().run()
    assert "step 1 of 4" in at.markdown[0].value
    assert at.query_params["program"] in ("INC INC PUT", ["INC INC PUT"])
    assert at.query_params["input"] in ("3", ["3"])


def test_a_link_restores_program_step_and_op(open_page: Open, run_folder: Path) -> None:
    at = open_page("step", run_folder, program="NEXT INC PREV", step="2", cells="1.0.2")
    assert "step 2 of 4 · next **INC**" in at.markdown[0].value


def test_a_stale_link_says_so_and_shows_the_example(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("step", run_folder, program="WHILE", step="99", kind="node")
    told = words(at)
    assert "cannot run here" in told
    assert "Step 99 does not exist" in told
    assert "nothing is picked" in told
    assert "step 14 of 14" in at.markdown[0].value


def test_why_leads_to_the_circuit_of_that_op(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("step", run_folder, step="5")
    button(at, "why").click().run()
    assert not at.exception
    assert "The circuit of PUT `.`" in words(at)


def test_probe_cell_shows_its_controls(open_page: Open, run_folder: Path) -> None:
    frame = interp.load(run_folder).frame("probes")
    cell = frame.loc[frame.control == "control_task"].iloc[0]
    at = open_page("probe_results", run_folder, kind="probe", id=f"{cell.variable}|{cell.site}|{cell.position}")
    table = at.dataframe[0].value
    assert not at.exception
    assert set(table["measured or control"]) > {"measured", "control_task"}
    assert len(table["n"].dropna())


def test_circuit_names_its_strongest_edges_and_its_null(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("circuit", run_folder, op="DEC")
    told = words(at)
    circuit = json.loads((run_folder / "circuits" / "DEC.json").read_text())
    assert f"n = {circuit['n']:,} held-out pairs" in told
    assert f"random circuits of that size, on {circuit['n_null_pairs']} pairs" in told
    inside = [edge for edge in circuit["edges"] if edge["in_circuit"]]
    best = max(inside, key=lambda edge: abs(edge["score"]))
    assert f"({-best['score']:+.2f})" in told.split("Strongest edges:")[1].split(",")[0]


def test_circuit_explains_a_picked_edge_by_its_patched_effect(open_page: Open, words: Words, run_folder: Path) -> None:
    circuit = json.loads((run_folder / "circuits" / "INC.json").read_text())
    edge = max((e for e in circuit["edges"] if e["exact"] is not None), key=lambda e: abs(e["exact"]))
    at = open_page("circuit", run_folder, op="INC", kind="edge", id=f"{edge['source']}->{edge['target']}")
    assert not at.exception
    assert f"**{-edge['exact']:.3f}**" in words(at)


def test_an_edge_leads_to_the_states_where_it_is_missed_most(open_page: Open, words: Words, copied_run: Path) -> None:
    from interp.circuits import read_circuit
    from interp.runs import provenance
    from interp.runs.findings import write_finding
    from interp.studies import edge_examples

    run = interp.load(copied_run)
    circuit = read_circuit(copied_run / "circuits" / "INC.json")[0]
    found = edge_examples(run.model, run.task, circuit, n_edges=2, n_pairs=6, seed=circuit.seed)
    stamp = provenance(run.config, step=run.step)
    write_finding(copied_run, "edges", "INC", [], found.detail(), provenance=stamp)
    (copied_run / "circuits" / "edges" / "DEC.json").unlink()
    edge = found.edges[0]
    at = open_page("circuit", copied_run, op="INC", kind="edge", id=edge)
    worst = found.worst(edge, k=1)[0]
    assert f"loses **{-found.effects[0, worst]:.2f}** of {found.m_clean[worst]:.2f} logits" in words(at)
    button(at, "example_0").click().run()
    assert not at.exception
    start = at.session_state["start"]
    assert np.array_equal(encode(program.build(start, run.config.spec)), found.clean[worst : worst + 1])
    other = next(f"{e.source}->{e.target}" for e in circuit.edges if e.exact is not None and
                 f"{e.source}->{e.target}" not in found.edges)  # fmt: skip
    assert "of the 2 strongest edges" in words(open_page("circuit", copied_run, op="INC", kind="edge", id=other))
    assert "does not exist yet" in words(open_page("circuit", copied_run, op="DEC", kind="edge", id=edge))


def test_measured_effects_carry_their_own_n(open_page: Open, words: Words, copied_run: Path) -> None:
    """Effects are measured on fewer pairs than faithfulness; the page must not lend them the larger n."""
    file = copied_run / "circuits" / "INC.json"
    circuit = json.loads(file.read_text())
    circuit["n_effects"] = 17
    file.write_text(json.dumps(circuit))
    at = open_page("circuit", copied_run, op="INC", kind="node", id="m0")
    assert "measured, n = 17 held-out pairs" in words(at)


def test_circuit_node_by_keyboard(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("circuit", run_folder, op="INC")
    box(at, "pick_node").set_value("m0").run()
    circuit = json.loads((run_folder / "circuits" / "INC.json").read_text())
    node = next(node for node in circuit["nodes"] if node["id"] == "m0")
    assert not at.exception
    assert f"loses **{-node['effect']:.2f}**" in words(at)


def test_a_node_that_is_not_there_is_dropped_with_a_notice(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("circuit", run_folder, op="INC", kind="node", id="a9.h9")
    assert "'a9.h9', which this model does not have" in words(at)
    assert not at.exception


def test_attention_says_where_a_query_looks(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("attention", run_folder, kind="head", id="0.1:cells[2]", program="INC INC", step="2")
    run = interp.load(run_folder)
    states = program.walk(program.build(program.Start(("INC", "INC")), run.config.spec)).states
    import torch

    x = torch.from_numpy(encode(states[1]).astype("int64"))
    _, cache = run.model.run_with_cache(x, names_filter="blocks.0.attn.hook_pattern")
    row = cache["blocks.0.attn.hook_pattern"][0, 1, run.task.position_names.index("cells[2]")]
    best = int(row.argmax())
    token = token_text(run.task.vocab[int(x[0, best])])
    expected = f"From **cells[2] = 0** it looks most at **{run.task.position_names[best]} = {token}** "
    assert f"{expected}({float(row[best]):.2f})" in words(at)


@pytest.mark.parametrize(
    ("name", "row", "kind", "layer"),
    [("output_looped", 4, "loop step 2", 1), ("step_diffusion_lm", 13, "denoising step 4", 1)],
)
def test_attention_of_every_step_can_be_opened(
    name: str, row: int, kind: str, layer: int, open_page: Open, words: Words
) -> None:
    run = interp.load(Path(__file__).resolve().parents[2] / "checkpoints" / name)
    rows = [row for part in run.config.model.attention_parts for row in part.rows]
    assert rows == list(range(len(run.model.attention_hooks())))
    at = open_page("attention", run.path, kind="head", id=f"{row}.1")
    assert not at.exception and not at.error
    assert f"**Layer {layer}, head 1 of {kind}**" in words(at)


def test_direct_contributions_add_up_to_the_models_own_lead(run_folder: Path) -> None:
    import torch

    from app.run_access import LoadedModel
    from app.state_attribution import attribute, contrasts

    run = interp.load(run_folder)
    loaded = LoadedModel(run, threading.Lock(), "test")
    states = sample(run.config.spec, 8, seed=4, split="evaluation")
    found = predict(loaded, states)
    for row in range(8):
        for contrast in contrasts(states[row], found, row):
            with torch.no_grad():
                x = torch.from_numpy(encode(states[row]).astype("int64"))
                logits = run.model(x)[0, run.task.answer_positions[contrast.slot]]
            lead = float(logits[contrast.answer] - logits[contrast.rival])
            told = attribute(loaded, states[row], contrast)
            assert told.lead == pytest.approx(lead, abs=1e-3)
            assert sum(value for _, value in told.parts) == pytest.approx(lead, abs=1e-3)
            assert lead > 0  # the answer is what the model says


def test_a_probes_mistakes_lead_to_their_states(open_page: Open, words: Words, bare_run: Path) -> None:
    place = "cells[@array_ptr]"
    run = interp.load(bare_run)
    probe_run(run, config=SweepConfig(("op",), (place,), n=300, controls=False), n_edits=0)
    site = "blocks.0.hook_resid_post"
    errors = read_errors(run)
    here = errors[(errors.site == site) & errors.margin.notna()]
    worst = here.loc[here.margin.idxmax()]
    at = open_page("probe_results", bare_run, kind="probe", id=f"op|{site}|{place}")
    assert not at.exception
    named = [Op(int(value)).name for value in (worst.truth, worst.predicted)]
    assert f"op is **{named[0]}**, read as **{named[1]}**" in words(at)
    button(at, "mistake_0").click().run()
    assert not at.exception
    state = decode(run.config.spec, np.array([list(worst.start)]))
    assert machine_step(state).latents["op"][0] == worst.truth
    assert f"next **{Op(worst.truth).name}**" in at.markdown[0].value


def test_the_confusion_matrix_holds_shares_of_true_values() -> None:
    rows = pd.DataFrame(
        [(0, 0, 3, np.nan), (0, 2, 1, np.nan), (2, 2, 5, np.nan), (0, 2, 1, 4.5)],
        columns=["truth", "predicted", "count", "margin"],
    )
    matrix, values = confusion(rows)
    assert values == [0, 2]
    assert np.array_equal(matrix, [[0.75, 0.25], [np.nan, 1.0]], equal_nan=True)
