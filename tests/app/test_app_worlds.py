"""A world and a task of somebody's own open the app, with and without attention, where the machine is out of reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import interp
from app import first_pages
from app.pages import PAGES
from interp.models import TransformerConfig
from interp.models.state_configs import GRUConfig
from interp.runs import NEXT_STATE_TASKS, STREAM_TASKS, WRITING_TASKS, RunConfig, write_config
from interp.tasks import TASKS
from interp.tasks.options import OPTIONS, NoOptions, StreamOptions
from interp.training import TrainingConfig
from interp.worlds.machine import MachineSpec

ROOT = Path(__file__).resolve().parents[2]

_OPEN = """
import json, os, sys, time
from pathlib import Path

class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cython_vm":
            raise ImportError(f"{name} is out of reach here")

sys.meta_path.insert(0, Barred())
import larger_task, larger_world
from interp.models import TransformerConfig
from interp.models.state_configs import GRUConfig
from interp.runs import RunConfig
from interp.stage_options import ProbeOptions
from interp.studies.probe_stage import probe_stage
from interp.training import TrainingConfig, train
from streamlit import config
from streamlit.testing.v1 import AppTest

config.set_option("runner.magicEnabled", False)
main, folder, kind = Path(sys.argv[1]) / "app" / "main.py", Path(sys.argv[2]), sys.argv[3]
world = larger_world.Larger(size=24)
task = larger_task.PickLarger(world)
shape = {"d_vocab": len(task.vocab), "n_ctx": task.n_ctx}
model = {
    "transformer": lambda: TransformerConfig(**shape, n_layers=1, n_heads=2, d_model=16),
    "gru": lambda: GRUConfig(**shape, d_model=16, n_layers=1),
}[kind]()
settings = TrainingConfig(steps=60, batch_size=16, eval_every=60, eval_states=64, threads=1)
run = train(RunConfig(task.name, world, model, settings), folder)
probe_stage(run, ProbeOptions(n=300))
os.environ["TAPELENS_RUN"] = str(folder)

from app.pages import PAGES

told = {}
for name in ("examples", "stream", "attention", "state", "probes", "circuit", "intervene"):
    at = AppTest.from_file(str(main), default_timeout=120)
    at.query_params["example"] = "3"
    at.run()
    if name != "examples":
        at.switch_page(PAGES[name].file).run()
    deadline = time.monotonic() + 120
    while any("is loading" in caption.value for caption in at.caption):
        assert time.monotonic() < deadline
        time.sleep(0.2)
        at.run()
    told[name] = {
        "exceptions": [each.value for each in at.exception],
        "errors": [each.value for each in at.error],
        "infos": [each.value for each in at.info],
        "words": [each.value for each in (*at.markdown, *at.caption)],
    }
example = world.draw(1, seed=20, start=2, split="evaluation")
told["truth"] = [int(world.read(example, name)[0]) for name in ("first", "second", "larger")]
told["machine"] = "cython_vm" in sys.modules
print(json.dumps(told))
"""


@pytest.fixture(scope="module", params=["transformer", "gru"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """The kind of model, and what each page says of a run on the world of `examples/extending`."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "examples" / "extending")])
    folder = tmp_path_factory.mktemp("worlds") / request.param
    command = [sys.executable, "-c", _OPEN, str(ROOT), str(folder), request.param]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder.parent, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return request.param, json.loads(done.stdout.splitlines()[-1])


def test_every_page_opens_for_a_foreign_world(opened: tuple[str, dict]) -> None:
    _, told = opened
    assert told["machine"] is False
    for name in ("examples", "stream", "attention", "state", "probes", "circuit", "intervene"):
        assert told[name]["exceptions"] == [] and told[name]["errors"] == []


def test_the_example_is_the_worlds_own(opened: tuple[str, dict]) -> None:
    _, told = opened
    first, second, larger = told["truth"]
    words = " ".join(told["examples"]["words"])
    assert f"first {first}, second {second}" in words  # World.describe
    assert "held-out example 3" in words
    stratum = "SECOND" if second > first else "FIRST"
    assert f"**{stratum}**" in words
    assert f"where **{larger}** is right" in words or f"says **{larger}**, which is right" in words


def test_a_page_without_anything_to_show_says_so_and_where_to_look(opened: tuple[str, dict]) -> None:
    kind, told = opened
    refused = {name for name in told if name in PAGES and "What there is for this run:" in told[name]["words"]}
    assert refused == ({"stream", "state"} if kind == "transformer" else {"stream", "attention", "circuit"})
    if kind == "gru":
        assert "has no attention" in told["attention"]["infos"][0]
        assert any("numbers a token" in each for each in told["state"]["words"])
        assert any("labels whole examples and not their tokens" in each for each in told["state"]["words"])
    assert any("What can be read from the activations" in each for each in told["probes"]["words"])
    assert not any("probes.parquet does not exist yet" in each for each in told["probes"]["infos"])


def config(task: str, model: object, **machine: object) -> interp.Run:
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1, **machine)  # type: ignore[arg-type]
    return interp.Run(Path("nowhere"), RunConfig(task, spec, model, TrainingConfig()))  # type: ignore[arg-type]


def test_pages_ask_what_a_model_declares() -> None:
    gru = config("trace", GRUConfig(d_vocab=9, n_ctx=9))
    whole = config("step", TransformerConfig(d_vocab=9, n_ctx=9))
    attention_alone = config("step", TransformerConfig(d_vocab=9, n_ctx=9, attn_only=True))
    refusals = {name: [page.refuses(run) is not None for run in (gru, whole, attention_alone)]
                for name, page in PAGES.items()}  # fmt: skip
    assert refusals == {
        "step": [False] * 3, "examples": [False] * 3, "probes": [False] * 3, "intervene": [False] * 3,
        "training": [False] * 3, "compare": [False] * 3, "data": [False] * 3,
        "attention": [True, False, False], "circuit": [True, False, True], "stream": [False, True, True],
        "state": [False, True, True], "thinking": [True] * 3, "memory": [True] * 3,
        "sums": [False] * 3, "string": [False] * 3, "text": [False] * 3,
    }  # fmt: skip


@pytest.mark.parametrize("architecture", ["transformer", "gru", "linear_attention", "mamba"])
def test_what_a_config_declares_is_what_its_model_has(architecture: str) -> None:
    """A refusal reads the config alone; the model must not know better."""
    from interp.models import MODELS, build_model

    config = MODELS[architecture].config(d_vocab=9, n_ctx=9, n_layers=1, d_model=16)
    model = build_model(config)
    assert config.has_attention == bool(model.attention_hooks())
    assert config.has_graph == (model.graph() is not None)
    carries = bool(model.carrier_hooks()) and not model.attention_hooks()
    assert getattr(config, "has_state", False) == carries


def test_a_run_of_a_state_model_opens_without_torch(tmp_path: Path) -> None:
    """Importing torch takes seconds of a page that must be there at once."""
    model = GRUConfig(d_vocab=33, n_ctx=129, d_model=16)
    spec: Any = MachineSpec()  # stands for its world
    run = RunConfig("trace", spec, model, TrainingConfig(), options=StreamOptions(n_steps=32, units="shown"))
    write_config(tmp_path, run)
    code = (
        "import sys, interp; from app.first_pages import first_page, pages_of; "
        f"run = interp.load({str(tmp_path)!r}); pages_of(run); [page.refuses(run) for page in pages_of(run).values()]; "
        "print(run.config.digest, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == [run.digest, "False"], done.stderr[-2000:]
    assert {name: TASKS[name].Options for name in OPTIONS} == OPTIONS
    assert all(name in OPTIONS for name in TASKS if TASKS[name].Options is not NoOptions)


def test_the_first_page_follows_what_the_task_answers() -> None:
    """The table that knows it without torch agrees with what the tasks declare."""
    assert {name for name in TASKS if TASKS[name].answers_state} == set(NEXT_STATE_TASKS)
    assert {name for name in TASKS if TASKS[name].tells_stream} == set(STREAM_TASKS)
    assert {name for name in TASKS if TASKS[name].writes} == set(WRITING_TASKS)
    model = TransformerConfig(d_vocab=9, n_ctx=9)
    assert [first_pages.first_page(config(task, model)).name for task in ("step", "trace", "chain", "output")] == [
        "step", "examples", "examples", "examples"
    ]  # fmt: skip
    assert first_pages.first_page(config("step", model, pointers="index")).name == "examples"
