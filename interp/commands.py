"""Commands as messages show them and as runs record them: each can be pasted into a shell, whatever its paths hold."""

from __future__ import annotations

import re
import shlex
import sys
from contextvars import ContextVar
from pathlib import Path

_arguments: ContextVar[tuple[str, ...] | None] = ContextVar("arguments", default=None)

# One word of a line that `shlex.join` wrote: what needs no quotes, and quoted parts
_WORD = r"""(?:[A-Za-z0-9_@%+=:,./-]|'[^']*'|"[^"]*")+"""
_COMMAND = re.compile(rf"tapelens(?: {_WORD})+")


def command(*words: str | Path) -> str:
    """A command line of the project: `command("probe", "my runs/x")` is "tapelens probe 'my runs/x'"."""
    return shlex.join(["tapelens", *map(str, words)])


def called_with(arguments: list[str]) -> None:
    """Remember the arguments that the command line was called with."""
    _arguments.set(tuple(arguments))


def this_command() -> str:
    """The command line that is running, for the run that it makes to record."""
    arguments = _arguments.get()
    return command(*(sys.argv[1:] if arguments is None else arguments))


def find_command(message: str) -> tuple[str, str]:
    """A message up to the command that mends what it is about, and that command; "" where it names none.

    A command is told from prose by the colon or semicolon before it; where paths look like commands, the last counts.
    """
    named = [found for found in _COMMAND.finditer(message) if message[: found.start()].endswith((": ", "; "))]
    return (message[: named[-1].start()], named[-1][0]) if named else (message, "")
