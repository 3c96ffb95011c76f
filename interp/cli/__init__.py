"""The command line: every verb of the project, each a thin layer over a library function.

Heavy imports (torch, transformer_lens: seconds) happen inside the verbs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import tyro

from interp.cli.bench import bench
from interp.cli.browsing import app, demo, report
from interp.cli.causal import circuit, circuit_page, patch
from interp.cli.compiled import calibrate, compile_interpreter
from interp.cli.evaluation import card, curves, evaluate, lengths, model_page
from interp.cli.machine import evolve, sample
from interp.cli.probing import probe, probing_page
from interp.cli.training import train
from interp.runs import RunError

COMMANDS = {
    "demo": demo,
    "sample": sample,
    "evolve": evolve,
    "train": train,
    "eval": evaluate,
    "card": card,
    "model-page": model_page,
    "probe": probe,
    "probing-page": probing_page,
    "patch": patch,
    "circuit": circuit,
    "circuit-page": circuit_page,
    "compile": compile_interpreter,
    "calibrate": calibrate,
    "curves": curves,
    "lengths": lengths,
    "report": report,
    "app": app,
    "bench": bench,
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; every mistake ends in one sentence on standard error and a non-zero exit."""
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues from the last checkpoint", code=130)
    except (RunError, ValueError) as error:
        _fail(str(error), code=1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), code=1)


def _run(arguments: list[str]) -> None:
    """Parse, then call. Tyro frames its complaints in a box of several lines; people get one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            call = tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(verb) for name, verb in COMMANDS.items()},
                prog="tapelens",
                description="Mechanistic interpretability on models that learned to run programs.",
                args=arguments,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        verb = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
        _fail(f"{_one_line(complaint.getvalue())}; see: tapelens{verb} --help", code=2)
    call()


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The same signature, but calling it only binds the arguments: parsing and running stay apart."""

    @functools.wraps(verb)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(verb, *args, **kwargs)

    return bind


def _one_line(box: str) -> str:
    """The sentences inside one of tyro's boxes."""
    lines = [line.strip(" │|") for line in box.splitlines()[1:]]
    kept = (line for line in lines if line.strip("─╭╮╰╯+-") and not line.startswith("For full helptext"))
    return " ".join(kept).replace("__tyro-dummy-inner__.", "--")


def _fail(message: str, *, code: int) -> NoReturn:
    print(f"tapelens: {message}", file=sys.stderr)
    sys.exit(code)
