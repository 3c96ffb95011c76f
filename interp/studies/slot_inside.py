"""What is asked of a slot machine's inside, all of it that a run can give: see slot_swaps, slot_controller,
slot_sharpness and slot_alu."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

from interp.ranges import require_count
from interp.results import rows_frame
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.studies.slot_alu import alu_rows
from interp.studies.slot_controller import controller_probes, controller_swaps
from interp.studies.slot_runs import require_slots
from interp.studies.slot_sharpness import gradient_rows, sharpness_rows
from interp.studies.slot_swaps import interchange_rows
from interp.studies.slots import visited_entries

SIZES = (5, 10, 20)  # of the inputs on the curve of sharpness
_N_GRADIENTS = 20  # inputs whose gradients are averaged
_N_VISITS = 20_000  # inputs whose runs say which entries of the ALU are visited


def measure_inside(
    run: Run, *, n: int = 100, n_pairs: int = 200, n_probed: int = 1000, progress: Progress = quiet
) -> pd.DataFrame:
    """Every row that the run can give; what is exchanged while it runs is named after the looped plan of addition.

    Args:
        run: of a slot machine.
        n: inputs of each size on the curve of sharpness.
        n_pairs: of each interchange.
        n_probed: inputs of the probes, half to fit and half to score.
        progress: told how far it is.

    Raises:
        ValueError: a run of another architecture, or a count below 1.
    """
    for name, count in (("n", n), ("n_pairs", n_pairs), ("n_probed", n_probed)):
        require_count(name, count)
    require_slots(run)
    cfg: Any = run.config.model
    task: Any = run.config.world.task  # type: ignore[attr-defined]
    loops = task.program == "add" and task.form == "looped"
    asked: list[tuple[bool, str, Callable[[], Iterable[dict[str, Any]]]]] = [
        (loops, "interchange while it runs", lambda: interchange_rows(run, n_pairs=n_pairs, execution="soft")),
        (loops, "sharpness", lambda: [row for size in SIZES for row in sharpness_rows(run, size, n=n)]),
        (not cfg.plan_given, "probes of the controller", lambda: controller_probes(run, n=n_probed)),
        (not cfg.plan_given, "interchange in the controller", lambda: controller_swaps(run, n_pairs=n_pairs)),
        (True, "gradients", lambda: gradient_rows(run, n=min(n, _N_GRADIENTS))),
        (cfg.alu == "learned", "the ALU", lambda: alu_rows(run, visited_entries(run.config.world, n=_N_VISITS))),
    ]
    asked = [each for each in asked if each[0]]
    rows = []
    for number, (_, at, measured) in enumerate(asked):
        progress(number, len(asked), at)
        rows += list(measured())
    progress(len(asked), len(asked), "")
    return run.identified(rows_frame(rows))
