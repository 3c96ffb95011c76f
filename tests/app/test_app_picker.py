"""The picker over all pages: every run with its accuracy, and a choice that keeps the page where it can."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import run_list
from app.run_list import percent
from app.selection import Selection, parse
from interp.files import sha256_of
from interp.pages.cards import read_card
from interp.reading import RunError
from interp.results import read_frame, records
from interp.runs import Run

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = ROOT / "checkpoints"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the app is started in, with two runs of one's own, what is no run, and a link to elsewhere."""
    here = tmp_path / "here"
    for source, name in (("quickstart", "mine"), ("trace_final", "stream")):
        (here / "runs" / name).mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "metrics.parquet"):
            shutil.copy(CHECKPOINTS / source / file, here / "runs" / name / file)
    (here / "runs" / "empty").mkdir()
    (here / "runs" / "broken").mkdir()
    (here / "runs" / "broken" / "config.json").write_text("{")
    shutil.copytree(here / "runs" / "mine", tmp_path / "secret")
    (here / "runs" / "link").symlink_to(tmp_path / "secret")
    monkeypatch.chdir(here)
    monkeypatch.setenv("TAPELENS_RUN", str(here / "runs" / "mine"))
    return here


def test_runs_are_listed_with_what_their_files_say(place: Path) -> None:
    runs, unreadable = run_list.listed()
    own = {run.name: run for run in runs if not run.bundled}
    assert set(own) == {"mine", "stream"} and unreadable == 3  # what is no run, and the link that leads elsewhere
    assert own["stream"].address == os.path.join("runs", "stream")
    assert (own["stream"].world, own["stream"].task) == ("machine", "trace")
    rows = records(read_frame(place / "runs" / "stream" / "metrics.parquet"))
    macro = [row for row in rows if row["metric"] == "exact_match" and row["aggregation"] == "macro"]
    last = max(row["checkpoint_step"] for row in macro)
    best = max((row for row in macro if row["checkpoint_step"] == last), key=lambda row: row["n"])
    assert own["stream"].accuracy == best["estimate"]
    bundled = {run.name: run for run in runs if run.bundled}
    assert set(bundled) == {folder.name for folder in CHECKPOINTS.iterdir() if folder.is_dir()}
    card = json.loads((CHECKPOINTS / "trace_final" / "card.json").read_text())
    assert bundled["trace_final"].accuracy == card["rows"][0]["estimate"]
    order = [(run.world, run.task) for run in runs]
    assert order == sorted(order)


def test_a_number_of_another_config_is_left_out(place: Path) -> None:
    file = place / "runs" / "mine" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"digest": "0" * 16}))
    assert next(run.accuracy for run in run_list.listed()[0] if run.name == "mine") is None


def test_a_copied_run_with_other_weights_does_not_show_the_accuracy_of_the_original(
    place: Path, open_page: Open, words: Words
) -> None:
    """Of the config that the card and the metrics are about, and trained, but not by this training."""
    folder = place / "runs" / "mine"
    shutil.copy(CHECKPOINTS / "quickstart" / "card.json", folder / "card.json")
    assert next(run.accuracy for run in run_list.listed()[0] if run.name == "mine") == 1
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1  # the smallest change there is
    (folder / "model.safetensors").write_bytes(weights)
    assert next(run.accuracy for run in run_list.listed()[0] if run.name == "mine") is None
    with pytest.raises(RunError, match="card.json is of other weights; make it anew with: tapelens card"):
        read_card(folder)
    said = words(open_page("step", folder))
    assert "weights of step 12,000" in said and "exact match" not in said


def test_metrics_that_name_their_weights_go_with_them(place: Path, tiny_run: Run) -> None:
    folder = Path(shutil.copytree(tiny_run.path, place / "runs" / "tiny"))
    made = read_frame(folder / "metrics.parquet").attrs["provenance"]
    assert made["weights"] == sha256_of(folder / "model.safetensors")
    before = run_list.read(folder)
    assert before.headline is not None and before.headline.n > 0
    shutil.copy(CHECKPOINTS / "quickstart" / "model.safetensors", folder / "model.safetensors")
    assert run_list.read(folder).headline is None


def test_the_list_needs_no_torch() -> None:
    code = (
        "import sys; from app import run_list; runs, _ = run_list.listed(); assert runs; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "False", done.stderr[-2000:]


def test_text_is_told_in_bits_and_never_as_right() -> None:
    card = json.loads((CHECKPOINTS / "text_small" / "card.json").read_text())
    bits = next(row["estimate"] for row in card["rows"] if row["metric"] == "bits")
    assert run_list.read(CHECKPOINTS / "text_small").words == f"{bits:.2f} bits a character"
    assert run_list.read(CHECKPOINTS / "quickstart").words == "100 % right"


def test_without_a_card_the_bits_are_those_of_training(place: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINTS / "text_small", place / "runs" / "text"))
    (folder / "card.json").unlink()
    rows = records(read_frame(folder / "metrics.parquet"))
    last = max((row for row in rows if row["metric"] == "bits"), key=lambda row: row["checkpoint_step"])
    assert run_list.read(folder).words == f"{last['estimate']:.2f} bits a character"


@pytest.mark.parametrize(("share", "text"), [(0.99996, "99.99 %"), (1.0, "100 %"), (0.5, "50.00 %")])
def test_shares_are_never_rounded_up_to_all(share: float, text: str) -> None:
    assert percent(share) == text


def pick(at: AppTest, name: str) -> AppTest:
    return next(b for b in at.button if b.key == f"run_{os.path.join('runs', name)}").click().run()


def settle(at: AppTest) -> AppTest:
    import time

    deadline = time.monotonic() + 120
    while any("is loading" in caption.value for caption in at.caption):
        assert time.monotonic() < deadline
        time.sleep(0.3)
        at.run()
    return at


def test_choosing_a_run_sets_the_address_and_the_first_page(place: Path, open_page: Open, words: Words) -> None:
    at = open_page("step", place / "runs" / "mine", step="4", op="INC")
    assert "Run mine:" in words(at) and "run" not in at.query_params
    settle(pick(at, "stream"))
    assert not at.exception and not at.error
    assert "Run stream:" in words(at) and "held-out example 1 · step 1 of" in at.markdown[0].value
    assert at.query_params["run"] in (os.path.join("runs", "stream"), [os.path.join("runs", "stream")])
    assert at.query_params["op"] in ("INC", ["INC"])  # what both can be asked
    assert "program" not in at.query_params
    settle(pick(at, "mine"))
    assert not at.exception and "step 1 of 14" in at.markdown[0].value


def test_choosing_a_run_keeps_the_page(place: Path, open_page: Open, words: Words) -> None:
    at = open_page("attention", place / "runs" / "mine")
    settle(pick(at, "stream"))
    assert not at.exception and "Where the heads look" in words(at) and "Run stream:" in words(at)


def test_choosing_a_run_leaves_a_page_that_refuses_it(place: Path, open_page: Open, words: Words) -> None:
    from interp.models import build_model
    from interp.models.state_configs import GRUConfig
    from interp.runs import RunConfig, load, save_weights, write_config

    stream = load(place / "runs" / "stream")
    model = GRUConfig(d_vocab=len(stream.task.vocab), n_ctx=stream.task.n_ctx, d_model=8, n_layers=1)
    config = RunConfig("trace", stream.config.world, model, stream.config.training)
    (place / "runs" / "gru").mkdir()
    write_config(place / "runs" / "gru", config)
    save_weights(place / "runs" / "gru" / "model.safetensors", build_model(model), config, step=1)
    at = open_page("circuit", place / "runs" / "mine")
    pick(at, "gru")
    assert not at.exception
    assert "held-out example 1" in at.markdown[0].value and "What there is for this run" not in words(at)


def test_unreadable_folders_are_counted(place: Path, open_page: Open, words: Words) -> None:
    assert "3 more folders are left out" in words(open_page("step", place / "runs" / "mine"))


def test_a_run_that_cannot_be_opened_leaves_the_others_to_choose(place: Path, open_page: Open) -> None:
    at = open_page("step", place / "runs" / "nothing")
    assert at.error and not at.exception
    settle(pick(at, "mine"))
    assert not at.error and "step 1 of 14" in at.markdown[0].value


def test_strata_in_an_address_are_those_of_the_world() -> None:
    assert parse({"op": "second"}, ("FIRST", "SECOND")) == (Selection(op="SECOND"), [])
    chosen, notices = parse({"op": "INC"}, ("FIRST", "SECOND"))
    assert chosen.op == "" and "there are FIRST, SECOND" in notices[0]
    assert parse({"op": "INC"}, ())[1] == ["The link asks for op='INC'; there are none."]
