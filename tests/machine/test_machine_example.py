"""The example that plots a statistic of many steps, at a smaller size."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest

from cython_vm import MachineSpec, Op, Outcome, run, sample

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "machine_statistics.py"


def test_the_statistics_are_those_of_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n, limit = 4000, 40
    figure = runpy.run_path(str(EXAMPLE))["main"](tmp_path / "made" / "statistics.html", n=n, limit=limit)
    page = (tmp_path / "made" / "statistics.html").read_text()
    assert "Distinct cells visited" in page and "https://cdn" not in page.split("<body>")[0]

    states = sample(MachineSpec(), n, seed=0).replace("instruction_ptr", 0)
    trace = run(states, limit)
    one_loop = np.flatnonzero((states.program == Op.WHILE).sum(axis=1) == 1)
    lines = {trace.name: trace for trace in figure.select_traces({"type": "scatter"})}
    bars = {trace.name: trace for trace in figure.select_traces({"type": "bar"})}
    assert len(lines) == len(bars) == 4
    name = f"1 loop ({len(one_loop):,})"
    np.testing.assert_allclose(lines[name].y[9], (trace.n_steps[one_loop] >= 10).mean())
    assert list(lines[name].x) == list(range(1, limit + 1))
    visited = [len(set(trace.row(row).array_ptr.tolist())) for row in one_loop.tolist()]
    np.testing.assert_allclose(bars[name].y, np.bincount(visited, minlength=11)[1:] / len(one_loop))
    for trace_ in bars.values():
        assert sum(trace_.y) == pytest.approx(1)
    out = capsys.readouterr().out
    assert f"{trace.n_steps.sum():,} steps" in out
    assert f"{(trace.outcome == Outcome.HALTED).mean():.1%}" in out
