"""The Stream and State pages: what stands there is the run's own, what is read is what the probes read."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import interp
from app import live_probes
from app.components.stream import Executed, stream_strip, tape_board
from app.examples_view import SEED
from app.live_probes import relative_cells, visited
from app.pages import PAGES
from app.run_access import LoadedModel
from app.state_data import number_names
from app.stream_reading import DISTANCE, PLACE, by_cell, elsewhere, read_tape, true_tape
from interp.models.state_configs import DeltaConfig, GRUConfig

from .test_app_examples import button, untrained

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
TRACE = CHECKPOINTS / "trace_final"


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes on few streams: what is tested is which numbers stand where."""
    monkeypatch.setattr(live_probes, "N_FIT", 64)
    monkeypatch.setattr(live_probes, "N_SCORED", 24)
    live_probes._kept().clear()


@pytest.fixture(scope="module")
def gru(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs") / "gru", "trace", model=GRUConfig)


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("runs") / "delta", "trace", model=DeltaConfig)


def test_a_stream_with_its_answers(open_page: Open, words: Words) -> None:
    run = interp.load(TRACE)
    batch = run.task.sample(1, seed=SEED, start=4, split="evaluation")
    with torch.no_grad():
        right = (run.model(batch.tokens).argmax(-1) == batch.targets) & batch.loss_mask
    asked = np.flatnonzero(batch.loss_mask[0].numpy())
    step = int(run.task.times(batch)[0, asked[2]])
    at = open_page("stream", TRACE, example="5", step=str(step + 1))
    assert not at.exception and not at.error
    op = run.task.vocab[int(batch.tokens[0, asked[2]])]
    said = at.markdown[0].value
    assert f"held-out stream 5 · step {step + 1} of" in said and f"**{op}**" in said
    assert ("right ✓" if right[0, asked[2]] else "wrong ✗") in said
    assert f"**{int(right.sum())} of {int(batch.loss_mask.sum())}** answers are right" in words(at)
    button(at, "next").click().run()
    assert f"step {step + 2} of" in at.markdown[0].value
    assert at.query_params["step"] in (str(step + 2), [str(step + 2)])


@pytest.mark.parametrize("name", ["transformer", "gru", "delta"])
def test_probes_are_fitted_and_told_with_their_worth(
    name: str, open_page: Open, words: Words, request: pytest.FixtureRequest
) -> None:
    folder = TRACE if name == "transformer" else request.getfixturevalue(name)
    at = open_page("stream", folder)
    assert "Nothing is read yet at" in words(at)
    button(at, "fit_probes").click().run()
    assert not at.exception and not at.error
    found = re.search(
        r"On ([\d,]+) tokens of 24 other held-out streams they read the pointer right in \*\*(\d+)%", words(at)
    )
    assert found, words(at)
    run = interp.load(folder)
    loaded = LoadedModel(run, threading.Lock(), "another key, so that nothing is kept")
    hook = str(at.selectbox(key="read_from").value)
    worth = elsewhere(live_probes.fit(loaded, hook, lambda share, what: None), DISTANCE)
    assert found[1] == f"{worth.n:,}" and found[2] == f"{100 * worth.pointer:.0f}"
    assert f"all of these cells at once in **{worth.whole:.0%}** ({worth.whole_commonest:.0%})" in words(at)
    assert 0 <= worth.whole <= worth.cells <= 1


def test_a_tape_that_is_there_is_read() -> None:
    """Probes of an activation that spells pointer and cells read both, by place; an activation of noise does not."""
    run = interp.load(TRACE)
    loaded = LoadedModel(run, threading.Lock(), "spelt")
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(26, 26, generator=generator)

    def spelt(_, batch, hook):
        pointer = torch.from_numpy(np.asarray(run.task.labels(batch, "array_ptr")))
        cells = [torch.from_numpy(np.asarray(run.task.labels(batch, f"cell[{i}]"))) for i in range(10)]
        bits = [(cell >> bit) & 1 for cell in cells[:4] for bit in range(4)]
        ones = torch.nn.functional.one_hot(pointer.clamp(min=0), 10)
        known = torch.cat([ones, torch.stack(bits, -1)], -1).float()
        return known @ mix if hook == "known" else torch.randn(known.shape, generator=generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_probes, "activation_of", spelt)
        known, noise = (live_probes.fit(loaded, hook, lambda share, what: None) for hook in ("known", "noise"))
    assert known.scored["array_ptr"].accuracy > 0.99 > 0.6 > noise.scored["array_ptr"].accuracy
    assert known.scored["cell[1]"].accuracy > known.scored["cell[1]"].commonest + 0.1
    assert noise.scored["cell[1]"].accuracy < noise.scored["cell[1]"].commonest + 0.05
    assert elsewhere(known, PLACE).pointer == known.scored["array_ptr"].accuracy


def test_distances_and_visits_by_hand() -> None:
    pointer = np.array([[0, 1, 2, 1]])
    cells = {"array_ptr": pointer, "cell[0]": np.array([[5, 5, 5, 5]]), "cell[1]": np.array([[0, 7, 7, 7]]),
             "cell[2]": np.array([[-1, -1, 3, 3]])}  # fmt: skip
    found = relative_cells(cells)
    assert found["cell[@array_ptr]"].tolist() == [[5, 7, 3, 7]]
    assert found["cell[@array_ptr+1]"].tolist() == [[0, -1, -1, 3]]
    assert found["cell[@array_ptr-2]"].tolist() == [[-1, -1, 5, -1]]
    assert visited(pointer, 4)[0].astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert by_cell(found, pointer, 3, DISTANCE, missing=-1)[0].tolist() == [
        [5, 0, -1],
        [5, 7, -1],
        [5, 7, 3],
        [5, 7, 3],
    ]
    assert by_cell(cells, pointer, 3, PLACE, missing=-1)[0, 2].tolist() == [5, 7, 3]


def test_the_true_tape_is_the_machines(gru: Path) -> None:
    run = interp.load(gru)
    batch = run.task.sample(1, seed=SEED, split="evaluation")
    tape = true_tape(run.task, batch)
    states = batch.run.states
    at = batch.state_of[0]
    told = at >= 0
    ops = told & ~batch.is_answer[0]
    assert np.array_equal(tape.pointer[ops], states.array_ptr[at[ops]])
    assert np.array_equal(tape.cells[ops], states.cells[at[ops]])
    assert tape.cells[told][~tape.seen[told]].max(initial=0) == 0  # what was never visited holds 0
    probes = live_probes.fit(LoadedModel(run, threading.Lock(), "gru"), "blocks.0.rnn.hook_carry", lambda a, b: None)
    read = read_tape(LoadedModel(run, threading.Lock(), "gru"), probes, batch, tape, addressing=PLACE)
    best = (read.cells == tape.cells) & tape.seen
    assert np.allclose(read.p[best], read.p_truth[best])
    assert (read.p_truth[tape.seen] <= read.p[tape.seen] + 1e-6).all()


def test_pages_refuse_in_a_sentence(open_page: Open, words: Words, run_folder: Path, gru: Path) -> None:
    at = open_page("stream", run_folder)
    assert "tells no stream of executed instructions" in at.info[0].value
    at = open_page("state", TRACE)
    assert "holds no state: it keeps keys and values of every token" in at.info[0].value
    assert "What there is for this run:" in words(at)
    at = open_page("attention", gru)
    assert "has no attention" in at.info[0].value
    for page in ("stream", "state"):
        assert PAGES[page].refuses(interp.load(gru)) is None


@pytest.mark.parametrize("page", ["stream", "state"])
def test_without_weights_the_page_says_so(page: str, open_page: Open, gru: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(gru / "config.json", folder / "config.json")
    at = open_page(page, folder)
    assert not at.exception
    assert "model.safetensors" in (at.error or at.info)[0].value


def test_a_state_along_an_example(open_page: Open, words: Words, gru: Path) -> None:
    run = interp.load(gru)
    batch = run.task.sample(1, seed=SEED, start=1, split="evaluation")
    at = open_page("state", gru, example="2", kind="position", id="stream[2]", step=str(int(batch.step_of[0, 3]) + 1))
    assert not at.exception
    assert f"after token 3, **{run.task.vocab[int(batch.tokens[0, 3])].removeprefix('NUM_')}**" in at.markdown[0].value
    with torch.no_grad():
        _, cache = run.model.run_with_cache(batch.tokens, names_filter="blocks.0.rnn.hook_carry")
    length = float(cache["blocks.0.rnn.hook_carry"][0, 3].norm())
    assert f"the state has length {length:.1f}" in words(at)
    assert "16 numbers a token" in words(at)
    assert "Effective attention" not in words(at)  # a GRU reads no weighted sum of values
    button(at, "fit_probes").click().run()
    assert "Right elsewhere: on other held-out examples" in words(at)
    button(at, "next").click().run()  # another step: what was picked belongs to the last one
    assert "after token 3," not in at.markdown[0].value


def test_effective_attention_is_named_a_heuristic(open_page: Open, words: Words, delta: Path) -> None:
    at = open_page("state", delta)
    assert not at.exception
    assert "Effective attention, a heuristic" in words(at) and "It is a heuristic all the same" in words(at)
    assert re.search(r"head 0 reads most of \*\*\d+ ", words(at))


def test_a_stale_position_is_dropped_with_a_notice(open_page: Open, words: Words, gru: Path) -> None:
    at = open_page("state", gru, kind="position", id="cells[3]")
    assert "which this example does not have" in words(at)
    assert not at.exception


def test_numbers_of_a_state_have_names() -> None:
    names = number_names(("head", "d_key", "d_value"), (2, 2, 3))
    assert len(names) == 12 and names[0] == "head 0, key 0, value 0" and names[-1] == "head 1, key 1, value 2"
    assert number_names(("d_carry",), (3,)) == ("unit 0", "unit 1", "unit 2")


def test_drawings_escape_and_say_what_they_show() -> None:
    right = Executed("PUT", truth="2", said="2", p=0.99)
    wrong = Executed("ENDW", truth="jumps", said="goes on", p=0.7)
    strip = stream_strip([Executed("GET", given="3"), right, wrong], now=1)
    assert "step 1, GET, reads 3" in strip
    assert "step 2, PUT, the model says 2, right" in strip and 'data-pick="1"' in strip
    assert "the model says goes on, wrong: it is jumps" in strip and strip.count("✗") == 1
    board = tape_board(["1", "0"], pointer=0, seen=[True, False])
    assert board.count("▲") == 1 and "probes read" not in board and "slot empty" in board
