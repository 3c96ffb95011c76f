"""The command line: every verb of the project, each a thin layer over a library function.

Imports happen inside `main`, so that Ctrl-C during them is answered in a line; heavy ones (torch, transformer_lens:
seconds) inside the verbs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from interp.reading import RunError

if TYPE_CHECKING:
    from interp.cli.verbs import COMMANDS

CLOSED_PIPE = 141  # 128 + SIGPIPE, what a shell reports of a command whose reader has gone
INTERRUPTED = 130  # 128 + SIGINT

__all__ = ["COMMANDS", "UsageError", "main"]


class UsageError(Exception):
    """The arguments are not those of a verb."""


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; every mistake ends in one sentence on standard error and a non-zero exit."""
    imported, given = False, sys.argv[1:] if arguments is None else arguments
    try:
        from interp.cli.verbs import run_verb

        imported = True
        try:
            run_verb(given)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone can still be told from a mistake
    except KeyboardInterrupt:
        _fail("interrupted" + "; the same command continues from the last checkpoint" * imported, code=INTERRUPTED)
    except BrokenPipeError:
        _end_quietly()
    except UsageError as error:
        _fail(str(error), code=2)
    except (RunError, ValueError) as error:
        _fail(_as_given(str(error), given), code=1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), code=1)


def __getattr__(name: str) -> Any:
    if name == "COMMANDS":
        from interp.cli import verbs

        return verbs.COMMANDS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _as_given(message: str, arguments: list[str]) -> str:
    """A sentence that begins with the name of a parameter begins with the option, where that was given."""
    name, _, rest = message.partition(" ")
    option = "--" + name.replace("_", "-")
    return f"{option} {rest}" if option in {each.partition("=")[0] for each in arguments} else message


def _end_quietly() -> NoReturn:
    """`tapelens … | head -1`: nobody reads on, so nothing is said, not even by Python as it closes standard output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    sys.exit(CLOSED_PIPE)


def _fail(message: str, *, code: int) -> NoReturn:
    print(f"tapelens: {message}", file=sys.stderr)
    sys.exit(code)
