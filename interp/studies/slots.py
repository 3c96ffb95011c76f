"""Slot machines: what is planned, what is executed, and what happens when the machine's own state is exchanged.

1. Plan exact: every field of every slot, and where the free list begins, is the likeliest. Execution given the true
   plan: the memory after every step is the symbolic machine's, and the answer is right. Both: the answer is right from
   the controller's own plan.
2. How sharp: the least probability that a plan gives to the true entry of a field.
3. A learned ALU: of the entries of the operators' tables that runs on inputs of the trained size visit, the share that
   it has right, result and carry, under the renaming of the carry's two symbols that suits it best.
4. Interchange: at an executed step of base, the carry, a content, a pointer or the counter takes the value that it has
   seven steps later in source; the rest of the run is judged by the world's `do` there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from interp.ranges import require_count
from interp.results import Aggregation, Method, Metric, rows_frame
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.studies.slot_runs import SEED, hardened, require_slots, share
from interp.studies.slot_swaps import interchange_rows
from interp.tasks import TASKS
from interp.training.slot_presets import resized_for
from interp.worlds import Split
from interp.worlds.slots_tables import ARITHMETIC, CARRYING, KINDS, arithmetic_tables

PLANNED, EXECUTED, BOTH, ENTRIES = "plan", "execution of the true plan", "plan and execution", "entries of the ALU"
SIZES = (5, 10, 20, 22)
_AT_ONCE = 50  # examples in memory together


def measure_slots(
    run: Run, *, n: int = 1000, n_pairs: int = 200, sizes: tuple[int, ...] = SIZES, progress: Progress = quiet
) -> pd.DataFrame:
    """Every row of this module's docstring that the run can give.

    Args:
        run: of a slot machine.
        n: held-out inputs of each size.
        n_pairs: of the interchange.
        sizes: digits, or values.
        progress: told how far it is.

    Raises:
        ValueError: a run of another architecture, or a count below 1.
    """
    require_count("n", n)
    require_count("n_pairs", n_pairs)
    require_slots(run)
    rows = [row for size in sizes for row in size_rows(run, size, n=n)]
    progress(1, 3, "sizes")
    if run.config.model.alu == "learned":  # type: ignore[attr-defined]
        rows.append(alu_row(run))
    progress(2, 3, "ALU")
    if run.config.world.task.program == "add" and run.config.world.task.form == "looped":  # type: ignore[attr-defined]
        rows += interchange_rows(run, n_pairs=n_pairs)
    progress(3, 3, "interchange")
    return run.identified(rows_frame(rows))


def size_rows(run: Run, size: int, *, n: int, split: Split = "evaluation") -> list[dict[str, Any]]:
    """Plan exact, execution given the true plan, and both, on `n` inputs of a split of exactly a size, run hard.

    A run that is given its plan has the execution alone.
    """
    larger: Any = run.config.world.changed(size=size, least=size)
    task = TASKS[run.config.task](larger)
    model = hardened(run, resized_for(run.config.model, larger))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (PLANNED, EXECUTED, BOTH)}
    sharpness = []
    for start in range(0, n, _AT_ONCE):
        batch = task.sample(min(_AT_ONCE, n - start), seed=SEED, start=start, split=split)
        parts[EXECUTED].append(executed_exact(model, task, batch))
        if model.cfg.plan_given:
            continue
        exact, least = plan_exact(model, task, batch)
        parts[PLANNED].append(exact)
        sharpness.append(least)
        with torch.no_grad():
            parts[BOTH].append(task.right(model.answer(task, batch), batch))
    columns = {"method": Method.GREEDY, "stratum": f"size {size}", "time": size, "n": n}
    rows = [
        {**columns, "part": name, "metric": Metric.EXACT_MATCH, **share(np.concatenate(found))}
        for name, found in parts.items()
        if found
    ]
    if sharpness:
        least = {"estimate": float(np.concatenate(sharpness).min()), "aggregation": Aggregation.MINIMUM}
        rows.append({**columns, "part": PLANNED, "metric": Metric.CONFIDENCE, **least})
    return rows


def visited_entries(world: Any, n: int = 2000) -> np.ndarray:
    """The distinct (operator in ARITHMETIC, x, y, carry) that runs on drawn inputs compute, int64 [entries, 4]."""
    examples, found = world.draw(n, seed=SEED, split="all"), []
    numbers = np.array([KINDS[name] for name in ARITHMETIC])
    for at in range(int(world.n_steps(examples).max())):
        op, x, y, carry = (world.read(examples, name, at) for name in ("op", "x", "y", "carry"))
        here = (op[:, None] == numbers).any(axis=1)
        entries = np.stack([(op[:, None] == numbers).argmax(axis=1), x, y, carry], axis=1)
        found.append(np.unique(entries[here], axis=0))
    return np.unique(np.concatenate(found), axis=0)


@torch.no_grad()
def alu_row(run: Run) -> dict[str, Any]:
    """The share of the visited entries that a learned ALU has right: what is written, and what is carried."""
    model, world = run.model, run.config.world
    entries = torch.from_numpy(visited_entries(world))
    operator, x, y, carry = entries.unbind(1)
    written, carried = arithmetic_tables(model.cfg.base, model.cfg.n_values)
    at = tuple(entries.numpy().T)
    sets = torch.tensor([name in CARRYING for name in ARITHMETIC])[operator]
    best = np.zeros(0, dtype=bool)
    for names in ((0, 1), (1, 0)):  # what the two symbols of the carry are called inside
        renamed = torch.tensor(names)
        onehots = [F.one_hot(each, size).to(model.dtype) for each, size in
                   ((x, model.cfg.n_values), (y, model.cfg.n_values), (renamed[carry], 2))]  # fmt: skip
        results, carries = model.alu(*onehots)
        rows = torch.arange(len(entries))
        right = results[rows, operator].argmax(-1) == torch.from_numpy(written[at])
        says = renamed[carries[rows, operator].argmax(-1)] == torch.from_numpy(carried[at])
        found = (right & (says | ~sets)).numpy()
        best = found if found.sum() >= best.sum() else best
    return {"method": Method.GREEDY, "metric": Metric.EXACT_MATCH, "part": ENTRIES, **share(best)}


@torch.no_grad()
def plan_exact(model: Any, task: Any, batch: Any) -> tuple[np.ndarray, np.ndarray]:
    """Whether each plan's likeliest fields are the true ones, bool [n], and the least probability of a true field."""
    plan, memory = model(batch.tokens, returned="plan"), task.memories(batch)
    s = model.cfg.n_slots
    true = memory.split([s, s, s, s, s, 1, 1, 1], dim=1)
    logits = (plan.kinds, *plan.pointers.unbind(1), plan.contents, plan.free[:, None])
    exact, least = torch.ones(len(memory), dtype=torch.bool), torch.ones(len(memory))
    for each, target in zip(logits, (*true[:5], true[7]), strict=True):
        exact &= (each.argmax(-1) == target).all(1)
        least = torch.minimum(least, F.softmax(each, -1).gather(-1, target[..., None])[..., 0].amin(1).float())
    return exact.numpy(), least.numpy()


def executed_exact(model: Any, task: Any, batch: Any) -> np.ndarray:
    """Whether the machine, given the true memory, holds the symbolic contents, pointers, kinds and counter in the end,
    and answers right, bool [n]. `tests/models/test_slot_machine.py` holds it after every step."""
    memory, n_steps = task.memories(batch), int(task.n_steps(batch).max())
    with torch.no_grad():
        final = model(batch.tokens, memory=memory, returned="run", n_steps=n_steps).final
    s = model.cfg.n_slots
    kinds, following, left, right, contents, registers = task.trace(batch, n_steps)[:, -1].split([s] * 5 + [3], dim=1)
    pairs = [(final.kinds, kinds), (final.contents, contents), (final.pc, registers[:, 0])]
    pairs += list(zip(final.pointers.unbind(1), (following, left, right), strict=True))
    right = [(found.argmax(-1) == true).reshape(len(memory), -1).all(1) for found, true in pairs]
    return torch.stack(right).all(0).numpy()
