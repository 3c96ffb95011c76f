"""Pairs for state interchange: what base and source are shown, where the carrier is exchanged, and what is right then.

A model that has read base up to the token before an executed instruction carries the state in which that instruction is
taken; what it carries there is exchanged for what it carries at the same token position of source. A task draws them
(`Task.state_pairs`); the same pairs serve every architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from torch import Tensor

Kind = Literal["stored", "retrieved", "bystander"]
RETRIEVED = "operand"  # read at the asking position: the variable of retrieval


@dataclass(frozen=True, eq=False)
class StatePairs:
    """n pairs of streams of one variable, aligned by token position."""

    variable: str
    base: Tensor  # long [n, pos]: tokens
    source: Tensor  # long [n, pos]
    same: Tensor  # long [n, pos]: another source, in which the variable has base's own value; -1: there was none
    at: Tensor  # long [n]: the position whose carrier is exchanged, in base and source alike
    other_at: Tensor  # long [n]: another one of source, where the variable differs from `values` if it ever does
    positions: Tensor  # long [n]: the position whose logits are judged
    expected: Tensor  # long [n]: the token that is right there with the edit
    unedited: Tensor  # long [n]: and without it
    values: Tensor  # long [n]: what the variable is set to
    own: Tensor  # long [n]: its value in base; -1: a cell that was not visited yet
    lag: Tensor  # long [n]: executed steps from the edit to the judged answer
    op: Tensor  # long [n]: the instruction that is judged
    apart: Tensor  # bool [n]: the pointers of base and source differ: rival addressings disagree
    groups: Tensor  # long [n]: the unit of base
    redraw_rate: float  # share of drawn bases without a pair

    def __len__(self) -> int:
        return len(self.base)

    @property
    def changes(self) -> Tensor:
        """bool [n]: the edit changes the answer."""
        return self.expected != self.unedited

    def rows(self, chosen: Tensor) -> StatePairs:
        """Some of the pairs, by a mask or numbers."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        taken: dict[str, Any] = {name: value[chosen] for name, value in values.items() if isinstance(value, Tensor)}
        return StatePairs(**(values | taken))
