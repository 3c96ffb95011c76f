"""What is chosen about a task besides its world; every task names the class that it takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from interp.configuration import later


@dataclass(frozen=True)
class NoOptions:
    """Nothing is to be chosen."""


@dataclass(frozen=True)
class StreamOptions:
    """Of tasks whose examples are runs. None means the task's own default.

    Raises:
        ValueError: a value is out of range.
    """

    n_steps: int | None = later(None)
    """How many executed instructions an example of `trace`, `chain`, `output` or `scratchpad` spans."""
    units: Literal["program", "shown"] = later("program")
    """What is held out whole: programs, or what a model is shown of them (the executed stream, the reachable part)."""

    def __post_init__(self) -> None:
        if self.n_steps is not None and (type(self.n_steps) is not int or not 1 <= self.n_steps <= 4096):
            raise ValueError(f"n_steps must be an integer from 1 to 4096, got {self.n_steps!r}")
        if self.units not in ("program", "shown"):
            raise ValueError(f"units must be 'program' or 'shown', got {self.units!r}")


@dataclass(frozen=True)
class ChainOptions(StreamOptions):
    """Of `chain`."""

    direct: bool = later(False)
    """For `chain`: predict S_{t+n} from S_t at once, without the states between."""


@dataclass(frozen=True)
class AdditionOptions:
    """Of `addition`.

    Raises:
        ValueError: a value is out of range.
    """

    reverse: bool = later(True)
    """For `addition`: write every number least significant digit first."""
    leading_zeros: bool = later(True)
    """For `addition`: fill every number with zeros to the same length."""
    at_once: int = later(1)
    """For `addition`: how many tokens of the answer are said in one pass, none of them knowing the others; 0: all."""
    spare: bool = later(False)
    """For `addition`: two more slots a summand, so that blanks stand behind the longest number too."""

    def __post_init__(self) -> None:
        if type(self.at_once) is not int or not 0 <= self.at_once <= 4096:
            raise ValueError(f"at_once must be an integer from 0 to 4096, got {self.at_once!r}")


@dataclass(frozen=True)
class OutputOptions(StreamOptions):
    """Of `output`.

    Raises:
        ValueError: a value is out of range, or scratch slots where no answer stands behind the prompt.
    """

    even: bool = later(False)
    """For `output`, `scratchpad`: every number of steps from 1 to n_steps equally often, and no run that is cut off."""
    behind: bool = later(False)
    """For `output`: the answer stands behind the prompt, to be written or filled in, not in its place."""
    scratch: int = later(0)
    """For `output` with `behind`: before the answer, where the run is after so many evenly spaced steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.scratch) is not int or not 0 <= self.scratch <= 255:
            raise ValueError(f"scratch must be an integer from 0 to 255, got {self.scratch!r}")
        if self.scratch and not self.behind:
            raise ValueError("scratch slots stand before an answer behind the prompt: set behind with scratch")


@dataclass(frozen=True)
class ScratchpadOptions(OutputOptions):
    """Of `scratchpad`.

    Raises:
        ValueError: a value is out of range.
    """

    optional: bool = later(False)
    """For `scratchpad`: the chain may end at any entry; the model decides how much it writes before it answers."""
    shortest: int = later(1)
    """For `scratchpad`: runs of fewer steps are not drawn."""
    longest: int = later(0)
    """For `scratchpad`: runs of more steps are not drawn; 0: as many as n_steps leaves room for."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("shortest", 1), ("longest", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= 4096:
                raise ValueError(f"{name} must be an integer from {least} to 4096, got {value!r}")


@dataclass(frozen=True)
class TextOptions:
    """Of `text`.

    Raises:
        ValueError: a value is out of range.
    """

    given: int = later(1)
    """For `text`: how many tokens are given before the first is asked for."""

    def __post_init__(self) -> None:
        if type(self.given) is not int or self.given < 1:
            raise ValueError(f"given must be an integer of at least 1, got {self.given!r}")


@dataclass(frozen=True)
class TaskOptions(ChainOptions, ScratchpadOptions, AdditionOptions, TextOptions):
    """The options of every task, as the command line takes them; a task refuses those that are not its own."""

    def __post_init__(self) -> None:
        for each in (ScratchpadOptions, AdditionOptions, TextOptions):
            each.__post_init__(self)


OPTIONS: dict[str, type] = {
    "trace": StreamOptions,
    "output": OutputOptions,
    "chain": ChainOptions,
    "scratchpad": ScratchpadOptions,
    "addition": AdditionOptions,
    "text": TextOptions,
}
"""What the tasks of this package take beyond `NoOptions`, for whoever must not import them: they bring torch."""


def options_of(task: str, kind: type, given: Any = None) -> Any:
    """`given` as an instance of `kind`, the options class of a task; its defaults where nothing is given.

    Raises:
        ValueError: `given` is of another class and sets what `kind` has not.
    """
    if given is None or type(given) is kind:
        return kind() if given is None else given
    allowed = {each.name for each in fields(kind)}
    chosen = [each for each in fields(given) if getattr(given, each.name) != each.default]
    if surplus := [each.name for each in chosen if each.name not in allowed]:
        raise ValueError(f"the task {task} takes no option {surplus[0]}")
    return kind(**{each.name: getattr(given, each.name) for each in chosen})
