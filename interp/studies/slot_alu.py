"""A learned ALU entry by entry: is its addition a table, or does it go through the sum?

1. Entries. An entry of "add with carry" is two digits and a carry; some are visited by runs of the trained size, the
   others are not. Of each group, by what is carried out: the share that is right, result and carry, and the least
   margin, the logarithm of the right answer's probability over the likeliest wrong one's (below 0 where it is wrong).
2. Filled in. The same network is shown most entries of the table directly and asked for the rest, which a table could
   not say: the result, and the carry. Three draws of what is left out.
3. Through the sum. Of the variance, over entries, of what goes into the hidden layer (which adds a vector for each
   digit and for the carry), the share that the sum x + y + carry explains; beside it the same of the untrained network.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.slot_memory import LearnedALU
from interp.results import Aggregation, Control, Method, Metric
from interp.runs import Run
from interp.studies.slot_runs import share
from interp.worlds.slots_tables import ARITHMETIC, arithmetic_tables

VISITED, UNVISITED, FILLED, THROUGH_SUM = "visited", "not visited", "left out of the table", "through the sum"
SEEDS = (0, 1, 2)
LEFT_OUT = 40  # entries
_ADDS = ARITHMETIC.index("ADC")
_STEPS, _RATE = 500, 3e-3
_LEAST = 1e-30


def table_of_sums(base: int) -> Tensor:
    """Every entry of addition with a carry, (x, y, carry), long [2 * base * base, 3]."""
    return torch.tensor(list(product(range(base), range(base), range(2))))


def says(alu: Any, entries: Tensor, *, renamed: Tensor, n_values: int) -> tuple[Tensor, Tensor]:
    """What a learned ALU writes and carries at entries [n, 3], as probabilities [n, value] and [n, 2].

    Args:
        alu: as `LearnedALU`.
        entries: x, y, carry.
        renamed: what its carries 0 and 1 are called inside, long [2].
        n_values: of a content.
    """
    x, y, carry = entries.unbind(1)
    dtype = next(alu.parameters()).dtype
    given = (F.one_hot(x, n_values), F.one_hot(y, n_values), F.one_hot(renamed[carry], 2))
    results, carries = alu(*(each.to(dtype) for each in given))
    return results[:, _ADDS], carries[:, _ADDS][:, renamed]


@torch.no_grad()
def entry_rows(run: Run, visited: np.ndarray) -> Iterator[dict[str, Any]]:
    """The share right and the least margin of the entries that runs visit and of those that they do not, by what is
    carried out.

    Args:
        run: with a learned ALU.
        visited: (operator, x, y, carry), as `slots.visited_entries` finds them.
    """
    cfg: Any = run.config.model
    entries = table_of_sums(cfg.base)
    written, carried = (torch.from_numpy(each[_ADDS]) for each in arithmetic_tables(cfg.base, cfg.n_values))
    result, carry = (each[tuple(entries.unbind(1))] for each in (written, carried))
    seen = {tuple(row[1:]) for row in visited.tolist() if row[0] == _ADDS}
    known = np.array([tuple(row) in seen for row in entries.tolist()])
    best: Tensor | None = None
    for names in ((0, 1), (1, 0)):  # what the two symbols of the carry are called inside
        wrote, carries = says(run.model.alu, entries, renamed=torch.tensor(names), n_values=cfg.n_values)
        found = torch.minimum(margins(wrote, result), margins(carries, carry))
        best = found if best is None or int((found > 0).sum()) > int((best > 0).sum()) else best
    assert best is not None
    for part, members in ((VISITED, known), (UNVISITED, ~known)):
        for out in (0, 1):
            here = members & (carry.numpy() == out)
            if not here.any():
                continue
            key = {"method": Method.GREEDY, "part": part, "variable": "carry", "stratum": f"carries {out}"}
            own = best.numpy()[here]
            yield {**key, "metric": Metric.EXACT_MATCH, **share(own > 0)}
            least = {"estimate": float(own.min()), "aggregation": Aggregation.MINIMUM, "n": len(own)}
            yield {**key, "metric": Metric.LOGIT_DIFFERENCE, **least}


def margins(probabilities: Tensor, true: Tensor) -> Tensor:
    """The logarithm of the true entry's probability over the likeliest other's, [n]."""
    logs = probabilities.clamp(min=_LEAST).log()
    right = logs.gather(1, true[:, None])[:, 0]
    return right - logs.scatter(1, true[:, None], -torch.inf).amax(1)


def filled_in(cfg: Any, seed: int, *, left_out: int = LEFT_OUT, n_steps: int = _STEPS) -> np.ndarray:
    """Whether result and carry of the entries that a network of the same shape was not shown are right, bool
    [2, left_out], after training on the others.

    Args:
        cfg: of a slot machine.
        seed: of what is left out, and of the weights.
        left_out: entries.
        n_steps: of AdamW on all shown entries at once.
    """
    entries = table_of_sums(cfg.base)
    written, carried = (torch.from_numpy(each[_ADDS]) for each in arithmetic_tables(cfg.base, cfg.n_values))
    result, carry = (each[tuple(entries.unbind(1))] for each in (written, carried))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(entries), generator=generator)
    hidden, shown = order[:left_out], order[left_out:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        alu = LearnedALU(cfg.n_values, cfg.d_alu)
    optimizer = torch.optim.AdamW(alu.parameters(), lr=_RATE, weight_decay=0.0)
    same = torch.tensor([0, 1])
    for _ in range(n_steps):
        wrote, carries = says(alu, entries[shown], renamed=same, n_values=cfg.n_values)
        loss = F.nll_loss(wrote.clamp(min=_LEAST).log(), result[shown])
        loss = loss + F.nll_loss(carries.clamp(min=_LEAST).log(), carry[shown])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        wrote, carries = says(alu, entries[hidden], renamed=same, n_values=cfg.n_values)
    return torch.stack([wrote.argmax(-1) == result[hidden], carries.argmax(-1) == carry[hidden]]).numpy()


@torch.no_grad()
def through_sum(alu: Any, base: int, n_values: int) -> float:
    """The share of the variance of what goes into the hidden layer, over all entries, that x + y + carry explains."""
    entries = table_of_sums(base)
    x, y, carry = entries.unbind(1)
    start = len(ARITHMETIC)
    weight = alu.fc_in.weight.T  # [given, hidden]
    hidden = weight[start + x] + weight[start + n_values + y] + weight[start + 2 * n_values + carry]
    hidden = hidden - hidden.mean(0)
    sums = x + y + carry
    between = torch.stack([hidden[sums == each].mean(0) for each in sums])
    return float(between.square().sum() / hidden.square().sum())


def alu_rows(run: Run, visited: np.ndarray) -> Iterator[dict[str, Any]]:
    """Every row of this module's docstring."""
    cfg: Any = run.config.model
    yield from entry_rows(run, visited)
    for seed in SEEDS:
        key = {"method": Method.GREEDY, "metric": Metric.EXACT_MATCH, "part": FILLED, "stratum": f"draw {seed}"}
        for variable, right in zip(("result", "carry"), filled_in(cfg, seed), strict=True):
            yield {**key, "variable": variable, **share(right)}
    for control, model in ((None, run.model), (Control.UNTRAINED_MODEL, run.untrained_model())):
        explained = through_sum(model.alu, cfg.base, cfg.n_values)
        key = {"metric": Metric.EXPLAINED, "part": THROUGH_SUM, "site": "alu.fc_in", "control": control}
        yield {**key, "method": Method.GREEDY, "estimate": explained, "aggregation": Aggregation.MEAN}
