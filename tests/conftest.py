"""Shared by all tests: one thread, registries as they were, one browser, and a tiny run, trained once a session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from chromium_path import CHROMIUM
from tiny import tiny_config

from interp.circuits import SCORERS
from interp.models import MODELS
from interp.runs import Run
from interp.tasks import TASKS
from interp.training import PRESETS, train
from interp.worlds import WORLDS
from probes import PROBES

torch.set_num_threads(1)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The one browser of a session: two cannot be driven from one process."""
    assert CHROMIUM is not None, "CI=true and no Chromium: the browser tests must run there"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(autouse=True)
def registries_as_they_were() -> Iterator[None]:
    """What a test enters in a registry is gone behind it, whatever test comes next."""
    registries = (WORLDS, TASKS, MODELS, SCORERS, PROBES, PRESETS)
    before = [list(registry) for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in set(registry) - set(names):
            del registry[name]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run with weights and metrics and nothing else. Do not write into it."""
    return train(tiny_config(), tmp_path_factory.mktemp("runs") / "tiny")
