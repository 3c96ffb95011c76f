"""What is chosen about a task besides the machine."""

from __future__ import annotations

from dataclasses import dataclass

from interp.configuration import later


@dataclass(frozen=True)
class TaskOptions:
    """Settings of a task. None means the task's own default.

    Raises:
        ValueError: a value is out of range.
    """

    n_steps: int | None = later(None)
    """How many executed instructions an example spans, for `trace`, `chain` and `output`."""
    direct: bool = later(False)
    """For `chain`: predict S_{t+n} from S_t at once, without the states between."""

    def __post_init__(self) -> None:
        if self.n_steps is not None and (not isinstance(self.n_steps, int) or not 1 <= self.n_steps <= 4096):
            raise ValueError(f"n_steps must be an integer from 1 to 4096, got {self.n_steps!r}")
