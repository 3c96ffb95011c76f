"""What a verb does without options is what its library function does without arguments: one default, said once."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import pytest
import tyro

from interp.circuits.config import CircuitConfig
from interp.cli import COMMANDS
from interp.cli.verbs import parse
from interp.demo import CIRCUITS
from interp.interventions import SubspaceFit
from interp.probing import SweepConfig
from interp.stage_options import CircuitOptions, EvaluationOptions, PatchOptions, ProbeOptions, SourceOptions
from interp.studies.study_config import StudyConfig

STAGES: dict[str, tuple[type, str]] = {
    "eval": (EvaluationOptions, "interp.studies.evaluation_stage:evaluate_stage"),
    "probe": (ProbeOptions, "interp.studies.probe_stage:probe_stage"),
    "patch": (PatchOptions, "interp.studies.patch_stage:patch_stage"),
    "sources": (SourceOptions, "interp.studies.sources:sources_stage"),
    "circuit": (CircuitOptions, "interp.studies.circuit_stage:circuit_stage"),
}
# What lies below the stages and behind the other verbs; parameters of a name that the verb's options have are compared
BELOW = {
    "eval": ["interp.evaluation.measure:measure", "interp.studies.evaluation_stage:evaluate_run",
             "interp.training.scoring:evaluate", "interp.evaluation.rollout:rollout"],
    "probe": ["interp.probing:SweepConfig", "interp.probing:probe_sweep"],
    "patch": ["interp.interventions:run_interventions", "interp.interventions:deepen",
              "interp.studies.state_stage:state_stage"],
    "circuit": ["interp.circuits:CircuitConfig", "interp.studies.circuit_study:study"],
    "card": ["interp.pages.cards:make_card"],
    "circuit-page": ["interp.pages.circuits:write_circuit_page"],
    "thinking": ["interp.studies.thinking:measure_thinking"],
    "chains": ["interp.studies.chains:measure_chains"],
    "diffusion": ["interp.studies.diffusion:measure_diffusion"],
    "lengths": ["interp.studies.lengths:LengthsConfig"],
    "sums": ["interp.studies.sums:measure_sums"],
    "sums-lengths": ["interp.studies.sums:seed_length_rows"],
    "sums-tables": ["interp.studies.sum_tables:TablesConfig", "interp.studies.sum_tables:measure_tables"],
    "slots": ["interp.studies.slots:measure_slots"],
    "slots-inside": ["interp.studies.slot_inside:measure_inside"],
    "slots-restarts": ["interp.studies.slot_restarts:measure_restarts"],
    "sample-text": ["interp.studies.texts:judge_run"],
    "compile": ["interp.compiled:compile_model"],
}  # fmt: skip
RUN = {"chains", "eval", "probe", "patch", "circuit", "card", "thinking", "report", "sums", "slots", "sample-text"} | {
    "diffusion",
    "slots-inside",
    "generate",
    "chat",
}
PAGES = {f"{name}-page" for name in ("circuit", "model", "probing", "states", "slots", "strings", "sums")} | {
    "sums-lengths",
    "compare",
    "curves",
}


def named(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def asked(verb: str) -> dict[str, Any]:
    """Every option of a verb, with the value that it has where none is given."""
    call: Any = parse([verb, *(["RUN"] if verb in RUN | PAGES else [])])
    assert isinstance(call, partial)
    options = {**inspect.signature(COMMANDS[verb]).parameters}
    values = {name: call.keywords.get(name, parameter.default) for name, parameter in options.items()}
    return values | (dataclasses.asdict(values["asked"]) if "asked" in values else {})


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function takes for the arguments that it can do without."""
    found = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in found if each.default is not inspect.Parameter.empty}


@pytest.mark.parametrize("verb", STAGES)
def test_a_verb_hands_its_stage_what_the_stage_does_by_default(verb: str) -> None:
    options, place = STAGES[verb]
    assert parse([verb, "RUN"]).keywords["asked"] == defaults(named(place))["options"] == options()  # type: ignore


@pytest.mark.parametrize("verb", STAGES)
def test_every_field_of_a_stage_is_an_option_with_words(verb: str) -> None:
    with pytest.warns(DeprecationWarning, match="get_parser"):
        help_text = re.sub(r"\s+", " ", tyro.extras.get_parser(COMMANDS[verb]).format_help())
    for field in dataclasses.fields(STAGES[verb][0]):
        assert f"--{field.name.replace('_', '-')}" in help_text
    changed = parse([verb, "RUN", "--seed", "77"]).keywords["asked"]  # type: ignore[attr-defined]
    assert changed == STAGES[verb][0](seed=77)


@pytest.mark.parametrize("verb", BELOW)
def test_what_lies_below_a_verb_has_its_defaults(verb: str) -> None:
    values, compared = asked(verb), 0
    for place in BELOW[verb]:
        for name, default in defaults(named(place)).items():
            own = name in ("n_exact_pairs", "fresh") or default is None or values.get(name) == ()  # (): as below
            if name in values and not own:
                assert default == values[name], (place, name)
                compared += 1
    assert compared


def test_what_the_circuit_verb_is_asked_reaches_the_search() -> None:
    every = CircuitOptions(
        n_pairs=64, method="eap", grid="mib", steps=9, levels=("node",), n_exact_pairs=12, freezes=True, paths=("a",)
    )
    study = StudyConfig.asked(every)
    assert study.circuit == CircuitConfig(n_pairs=64, method="eap", grid="mib", steps=9)
    assert (study.levels, study.n_exact_pairs, study.freezes, study.paths) == (("node",), 12, True, ("a",))
    assert StudyConfig.asked(CircuitOptions()) == StudyConfig()


def test_the_demo_says_in_one_place_what_it_leaves_out() -> None:
    assert dataclasses.replace(CIRCUITS, levels=CircuitOptions.levels) == CircuitOptions()
    assert set(CIRCUITS.levels) < set(CircuitOptions.levels)


def test_fits_of_subspaces_have_the_rank_of_the_verb() -> None:
    assert SubspaceFit().rank == PatchOptions().rank
    assert "n" not in defaults(SweepConfig)  # the task says how many
