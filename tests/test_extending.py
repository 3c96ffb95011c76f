"""What docs/extending.md shows runs as shown, without the machine, and each file is as small as the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from extending import FILES, PAGE, PARTS, ROOT, page

import interp

BLOCKED = """
import runpy, sys

class NoMachine:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cython_vm":
            raise ImportError("the machine is not to be imported here")

sys.meta_path.insert(0, NoMachine())
sys.path.insert(0, sys.argv[2])
sys.argv = ["journey.py", sys.argv[1]]
runpy.run_path(sys.path[0] + "/journey.py", run_name="__main__")
"""


def test_the_page_shows_the_files() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/extending.md is out of date; make it with: make house"


@pytest.mark.parametrize("name", PARTS)
def test_a_new_part_is_one_small_file(name: str) -> None:
    assert len((FILES / name).read_text(encoding="utf-8").splitlines()) <= 60


def test_all_parts_walk_the_whole_journey_without_the_machine(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(tmp_path), str(FILES)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("transformer", "pooled"):
        folder = tmp_path / name
        for frame in ("metrics", "probes", "interventions"):
            assert (folder / f"{frame}.parquet").exists(), (name, frame)
        report = (folder / "report.html").read_text(encoding="utf-8")
        assert "the world larger" in report and "Traceback" not in report
    assert (tmp_path / "transformer" / "circuits" / "FIRST.json").exists()
    assert not (tmp_path / "pooled" / "circuits").exists(), "a model without a graph goes without circuits"
    sys.path.insert(0, str(FILES))
    try:
        import larger_task  # noqa: F401  # each enters itself in its registry
        import larger_world  # noqa: F401
        import pooled_model  # noqa: F401

        run = interp.load(tmp_path / "pooled")
        swaps = run.frame("interventions")
        ours = swaps[(swaps.variable == "larger") & swaps.control.isna() & (swaps.metric == "iia")]
        assert ours.estimate.max() > 0.5, "somewhere the larger number is carried"
        assert set(run.frame("probes").method) >= {"logistic", "neighbour"}
    finally:
        sys.path.remove(str(FILES))
