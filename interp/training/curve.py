"""The curve of a run as rows of the tidy frame: loss and rates as training goes, exact match at each evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp.results import Aggregation, Method, Metric, read_frame, records, rows_frame, select, write_frame
from interp.runs import RunConfig, RunError, hardware, provenance

CURVE_FILE = "metrics.parquet"


class Curve:
    """The rows of a run so far; `until` drops what was logged after the checkpoint that training goes on from."""

    def __init__(self, folder: Path, config: RunConfig, *, until: int):
        self.folder, self.config = folder, config
        self.rows: list[dict[str, Any]] = []
        self.threads: dict[str, int] = {}  # steps by the number of threads that made them
        if until:
            try:
                frame = read_frame(folder / CURVE_FILE)
            except FileNotFoundError:
                raise RunError(
                    f"{folder / CURVE_FILE} is gone, and the training cannot go on without it; start over with --fresh"
                ) from None
            self.threads = frame.attrs["provenance"].get("hardware", {}).get("threads", {})
            self.rows = records(frame.loc[frame.checkpoint_step <= until])

    def log(self, step: int, values: dict[Metric, float]) -> None:
        """Scalars after `step` steps."""
        n = self.config.training.batch_size
        common = {"checkpoint_step": step, "method": Method.TRAINING, "aggregation": Aggregation.MEAN, "n": n}
        self.rows += [{**common, "metric": metric, "estimate": value} for metric, value in values.items()]

    def add_evaluation(self, step: int, scores: pd.DataFrame) -> None:
        """Exact match of an evaluation's rows: the macro average, and by op x outcome; and bits a character of text."""
        for metric in (Metric.EXACT_MATCH, Metric.BITS):
            self.rows += [{**row, "checkpoint_step": step} for row in records(select(scores, metric=metric))]

    @property
    def last_evaluation(self) -> list[dict[str, Any]]:
        """The rows of the last evaluation; [] before the first."""
        evaluated = [row for row in self.rows if row["metric"] == Metric.EXACT_MATCH]
        return [row for row in evaluated if row["checkpoint_step"] == evaluated[-1]["checkpoint_step"]]

    @property
    def exact_match(self) -> float | None:
        """The macro average of the last evaluation, 0 to 1."""
        macro = [row["estimate"] for row in self.last_evaluation if row["aggregation"] == Aggregation.MACRO]
        return float(macro[-1]) if macro else None

    @property
    def by_op(self) -> dict[str, float] | None:
        """Exact match of the last evaluation by opcode, each the mean over its outcomes, 0 to 1."""
        shares: dict[str, list[float]] = {}
        for row in self.last_evaluation:
            if row["aggregation"] == Aggregation.MEAN and isinstance(row.get("op"), str):
                shares.setdefault(row["op"], []).append(row["estimate"])
        return {op: sum(each) / len(each) for op, each in shares.items()} or None

    def write(self, step: int, *, threads: Mapping[int, int], weights: str | None = None) -> None:
        """Write `metrics.parquet`, as of `step`; its provenance says how many steps were made with how many threads,
        and the SHA-256 of the weights that the last of these rows are about, where they are written already."""
        made_on = hardware() | {"threads": {str(each): threads[each] for each in sorted(threads)}}
        frame = rows_frame(self.rows).assign(
            run=self.folder.name,
            seed=self.config.training.seed,
            architecture=self.config.model.architecture,
            task=self.config.task,
        )
        about = {} if weights is None else {"weights": weights}
        made = provenance(self.config, step=step, hardware=made_on, **about)
        write_frame(frame, self.folder / CURVE_FILE, provenance=made)
