"""Counts are checked at every entry point that takes one, before anything is computed."""

from __future__ import annotations

import ast
from dataclasses import MISSING, fields, is_dataclass, replace
from importlib import import_module
from math import inf, nan
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import pytest
import torch

import interp
from interp.interventions import principal_angles
from interp.ranges import COUNTED, counted, require_number
from interp.tasks import Site
from interp.training.presets import PRESETS

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("circuits", "interventions", "probing", "evaluation")
COUNTS = {
    "n", "n_pairs", "n_bootstrap", "n_random", "n_greedy", "n_steps", "n_candidates", "n_sizes", "n_changing",
    "n_edits", "batch_size", "steps", "max_parts", "rank",
}  # fmt: skip
ELSEWHERE = {  # checked by hand where they come in, with a test there
    "interp.evaluation.denoising:denoising_curve",
    "interp.evaluation.rollout:survival",
}

for room in ROOMS:
    for file in (ROOT / "interp" / room).glob("*.py"):
        import_module(f"interp.{room}.{file.stem}")


def public_functions() -> dict[str, set[str]]:
    """The parameters of every public function that its room's `__init__` names, by module and name."""
    found = {}
    for room in ROOMS:
        listed = set(getattr(import_module(f"interp.{room}"), "__all__", ()))
        for file in sorted((ROOT / "interp" / room).glob("*.py")):
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.FunctionDef) and (node.name in listed or (not listed and node.name[0] != "_")):
                    names = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
                    found[f"interp.{room}.{file.stem}:{node.name}"] = names
    return found


def test_every_public_function_that_counts_declares_it() -> None:
    functions = public_functions()
    assert len(functions) > 60
    lacking = {
        name: sorted(missing)
        for name, parameters in functions.items()
        if name not in ELSEWHERE and (missing := (parameters & COUNTS) - set(COUNTED.get(name, {})))
    }
    assert lacking == {}


@pytest.mark.parametrize("name", sorted(COUNTED))
def test_what_is_no_count_is_refused_by_name(name: str) -> None:
    module, _, function = name.partition(":")
    call: Any = getattr(import_module(module), function)
    for parameter, least in COUNTED[name].items():
        wrong: tuple[Any, ...] = (least - 1, 2.5, nan, inf, True, "3")
        for value in wrong + (([],) if least else ()):
            with pytest.raises(ValueError, match=f"^{parameter} must "):
                call(**{parameter: value})


def configurations() -> dict[str, Any]:
    """Every dataclass of options and settings with the values that a preset, or its defaults, give it."""
    found: dict[str, Any] = {}
    for name in PRESETS:
        for part in (PRESETS[name].model, PRESETS[name].training, PRESETS[name].options):
            if part is not None:
                found.setdefault(type(part).__name__, part)
    for module in walk_packages(interp.__path__, "interp."):
        if module.name.endswith("__main__"):
            continue
        for name, kind in vars(import_module(module.name)).items():
            asked = name.endswith(("Config", "Options", "Settings", "Fit")) and is_dataclass(kind)
            if asked and name not in found and not any(each.default is MISSING for each in fields(kind)):
                found[name] = kind()  # type: ignore[operator]
    return found


CONFIGURATIONS = configurations()


def test_the_configurations_are_all_there() -> None:
    assert {"TransformerConfig", "LSTMConfig", "TrainingConfig", "EvaluationOptions", "CircuitConfig"} <= set(
        CONFIGURATIONS
    )
    assert len(CONFIGURATIONS) > 30


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_numbers_of_a_configuration_are_numbers(name: str) -> None:
    """NaN and infinity nowhere, fractions and truth values not as counts, counts not below zero but for a −1 said."""
    config = CONFIGURATIONS[name]
    for each in fields(config):
        value = getattr(config, each.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or str(each.type).startswith("Literal"):
            continue
        for wrong in (nan, inf, True, *((2.5, -3) if isinstance(value, int) else ("1",))):
            with pytest.raises(ValueError, match=rf"\b{each.name}\b"):
                replace(config, **{each.name: wrong})


def test_a_declaration_names_a_parameter() -> None:
    with pytest.raises(TypeError, match="no parameter m"):
        counted(m=1)(lambda n: n)


@pytest.mark.parametrize("value", [nan, inf, 0, -1, 2.0, True, "1", None])
def test_numbers_outside_their_interval_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="tau must be a number above 0 and at most 1, got"):
        require_number("tau", value, above=0, most=1)
    require_number("tau", 1, above=0, most=1)


@pytest.mark.parametrize("fields", [{"hook": ""}, {"hook": None}, {"positions": ""}, {"head": -1}, {"head": 1.5}])
def test_a_site_that_is_no_place_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="hook of a site|positions of a site|^head must be"):
        Site(**{"hook": "hook_embed", **fields})


def test_angles_are_between_orthonormal_bases_of_one_width() -> None:
    plane = torch.eye(4)[:2]
    assert principal_angles(plane, plane[:1]) == pytest.approx([0])
    assert principal_angles(plane, torch.eye(4)[2:]) == pytest.approx([90, 90])
    for other in (torch.eye(5)[:2], torch.zeros(1, 4), torch.full((1, 4), nan), torch.ones(4)):
        with pytest.raises(ValueError, match="both bases|orthonormal"):
            principal_angles(other, plane)
        with pytest.raises(ValueError, match="both bases|orthonormal"):
            principal_angles(plane, other)
