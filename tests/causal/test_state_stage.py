"""State interchange of a run folder: its file, its table, its page and its section of the report."""

from pathlib import Path

import pytest

import interp
from cython_vm import MachineSpec
from interp.interventions import SubspaceFit
from interp.models.recurrent import GRUConfig
from interp.pages.states import write_states_page
from interp.report import write_report
from interp.results import select
from interp.runs import RunConfig, RunError
from interp.runs.further_frames import STATES
from interp.studies.carried import best, scores
from interp.studies.state_stage import state_stage
from interp.studies.state_tables import state_table
from interp.tasks import Trace
from interp.tasks.options import StreamOptions
from interp.training import TrainingConfig, train
from interp.worlds import as_world

from ..tiny import tiny_config

SPEC = MachineSpec(n_instructions=16, n_cells=3, n_input=3, n_output=6, bits=1)
OPTIONS = StreamOptions(n_steps=10)
NAMES = ("array_ptr", "operand", "cell[1]", "cell[@array_ptr+0]")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    task = Trace(SPEC, OPTIONS)
    model = GRUConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx, d_model=24, n_layers=2)
    training = TrainingConfig(
        steps=120, batch_size=32, optimizer="adamw", adamw_lr=5e-3, eval_every=120, eval_states=60, threads=1
    )
    config = RunConfig("trace", as_world(SPEC), model, training, options=OPTIONS)
    found = train(config, tmp_path_factory.mktemp("states") / "gru")
    measure(found)
    return found


def measure(run, **changed):
    settings = {"n_pairs": 40, "seed": 4, "fit": SubspaceFit(n_pairs=48, rank=3, steps=10)} | changed
    return state_stage(run, variables=NAMES, parts=("all", "layers", "das"), **settings)


def test_rows_are_kept_and_the_same_request_measures_nothing(run, monkeypatch) -> None:
    frame = STATES.read(run)
    assert set(frame.variable) == set(NAMES)
    assert {"all", "layer0", "layer1", "das"} <= set(frame.part)
    assert set(frame.architecture) == {"gru"} and set(frame.carrier_size) == {48}
    monkeypatch.setattr("interp.studies.state_stage.state_rows", lambda *_, **__: pytest.fail("measured again"))
    assert len(measure(run).asked) == len(frame)


def test_everything_exchanged_is_the_model_on_the_other_stream(run) -> None:
    """An answer at once about the cell under the pointer: with all of the carrier it is the model's on the source."""
    pairs = run.task.state_pairs(40, "operand", seed=4, kind="retrieved")
    spliced = pairs.base.clone()
    for row in range(len(pairs)):
        spliced[row, : int(pairs.at[row]) + 1] = pairs.source[row, : int(pairs.at[row]) + 1]
    said = run.model(spliced).argmax(-1).gather(1, pairs.positions[:, None])[:, 0]
    expected = float((said == pairs.expected)[pairs.changes].float().mean())
    rows = STATES.read(run)
    rows = rows.loc[rows.lag.isna() & rows.op.isna()]
    whole = select(rows, variable="operand", part="all", metric="iia", stratum="changes", control=None)
    assert whole.estimate.iloc[0] == pytest.approx(expected)


def test_another_seed_is_measured_beside_what_is_kept(run) -> None:
    before = (run.path / "states.parquet").read_bytes()
    found = state_stage(run, variables=["cell[1]"], parts=["layer1"], n_pairs=40, seed=9)
    assert (run.path / "states.parquet").read_bytes() == before
    assert found.kept is not None and set(found.asked.part) == {"layer1"}
    assert state_table(found.headlines, found.kept).row_count == 1


def test_the_page_says_what_the_rows_say(run, tmp_path) -> None:
    page = write_states_page([run], tmp_path).read_text(encoding="utf-8")
    found = scores(STATES.read(run))
    assert (tmp_path / "states_addressing.svg").exists() and "(states_addressing.svg)" in page
    for name, score in best(found).items():
        assert f"| `{name}` | {score.part.replace('_', ' ')} | {score.size:,} | {score.moved:.2f} |" in page
        assert score.stayed is None or score.both <= score.stayed
    assert "carries 48 numbers" in page
    with pytest.raises(ValueError, match="at least one run"):
        write_states_page([], tmp_path)


def test_the_report_has_a_section(run) -> None:
    assert "What does it carry?" in write_report(run).read_text(encoding="utf-8")


def test_a_run_without_streams_is_refused(tmp_path: Path) -> None:
    other = train(tiny_config(steps=2), tmp_path / "tiny")
    with pytest.raises(RunError, match="tells no stream"):
        state_stage(other)
    with pytest.raises(RunError, match="does not exist yet; make it with: tapelens patch"):
        STATES.read(interp.load(other.path))
    assert "What does it carry?" not in write_report(other).read_text(encoding="utf-8")
