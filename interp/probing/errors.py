"""RUN/probe_errors.parquet: where each probe errs. Confusion counts, and its surest mistakes with the states they are
made in.

Columns: site, position, variable, method; truth, predicted, count (how many held-out examples); and for single
mistakes, count 1, margin (log of the predicted value's probability over that of the truth, in nats), start (the tokens
of the state that the machine's run begins in) and step (of that run, from 0); these three are absent on counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cython_vm import encode
from interp.files import atomic_path
from interp.probing.examples import Examples
from interp.runs import Run, RunError, provenance
from probes import LinearProbe, SoftmaxProbe

FILE = "probe_errors.parquet"
WORST = 5  # mistakes kept a probe
_SCHEMA = pa.schema(
    [(name, pa.dictionary(pa.int32(), pa.string())) for name in ("site", "position", "variable", "method")]
    + [("truth", pa.int32()), ("predicted", pa.int32()), ("count", pa.int64()), ("margin", pa.float64())]
    + [("start", pa.list_(pa.uint16())), ("step", pa.int64())]
)


def probe_errors(
    probe: Any, index: int, x: Any, truth: np.ndarray, predicted: np.ndarray, held: Examples, columns: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Rows of the file for variable `index` of a fitted stack of one site, scored on x [m, d]."""
    defined = truth >= 0
    pairs, counts = np.unique(np.stack([truth[defined], predicted[defined]]), axis=1, return_counts=True)
    rows: list[dict[str, Any]] = [
        {**columns, "truth": int(t), "predicted": int(p), "count": int(count)}
        for (t, p), count in zip(pairs.T, counts, strict=True)
    ]
    wrong = np.flatnonzero(defined & (predicted != truth))
    if not (isinstance(probe, LinearProbe) and isinstance(probe, SoftmaxProbe)) or not len(wrong):
        return rows
    said, right = (
        np.searchsorted(probe.classes_, y[wrong]).clip(max=len(probe.classes_) - 1) for y in (predicted, truth)
    )
    intercept = probe.intercept_[index]
    known = (probe.classes_[right] == truth[wrong]) & np.isfinite(intercept[right])
    wrong, said, right = wrong[known], said[known], right[known]
    weights = probe.coef_[index]
    at = np.asarray(x[wrong].cpu())
    margin = (at * (weights[said] - weights[right])).sum(1) + intercept[said] - intercept[right]
    for i in np.argsort(-margin, kind="stable")[:WORST]:
        example = int(wrong[i])
        start = held.starts[held.row[example : example + 1]]
        rows.append(
            {
                **columns,
                "truth": int(truth[example]),
                "predicted": int(predicted[example]),
                "count": 1,
                "margin": float(margin[i]),
                "start": encode(start)[0].tolist(),
                "step": int(held.step[example]),
            }
        )
    return rows


def write_errors(run: Run, rows: Sequence[Mapping[str, Any]], **extra: Any) -> None:
    """Write the run's file, whole or not at all, with the run's provenance."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=_SCHEMA)
    table = table.replace_schema_metadata({"tapelens": json.dumps(provenance(run.config, step=run.step, **extra))})
    with atomic_path(run.path / FILE) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_errors(run: Run) -> pd.DataFrame:
    """The run's file; `attrs["provenance"]` says what it was measured on.

    Raises:
        RunError: not measured yet, broken, or measured under another config.
    """
    path = run.path / FILE
    if not path.exists():
        raise RunError(f"{path} does not exist yet; make it with: tapelens probe {run.path}")
    try:
        table = pq.read_table(path)
        found = json.loads((table.schema.metadata or {})[b"tapelens"])
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path} is not readable ({reason}); make it anew with: tapelens probe {run.path} --fresh"
        ) from None
    if found.get("digest") != run.config.digest:
        raise RunError(
            f"{path} was measured under config {found.get('digest')}, but this run is {run.config.digest}; "
            f"make it anew with: tapelens probe {run.path} --fresh"
        )
    frame = table.to_pandas()
    frame.attrs["provenance"] = found
    return frame
