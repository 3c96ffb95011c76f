"""The margin of compiled models, and the tightest squeeze that keeps it."""

from dataclasses import replace

import pytest
import torch

from cython_vm import MachineSpec, sample
from interp.compiled import NoiseConfig, compile_model, margin, tightest

SPEC = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)


@pytest.mark.parametrize("task", ["step_inplace", "step"])
def test_margin_is_the_smallest_lead(task: str) -> None:
    compiled, states = compile_model(SPEC, task=task, gain=7.0), sample(SPEC, 100, seed=0)
    assert margin(compiled, states) == pytest.approx(7, abs=0.05)
    with torch.no_grad():
        compiled.model.unembed.b_U[SPEC.token_id("STOP")] += 3  # where STOP is wrong it now leads by 3 less
    assert margin(compiled, states) == pytest.approx(4, abs=0.05)
    with torch.no_grad():
        compiled.model.unembed.b_U[SPEC.token_id("STOP")] += 5
    assert margin(compiled, states) == pytest.approx(-1, abs=0.05)


def test_the_tightest_squeeze_is_just_before_the_margin_is_lost() -> None:
    tried: dict[int, float] = {}
    noise = tightest(SPEC, noise=NoiseConfig(rotate=True), least=5.0, n_states=200, progress=tried.__setitem__)
    assert noise.rotate and tried[noise.squeeze] >= 5
    assert all(lead >= 5 for squeeze, lead in tried.items() if squeeze <= noise.squeeze)
    beyond = replace(noise, squeeze=noise.squeeze + 1)
    if beyond.squeeze in tried:
        assert tried[beyond.squeeze] < 5
    else:
        with pytest.raises(ValueError, match="squeeze must be below"):
            compile_model(SPEC, noise=beyond)


def test_a_margin_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"leads by [\d.]+ logits, not by 20"):
        tightest(SPEC, least=20.0, n_states=50)
