"""Pairs of a base and a source that several variables are judged on, with what should come out for each.

What a pair shares between variables is the two runs and where they are looked at: tokens of base and source, the
positions of the answer, and the executed steps at which base is edited and source is read. Pairs that agree in all of
these are kept once, so that one patched sweep serves all variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.tasks import Batch, Task
from interp.tasks.counterfactual import Counterfactual, PairDesign
from interp.worlds.base import Split

WIDER = 8  # how much larger the second draw for rare changes is


@dataclass(frozen=True)
class SharedPairs:
    """Pairs that several variables are judged on; each variable uses some of them, with an answer of its own.

    Of the n distinct pairs, and k places that an answer has; a variable has m of the pairs.
    """

    base: Batch
    source: Batch
    positions: Tensor  # long [n, k]: the token positions whose logits are judged
    edit_time: np.ndarray  # int64 [n]: the executed step of base at which variables are set
    source_time: np.ndarray  # int64 [n]: the executed step of source that values are taken from
    members: dict[str, np.ndarray]  # variable -> rows of base and source, int64 [m]
    values: dict[str, np.ndarray]  # variable -> what it is set to, int64 [m]
    targets: dict[str, Tensor]  # variable -> the world's counterfactual answer, long [m, k]; -1 where not valid
    unedited: dict[str, Tensor]  # variable -> the world's answer on base, long [m, k]
    valid: dict[str, Tensor]  # variable -> whether a place is judged, bool [m, k]
    content: dict[str, Tensor]  # variable -> whether a place is no punctuation, bool [m, k]
    changes: dict[str, np.ndarray]  # variable -> whether the answers differ, bool [m]
    n_plain: int  # the first so many pairs of a variable are as drawn; later ones were added because they change
    redraw_rate: dict[str, float]  # variable -> share of drawn pairs without a counterfactual value

    @classmethod
    def draw(
        cls,
        task: Task,
        variables: Sequence[str],
        *,
        n_pairs: int,
        n_changing: int = 0,
        seed: int,
        design: PairDesign = "independent",
        split: Split = "evaluation",
    ) -> SharedPairs:
        """Draw `n_pairs` a variable from held-out units; equal pairs of different variables are kept once.

        Where fewer than `n_changing` of them change the answer, pairs that do are added from a draw eight times as
        large: they count in the stratum "changes" alone. Fits draw theirs with `split` "train".

        A task that shows the answer (`step`) is given the counterfactual one, in base and source alike: that the
        whole of it is predicted token by token is then the same as that greedy decoding finds it.
        """
        drawn: dict[str, tuple[Counterfactual, np.ndarray]] = {}
        for name in variables:
            pairs = task.counterfactual(n_pairs, name, seed=seed, design=design, split=split)
            rows = np.arange(n_pairs)
            if (few := int(pairs.changes.sum())) < n_changing:
                pairs = task.counterfactual(WIDER * n_pairs, name, seed=seed, design=design, split=split)
                more = n_pairs + np.flatnonzero(pairs.changes[n_pairs:])
                rows = np.concatenate([rows, more[: n_changing - few]])
            drawn[name] = pairs, rows
        return cls.of(task, drawn, n_plain=n_pairs)

    @classmethod
    def of(cls, task: Task, drawn: dict[str, tuple[Counterfactual, np.ndarray]], *, n_plain: int) -> SharedPairs:
        """Some rows of each variable's counterfactual pairs, equal ones kept once."""
        own: list[dict[str, Any]] = []
        for pairs, rows in drawn.values():
            expected = pairs.expected[rows].numpy()
            base, source = (task.render(batch.examples[rows], expected) for batch in (pairs.base, pairs.source))
            own.append(
                {
                    "base": base.examples,
                    "source": source.examples,
                    "expected": expected,
                    "positions": pairs.positions[rows].numpy(),
                    "edit_time": pairs.edit_time[rows],
                    "source_time": pairs.source_time[rows],
                    "tokens": torch.cat([base.tokens, source.tokens], dim=1).numpy(),
                }
            )
        parts = {key: [each[key] for each in own] for key in own[0]}
        arrays = {key: np.concatenate(parts[key]) for key in parts if key not in ("base", "source")}
        # Tokens come first, so that pairs of one-step tasks, all else being equal there, are ordered by tokens.
        times = np.stack([arrays["edit_time"], arrays["source_time"]], axis=1)
        key = np.concatenate([arrays["tokens"], arrays["positions"], times], axis=1)
        _, first, member = np.unique(key, axis=0, return_index=True, return_inverse=True)
        base, source = (type(parts[side][0]).concatenate(parts[side])[first] for side in ("base", "source"))
        ends = np.cumsum([len(rows) for _, rows in drawn.values()])[:-1]
        return cls(
            base=task.render(base, arrays["expected"][first]),
            source=task.render(source, arrays["expected"][first]),
            positions=torch.from_numpy(arrays["positions"][first]),
            edit_time=arrays["edit_time"][first],
            source_time=arrays["source_time"][first],
            members=dict(zip(drawn, np.split(member.ravel(), ends), strict=True)),
            values={name: pairs.values[rows] for name, (pairs, rows) in drawn.items()},
            targets={name: pairs.expected[rows] for name, (pairs, rows) in drawn.items()},
            unedited={name: pairs.unedited[rows] for name, (pairs, rows) in drawn.items()},
            valid={name: pairs.valid[rows] for name, (pairs, rows) in drawn.items()},
            content={name: pairs.content[rows] for name, (pairs, rows) in drawn.items()},
            changes={name: pairs.changes[rows] for name, (pairs, rows) in drawn.items()},
            n_plain=n_plain,
            redraw_rate={name: pairs.redraw_rate for name, (pairs, _) in drawn.items()},
        )

    def __len__(self) -> int:
        return len(self.base)

    def right(self, name: str, answers: Tensor) -> Tensor:
        """Whether whole answers [..., m, k] to the variable's pairs are the counterfactual ones, bool [..., m]."""
        return ((answers == self.targets[name]) | ~self.valid[name]).all(-1)
