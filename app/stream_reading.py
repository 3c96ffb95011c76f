"""What probes read of a machine's tape along one stream, beside the truth, and how good such readings are elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.live_probes import LiveProbes, activation_of, cells_of, labels_of, relative_name, visited
from app.run_access import LoadedModel

PLACE, DISTANCE = "by place", "by distance to the pointer"


@dataclass(frozen=True, eq=False)
class Tape:
    """One stream's tape at every token."""

    pointer: np.ndarray  # int64 [pos]
    cells: np.ndarray  # int64 [pos, n_cells]
    seen: np.ndarray  # bool [pos, n_cells]: the pointer has been there


@dataclass(frozen=True, eq=False)
class ReadTape:
    """The same as probes read it; of cells [pos, n_cells]."""

    pointer: np.ndarray  # int64 [pos]
    p_pointer: np.ndarray  # float [pos], of what is read
    cells: np.ndarray  # int64; -1 where no probe could be fitted
    p: np.ndarray  # of what is read
    p_truth: np.ndarray  # of what is true


def true_tape(task: Any, batch: Any) -> Tape:
    """The tape of the stream in a batch of one."""
    pointer = np.asarray(task.labels(batch, "array_ptr"))
    names = [name for name in task.variables() if name.startswith("cell[")]
    cells = np.stack([np.asarray(task.labels(batch, name))[0] for name in names], axis=-1)
    return Tape(np.maximum(pointer[0], 0), cells, visited(pointer, len(names))[0])


def read_tape(loaded: LoadedModel, probes: LiveProbes, batch: Any, truth: Tape, *, addressing: str) -> ReadTape:
    """What probes read of it."""
    labels = {name: values[0] for name, values in labels_of(loaded.run.task, batch).items()}
    found = probes.read(activation_of(loaded, batch, probes.hook)[0], labels)
    n_cells = truth.cells.shape[-1]
    values, p, p_truth = (
        by_cell(each, truth.pointer, n_cells, addressing, missing=missing)
        for each, missing in ((found.values, -1), (found.p, 0.0), (found.p_truth, 0.0))
    )
    return ReadTape(found.values["array_ptr"], found.p["array_ptr"], values, p, p_truth)


def by_cell(
    values: Mapping[str, np.ndarray], pointer: np.ndarray, n_cells: int, addressing: str, *, missing: float
) -> np.ndarray:
    """What stands for each cell [..., n_cells] among values by variable [...].

    A cell that is read by its distance is looked up at the distance that it has from `pointer` [...], the true one.
    """
    nothing = np.full(pointer.shape, missing, dtype=next(iter(values.values())).dtype)
    found = []
    for cell in range(n_cells):
        if addressing == PLACE:
            found.append(values.get(f"cell[{cell}]", nothing))
            continue
        values_there = nothing.copy()
        for offset in range(1 - n_cells, n_cells):
            here = pointer + offset == cell
            if relative_name(offset) in values and here.any():
                values_there[here] = values[relative_name(offset)][here]
        found.append(values_there)
    return np.stack(found, axis=-1)


@dataclass(frozen=True)
class Elsewhere:
    """How well the tape is read on the streams that were kept apart."""

    pointer: float
    pointer_commonest: float
    cells: float  # of the cells that the pointer has been on
    cells_commonest: float  # each cell's commonest value of the fit
    whole: float  # tokens at which all of these cells are right
    whole_commonest: float
    n: int  # tokens
    n_streams: int


def elsewhere(probes: LiveProbes, addressing: str) -> Elsewhere:
    """See Elsewhere; tokens at which the pointer has been on a cell that has a probe."""
    batch, labels, predicted = probes.held
    cells = cells_of(labels)
    pointer = np.maximum(labels["array_ptr"], 0)
    truth = np.stack([labels[name] for name in cells], axis=-1)  # [n, pos, cell]; -1 where unseen
    said = dict(zip(probes.names, predicted, strict=True))
    commonest = {name: np.full(pointer.shape, probes.commonest[name]) for name in probes.names}
    asked = truth >= 0
    tokens = asked.any(-1)

    def scored(values: Mapping[str, np.ndarray]) -> tuple[float, float]:
        right = by_cell(values, pointer, len(cells), addressing, missing=-1) == truth
        return float(right[asked].mean()), float((right | ~asked).all(-1)[tokens].mean())

    each, whole = scored(said)
    each_commonest, whole_commonest = scored(commonest)
    of_pointer = probes.scored["array_ptr"]
    return Elsewhere(
        of_pointer.accuracy, of_pointer.commonest, each, each_commonest, whole, whole_commonest,
        int(tokens.sum()), len(batch),
    )  # fmt: skip
