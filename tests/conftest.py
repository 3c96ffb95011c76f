"""Shared by all tests: one thread, and a tiny run that is trained once a session."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_config

from interp.runs import Run
from interp.training import train

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run with weights and metrics and nothing else. Do not write into it."""
    return train(tiny_config(), tmp_path_factory.mktemp("runs") / "tiny")
