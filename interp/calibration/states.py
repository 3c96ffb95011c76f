"""State interchange: does each method tell a tape kept at absolute places from one that shifts with the pointer?

On each of the two hand-set recurrent interpreters (`interp.compiled.held_tape`) two variables are asked for, one cell
by its place and one by its offset from the pointer. One is the interpreter's own, which a part of its state holds; the
other is its rival. Rows give, by method, IIA where the pointers of base and source differ, and side_accuracy: a part
that takes everything along is right about the rival too, but not about what must stay. Stratum "own" or "rival".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from interp.calibration.settings import CalibrationSettings
from interp.compiled.held_tape import HeldTape
from interp.interventions import FITTED, Carrier, Part, SubspaceFit, fit_subspace
from interp.results import Aggregation, Method, Metric, wilson_interval
from interp.tasks.state_pairs import StatePairs
from interp.worlds.machine.relative import offset_of

Rows = list[dict[str, Any]]
VARIABLES = ("cell[1]", "cell[@array_ptr-1]")  # one an addressing
_METHODS = (Method.TRUE_SUBSPACE, *FITTED)


def state_calibration(
    model: Any, key: HeldTape, task: Any, settings: CalibrationSettings, report: Callable[[float], None]
) -> Rows:
    """Every method on both variables of one interpreter."""
    rows: Rows = []
    carrier = Carrier.of(model)
    fit = SubspaceFit(n_pairs=4 * settings.n_swaps, rank=4, steps=settings.das_steps)
    for place, name in enumerate(VARIABLES):
        drawn = {
            split: [
                task.state_pairs(n, name, seed=settings.seed, split=split, kind=kind)
                for n, kind in ((count, "stored"), (count // 2, "bystander"))
            ]
            for split, count in (("fit", fit.n_pairs), ("evaluation", 2 * settings.n_swaps))
        }
        train, beside = drawn["fit"][0].rows(drawn["fit"][0].changes), drawn["fit"][1]
        pairs, bystanders = drawn["evaluation"]
        pairs = pairs.rows(pairs.changes & pairs.apart)
        own = (offset_of(name) is None) == (key.addressing == "absolute")
        for done, method in enumerate(_METHODS):
            if method == Method.TRUE_SUBSPACE:
                # of the rival no part is known: the one whose own variable is the same cell where the pointers agree
                part = Part(str(method), mask=key.held[name if own else _counterpart(key, name)], method=method)
            else:
                part = fit_subspace(method, model, carrier, train, bystanders=beside, fit=fit, seed=settings.seed)
            for metric, judged in ((Metric.IIA, pairs), (Metric.SIDE_ACCURACY, bystanders)):
                right = exchanged_right(model, carrier, part, judged)
                n, share = len(right), float(right.float().mean())
                low, high = wilson_interval(share * n, n)
                rows.append(
                    {
                        "method": method,
                        "variable": name,
                        "part": part.name,
                        "part_size": part.size,
                        "carrier_size": carrier.size,
                        "granularity": "state",
                        "stratum": "own" if own else "rival",
                        "metric": metric,
                        "aggregation": Aggregation.MEAN,
                        "estimate": share,
                        "ci_low": low,
                        "ci_high": high,
                        "interval_kind": "wilson",
                        "n": n,
                    }
                )
            report((place + (done + 1) / len(_METHODS)) / len(VARIABLES))
    return rows


def _counterpart(key: HeldTape, name: str) -> str:
    """A part of the other addressing: the cell of the same number, or the offset of the same number."""
    offset = offset_of(name)
    return f"cell[{abs(offset)}]" if offset is not None else f"cell[@array_ptr+{int(name[5:-1])}]"


def exchanged_right(model: Any, carrier: Carrier, part: Part, pairs: StatePairs) -> Tensor:
    """Whether the answer is the expected one with the part exchanged, bool [n]."""
    base, source = (carrier.read(model, tokens, pairs.at) for tokens in (pairs.base, pairs.source))
    said = carrier.answers(model, pairs.base, pairs.at, part.exchanged(base, source), pairs.positions)
    return said.gather(1, pairs.positions[:, None])[:, 0] == pairs.expected
