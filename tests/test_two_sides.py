"""An encoder–decoder in the rest of the house: trained, read and patched on either side, and shown in the app."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import interp
from app import answers, attention_data
from app.run_access import LoadedModel
from app.theme import token_text
from cython_vm import sample
from interp.circuits import CircuitConfig, Graph, find_circuit, head_roles, read_circuit, write_circuit
from interp.circuits.overlap import circuit_graph_of, matrices
from interp.figures.circuits import circuit_graph
from interp.interventions import Patch, patched
from interp.models import build_model
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.probing.activations import read_tokens
from interp.runs import RunConfig
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec

SPEC = MachineSpec(n_instructions=5, n_cells=3, n_input=1, n_output=1, bits=1)
ROOT = Path(__file__).resolve().parents[1]
CROSS = "decoder_blocks.0.cross_attn.hook_z"
CROSS_PATTERN = "decoder_blocks.0.cross_attn.hook_pattern"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> interp.Run:
    torch.set_num_threads(1)
    like = transformer_for("step", SPEC, n_layers=2, n_heads=2, d_model=16)
    shared = {name: getattr(like, name) for name in like.to_dict() if name != "architecture"}
    model = EncoderDecoderConfig(**shared, n_prompt=SPEC.state_length, n_encoder=1)
    training = TrainingConfig(
        steps=40,
        batch_size=16,
        warmup_steps=5,
        eval_every=40,
        eval_states=40,
        checkpoint_every=40,
        threads=1,
        muon_lr=0.02,
    )
    return train(RunConfig("step", as_world(SPEC), model, training), tmp_path_factory.mktemp("runs") / "sided")


def test_it_learns_and_is_read_back(run):
    loaded = interp.load(run.path)
    batch = run.task.sample(30, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(batch.tokens), run.model(batch.tokens))
        fresh = build_model(run.config.model)
        before, after = (run.task.loss(each(batch.tokens), batch) for each in (fresh, run.model))
    assert after < 0.6 * before
    assert run.model.answer(run.task, batch).shape == (30, SPEC.state_length)


def test_a_position_of_the_record_is_read_on_its_own_side(run):
    model, n_prompt = run.model, SPEC.state_length
    batch = run.task.sample(6, seed=1)
    _, cache = model.run_with_cache(batch.tokens)
    rows = np.arange(6)
    for hook, at, first in (
        ("encoder_blocks.0.hook_mlp_out", 2, 0),
        (CROSS, n_prompt + 2, n_prompt),
        ("blocks.1.hook_resid_post", n_prompt + 2, 0),
    ):
        read = read_tokens(model, batch.tokens, [hook], {"here": (rows, np.full(6, at))})["here", hook]
        torch.testing.assert_close(read, cache[hook][:, at - first].flatten(1))
    with pytest.raises(ValueError, match="one side of a record alone"):
        read_tokens(model, batch.tokens, [CROSS], {"here": (rows, np.full(6, 2))})


def test_a_patch_of_cross_attention_is_one_of_its_position(run):
    model, n_prompt = run.model, SPEC.state_length
    tokens = run.task.sample(4, seed=2).tokens
    at = torch.full((4, 1), n_prompt + 3)
    with torch.no_grad():
        clean, zero = model(tokens), torch.zeros(4, 1, 8)
        with patched(model, [Patch(CROSS, at, zero, head=1)]):
            moved = model(tokens)
        changed = ~torch.isclose(moved, clean, atol=1e-6).all(-1).all(0)
        wrong = Patch(CROSS, torch.zeros(4, 1, dtype=torch.long), zero, head=1)
        with pytest.raises(ValueError, match=f"is about positions {n_prompt} to"), patched(model, [wrong]):
            model(tokens)
    # the logits of a token stand one position before it; there is no later decoder layer to carry the change on
    assert changed.nonzero().flatten().tolist() == [n_prompt + 2]


def test_a_circuit_with_edges_across_is_found_written_and_drawn(run, tmp_path):
    config = CircuitConfig(n_pairs=10, n_exact_pairs=10, n_exact=4, n_null=2, n_null_pairs=4, steps=2, n_sizes=5)
    circuit = find_circuit(run.model, run.task, "INC", config=config)
    write_circuit(tmp_path / "inc.json", circuit, provenance={})
    found = read_circuit(tmp_path / "inc.json")[0]
    assert found == circuit and (found.n_layers, found.n_heads, found.n_encoder) == (2, 2, 1)
    graph = Graph.of(run.model)
    assert len(found.edges) == graph.n_edges == circuit_graph_of(found).n_edges
    scores, members = matrices(found)
    assert scores[graph.mask].any() and members.any() and not members[~graph.mask].any()
    assert {node.kind for node in found.nodes} >= {"input", "head", "cross", "mlp"}
    assert "INC" in str(circuit_graph(found))
    with pytest.raises(ValueError, match="has sides"):
        head_roles(run.model, run.task, "INC", n=2)


def test_kinds_of_attention_have_every_hook_once(run):
    parts = run.config.model.attention_parts
    assert [part.name for part in parts] == ["encoder self-attention", "decoder self-attention", "cross-attention"]
    assert [part.rows for part in parts] == [(0,), (1,), (2,)] and [part.layers for part in parts] == [(0,), (1,), (1,)]
    assert [part.nodes for part in parts] == [("a0",), ("a1",), ("c1",)]
    assert sorted(row for part in parts for row in part.rows) == list(range(len(run.model.attention_hooks())))


def test_the_attention_page_shows_who_looks_across(run, monkeypatch):
    """Each kind of attention can be chosen, and is asked from its own positions."""
    names, n = run.task.position_names, SPEC.state_length
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    monkeypatch.setenv("TAPELENS_RUN", str(run.path))
    at.query_params["kind"], at.query_params["id"] = "head", f"2.1:{names[-1]}"
    at.run()
    at.switch_page("views/attention.py").run()
    deadline = time.monotonic() + 60
    while any("is loading" in caption.value for caption in at.caption) and time.monotonic() < deadline:
        time.sleep(0.3)
        at.run()
    assert not at.exception
    words = " ".join(each.value for each in at.markdown)
    assert "Layer 1, head 1 of cross-attention" in words
    assert f"From **{names[-1]}** it looks most at" in words
    kinds = next(each for each in at.button_group if each.key == "att_part")
    assert kinds.value == "cross-attention"
    asked = next(each for each in at.selectbox if each.key == "query")
    assert [option.partition(" = ")[0] for option in asked.options] == list(names[n:])
    kinds.set_value("encoder self-attention").run()
    assert not at.exception
    assert "Layer 0" in " ".join(each.value for each in at.markdown) and at.query_params["id"].startswith("0.")
    asked = next(each for each in at.selectbox if each.key == "query")
    assert [option.partition(" = ")[0] for option in asked.options] == list(names[:n])


def test_a_head_across_looks_from_the_answer_at_the_prompt(run):
    """What the page draws is the model's own pattern, its rows and columns named by the tokens that stand there."""
    states = sample(SPEC, 1, seed=0, split="evaluation")
    loaded = LoadedModel(run=run, lock=threading.Lock(), key="two sides")
    whole = attention_data.of_example(loaded, states)
    cross = whole.of(run.config.model.attention_parts[-1])
    record = answers.shown_tokens(loaded, states)
    with torch.no_grad():
        _, cache = run.model.run_with_cache(torch.from_numpy(record), names_filter=CROSS_PATTERN)
    assert np.allclose(cross.pattern[0], cache[CROSS_PATTERN][0].numpy(), atol=1e-6)
    assert np.allclose(cross.pattern.sum(-1), 1, atol=1e-5)  # all that the answer looks at is drawn
    told = dict(zip(run.task.position_names, (token_text(run.task.vocab[token]) for token in record[0]), strict=True))
    assert [label for label in cross.labels if "cells[1]" in label] == [f"next.cells[1] = {told['next.cells[1]']}"]
    assert [label for label in cross.key_labels if "cells[1]" in label] == [f"cells[1] = {told['cells[1]']}"]
