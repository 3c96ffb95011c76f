"""RUN/probe_errors.parquet: where each probe errs. Confusion counts, and its surest mistakes with the states they are
made in.

Columns: site, position, variable, method; truth, predicted, count (how many held-out examples); and for single
mistakes, count 1, margin (log of the predicted value's probability over that of the truth, in nats), start (tokens
that name the example, by `Task.spell`; of the machine the state in which its run begins) and step (the executed step of
the example, from 0); these three are absent on counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from interp.files import atomic_path
from interp.reading import BrokenFileError, read_parquet, reading
from interp.runs import Run, RunError, frame_command, provenance

FILE = "probe_errors.parquet"
_SCHEMA = pa.schema(
    [(name, pa.dictionary(pa.int32(), pa.string())) for name in ("site", "position", "variable", "method")]
    + [("truth", pa.int32()), ("predicted", pa.int32()), ("count", pa.int64()), ("margin", pa.float64())]
    + [("start", pa.list_(pa.uint16())), ("step", pa.int64())]
)


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
        raise RunError(f"{path} does not exist yet; make it with: {frame_command('probes', run.path)}")
    anew = f"make it anew with: {frame_command('probes', run.path, fresh=True)}"
    try:
        table, found = read_parquet(path)
        with reading(path, "a file of probe errors", pa.ArrowException):
            frame = _checked(table, run.task.spelled_length)
    except BrokenFileError as error:
        raise BrokenFileError(f"{error}; {anew}") from None
    if found.get("digest") != run.config.digest:
        raise RunError(
            f"{path} was measured under config {found.get('digest')}, but this run is {run.config.digest}; {anew}"
        )
    frame.attrs["provenance"] = found
    return frame


def _checked(table: pa.Table, length: int) -> pd.DataFrame:
    """The table's rows. Raises TypeError or ValueError where its columns or the mistakes in it are of another kind."""
    if table.schema.names != _SCHEMA.names or any(table.schema.field(each.name).type != each.type for each in _SCHEMA):
        raise TypeError(f"its columns must be {', '.join(_SCHEMA.names)}, each of its own type")
    frame = table.to_pandas()
    mistakes = frame.loc[frame["margin"].notna()]
    if mistakes["step"].isna().any() or (mistakes["step"] < 0).any():
        raise ValueError("a mistake must name the step that it is made in")
    if not all(start is not None and len(start) == length for start in mistakes["start"]):
        raise ValueError(f"a mistake must name a start of {length} tokens")
    return frame
