"""Three bundled runs measured anew from their weights, with the same seeds at one thread, give the rows they hold.

Some minutes: behind `make test-long`. Seeds are those of the options' defaults, numbers of the recorded settings.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp.cli import main
from interp.results import read_frame
from interp.runs import load
from interp.stage_options import EvaluationOptions
from interp.studies.evaluation_stage import evaluate_stage

CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"
MEASURED = ("estimate", "ci_low", "ci_high", "n")
CELLS = ("array_ptr", "operand", "cell[0]", "cell[1]")

# Run, frame, verb and what it was asked beside its defaults.
ANEW = [
    ("quickstart", "metrics", "eval", {}),
    ("quickstart", "interventions", "patch", ["--fresh"]),
    ("quickstart", "circuits", "circuit", ["--fresh"]),
    ("quickstart", "probes", "probe", ["--fresh"]),
    ("trace_small_gru", "metrics", "eval", {"n": 10_000, "programs": 0}),
    ("trace_small_gru", "probes", "probe", ["--fresh", "--n", "6000", "--edits", "32", "--variables", *CELLS]),
    ("trace_small_gru", "interventions", "patch", ["--fresh", "--n-pairs", "64", "--variables", *CELLS]),
    ("addition", "probes", "probe", ["--fresh", "--n", "1200", "--edits", "0"]),
    ("addition", "interventions", "patch", ["--fresh", "--n-pairs", "64"]),
    ("addition", "circuits", "circuit", ["--fresh", "--n-pairs", "64"]),
]


def keyed(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The rows' numbers by what else they say in these columns; repeated rows are numbered."""
    keys = [str([None if pd.isna(value) else value for value in row]) for row in frame[names].itertuples(index=False)]
    numbers = frame[list(MEASURED)].astype(float).set_axis(pd.Index(keys, name="row"))
    return numbers.set_index(numbers.groupby(level=0).cumcount(), append=True)


@pytest.mark.long
@pytest.mark.parametrize(("run", "kind", "verb", "asked"), ANEW, ids=[f"{run}-{kind}" for run, kind, *_ in ANEW])
def test_a_bundled_run_measured_anew(run: str, kind: str, verb: str, asked: Any, tmp_path: Path) -> None:
    copy = tmp_path / run
    shutil.copytree(CHECKPOINTS / run, copy)
    if verb == "eval":  # the verb keeps what was evaluated with these numbers
        evaluate_stage(load(copy), EvaluationOptions(**asked), fresh=True)
    else:
        main([verb, str(copy), *asked, "--threads", "1"])
    frames = [read_frame(folder / f"{kind}.parquet") for folder in (CHECKPOINTS / run, copy)]
    # Columns that a file lacks, being older than they are, tell nothing.
    names = [name for name in frames[0] if name not in MEASURED and not any(f[name].isna().all() for f in frames)]
    old, new = (keyed(frame, names) for frame in frames)
    assert set(old.index.get_level_values(0)) <= set(new.index.get_level_values(0))  # a command may measure more today
    both = old.index.intersection(new.index)
    old, new = old.loc[both], new.loc[both]
    assert (old["n"].fillna(-1) == new["n"].fillna(-1)).all()
    for name in ("estimate", "ci_low", "ci_high"):
        off = (old[name] - new[name]).abs()
        far = off[~(off <= 1e-6) & ~(old[name].isna() & new[name].isna())]
        assert far.empty, f"{len(far)} of {len(old)} rows differ in {name}, by {far.max():.2g} at most: {far.index[0]}"
