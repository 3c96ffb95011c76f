"""A sweep's file: which runs it means, their names, what it pays for, and what it cannot say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_cases import TINY, spec_values, toml

from interp.cli import main
from interp.runs import RunConfig
from interp.stage_options import CardOptions, EvaluationOptions, ProbeOptions
from interp.studies.sweep import orders_of
from interp.studies.sweep_spec import Budget, SweepSpec, read_spec, spec_from
from interp.training import PRESETS
from interp.training.rebuilt import rebuilt

EXAMPLES = sorted(TINY.parent.glob("*.toml"))


def spec(**tables: Any) -> SweepSpec:
    return spec_from(spec_values(**tables), name="s")


def test_a_grid_is_every_combination_and_a_list_stands_in_each_place_of_it() -> None:
    grid = {"seed": [0, 1], "training.adamw_lr": [0.001, 0.003]}
    listed = [{"architecture": "gru"}, {"architecture": "mamba", "model.d_state": 4, "name": "small_mamba"}]
    cells = spec(grid=grid, runs=listed).cells
    assert len(cells) == 8 and len({cell.name for cell in cells}) == 8
    assert cells[0].name == "trace_gru_gru_adamw_lr=0.001_s0" and cells[-1].name == "small_mamba_adamw_lr=0.003_s1"
    assert {cell.settings["architecture"] for cell in cells} == {"gru", "mamba"}
    grown = spec(grid={**grid, "seed": [0, 1, 2]}, runs=listed).cells
    assert {cell.name for cell in cells} < {cell.name for cell in grown}  # what there is keeps its folders


def test_what_is_told_reaches_the_config() -> None:
    told = {"runs": [{"task": "output", "architecture": "transformer", "model.n_heads": 2}], "grid": {"seed": [7]}}
    values = spec_values(**told)
    values["set"] |= {"training.schedule": "cosine"}
    del values["set"]["model.n_layers"], values["set"]["options.n_steps"]
    config = spec_from(values, name="s").cells[0].config(threads=3)
    assert (config.task, config.model.architecture, config.model.n_heads, config.model.d_model) == (
        "output", "transformer", 2, 16,
    )  # fmt: skip
    assert config.spec.n_cells == 3 and config.training.schedule == "cosine" and config.training.threads == 3
    assert config.seed == config.model.seed == 7
    order = orders_of(spec_from(values, name="s"))["trace_gru_output_transformer_n_heads=2_s7"]
    again = RunConfig.from_dict(order["config"])
    assert again.digest == order["digest"] == replace(config, training=replace(config.training, threads=1)).digest


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"records": 1000}, 125), ({"steps": 3}, 3), ({"seconds": 2.0}, 8), ({"records": 1}, 1), ({}, 20)],
)
def test_a_budget_is_steps_of_the_training(budget: dict[str, Any], steps: int) -> None:
    seconds: dict[str, float] = {"trace_gru_s0": 0.25, "trace_gru_s1": 0.25}
    orders = orders_of(spec(budget=budget), step_seconds=seconds)
    assert {order["config"]["training"]["steps"] for order in orders.values()} == {steps}


def test_seconds_are_not_guessed() -> None:
    with pytest.raises(ValueError, match="needs the measured seconds of a step"):
        orders_of(spec(budget={"seconds": 2.0}))
    with pytest.raises(ValueError, match="one of records, seconds and steps"):
        Budget(records=1, steps=1)


def test_options_of_verbs_are_those_of_the_command_line() -> None:
    found = read_spec(TINY).options
    assert found["eval"] == EvaluationOptions(n=200, programs=0)
    assert found["probe"] == ProbeOptions(n=400, variables=("array_ptr",), edits=0, controls=False)
    with pytest.raises(ValueError, match=r"\[options.probe\] variables must be a list"):
        spec(options={"probe": {"variables": "op"}})


def test_a_card_by_a_sweep_is_the_card_of_the_verb() -> None:
    from interp.cli.verbs import parse

    call: Any = parse(["card", "RUN"])
    assert {name: call.keywords[name] for name in vars(CardOptions())} == vars(CardOptions())


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no preset": ({"set": {}}, "every run needs a preset"),
    "unknown preset": ({"set": {"preset": "trase"}}, "unknown preset 'trase'"),
    "unknown field": ({"grid": {"training.stepz": [1]}}, "unexpected keyword argument 'stepz'"),
    "unknown size": ({"grid": {"model.n_heads": [1]}}, "takes no --model.n-heads"),
    "unknown setting": ({"grid": {"sead": [1]}}, "has no 'sead'"),
    "machine": ({"grid": {"machine.n_cell": [1]}}, "machine.n_cell is none of"),
    "architecture": ({"grid": {"architecture": ["gpt"]}}, "gpt"),
    "task": ({"grid": {"task": ["tracing"]}}, "task must be one of"),
    "table": ({"budgets": {}}, "has no 'budgets'"),
    "verb": ({"verbs": ["train", "probes"]}, "verbs must be some of"),
    "option": ({"options": {"eval": {"m": 3}}}, "m is none of its options"),
    "cpus": ({"resources": {"cpus": 0}}, "cpus must be a whole number of at least 1"),
    "retries": ({"retries": -1}, "retries must be a whole number"),
    "seed": ({"grid": {"seed": [-1]}}, "seed must be a whole number"),
    "twice": ({"runs": [{"seed": 1}]}, "stands in [grid] and in [[runs]]"),
    "same name": ({"runs": [{"name": "a"}, {"name": "a"}]}, "two runs are named a_s0"),
    "path": ({"runs": [{"name": "../a"}]}, "cannot be the name of a folder"),
    "empty": ({"grid": {"seed": []}}, "must be a list of values"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_file_cannot_say_is_one_sentence(case: str) -> None:
    tables, words = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        orders_of(spec_from(spec_values() | tables, name="s"))
    assert "\n" not in str(refused.value)


def test_the_command_line_names_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.toml"
    for text, words in (("verbs = [", "is not TOML"), (toml({"verbs": ["fly"]}), "verbs must be some of")):
        file.write_text(text)
        with pytest.raises(SystemExit):
            main(["sweep", str(file), "--out", str(tmp_path / "out")])
        shown = capsys.readouterr().err
        assert str(file) in shown and words in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_sweeps(file: Path) -> None:
    found = read_spec(file)
    orders = orders_of(found, step_seconds=dict.fromkeys((cell.name for cell in found.cells), 0.1))
    assert len({order["digest"] for order in orders.values()}) == len(orders)


def test_another_architecture_takes_nothing_of_the_old_ones_sizes() -> None:
    preset = PRESETS["trace"]
    same = rebuilt(preset, preset.world)
    assert same.digest == preset.digest
    gru = rebuilt(preset, preset.world, architecture="gru", model={"d_model": 32})
    assert (gru.model.architecture, gru.model.d_model, gru.options) == ("gru", 32, preset.options)
    back = rebuilt(gru, gru.world, architecture="transformer", model={"d_model": preset.model.d_model})
    assert back.digest == preset.digest


def test_a_task_without_a_prompt_cannot_be_filled_in() -> None:
    preset = PRESETS["trace"]
    with pytest.raises(ValueError, match="needs a prompt and an answer behind it; trace has none"):
        rebuilt(preset, preset.world, architecture="masked_diffusion")
