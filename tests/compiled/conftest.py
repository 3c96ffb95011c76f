"""Compiled interpreters of the small machine."""

from __future__ import annotations

import pytest
import torch
from compiled_machine import SPEC

from interp.compiled import Compiled, compile_model

torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["step_inplace", "step"])
def compiled(request) -> Compiled:
    return compile_model(SPEC, task=request.param)


@pytest.fixture(scope="session")
def inplace() -> Compiled:
    return compile_model(SPEC)
