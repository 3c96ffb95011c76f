"""Every probe fits and predicts alike whatever gradient mode the caller is in, and leaves the mode as it was."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
import torch
from probe_cases import fresh

from probes import PROBES, MajorityProbe, online_code_length

torch.set_num_threads(1)

NAMES = [*PROBES, "majority"]
MODES: dict[str, Callable[[], AbstractContextManager]] = {
    "enabled": torch.enable_grad,
    "disabled": lambda: torch.set_grad_enabled(False),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
}


def make(name: str) -> Any:
    return MajorityProbe() if name == "majority" else fresh(name)


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (240,), generator=generator)
    return torch.randn(3, 5, generator=generator)[y] + 0.5 * torch.randn(240, 5, generator=generator), y


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["array", "tensor", "made_inside"])
def test_fits_in_every_gradient_mode(name, mode, kind):
    x, y = rows()
    wanted = make(name).fit(x, y).predict(x)
    with MODES[mode]():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        given: Any = {"array": lambda: x.numpy(), "tensor": lambda: x, "made_inside": lambda: x * 1}[kind]()
        fitted = make(name).fit(given, y)
        predicted = fitted.predict(given)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert np.array_equal(predicted, wanted)
    assert np.array_equal(fitted.predict(x), wanted)
    # What was made in one mode is fitted in another.
    assert np.array_equal(make(name).fit(given, y).predict(given), wanted)


def test_the_whole_session_without_gradients():
    x, y = rows()
    torch.set_grad_enabled(False)
    try:
        for name in NAMES:
            assert make(name).fit(x, y).score(x, y) > (0.3 if name == "majority" else 0.6)
        bits = online_code_length(fresh("mlp"), x, y, seed=0).bits
        assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    assert online_code_length(fresh("mlp"), x, y, seed=0).bits == bits
