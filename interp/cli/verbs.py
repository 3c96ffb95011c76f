"""The table of verbs, and how a command line becomes a call of one of them."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable
from typing import Any

import tyro

from interp.cli import UsageError
from interp.cli.bench import bench
from interp.cli.browsing import app, demo, report
from interp.cli.causal import circuit, circuit_page, patch, sources, states_page
from interp.cli.chaining import chains
from interp.cli.comparing import compare
from interp.cli.compiled import calibrate, compile_interpreter
from interp.cli.denoising import diffusion
from interp.cli.evaluating import card, curves, evaluate, lengths, model_page, thinking
from interp.cli.machine import evolve, sample
from interp.cli.probing import probe, probing_page
from interp.cli.sharing import push
from interp.cli.slots import slots, slots_inside, slots_page, slots_restarts
from interp.cli.sums import sums, sums_lengths, sums_page, sums_tables
from interp.cli.sweeping import sweep
from interp.cli.texts import sample_text, strings_page, text_page
from interp.cli.training import train
from interp.cli.writing import chat, generate
from interp.commands import called_with

COMMANDS = {
    "demo": demo,
    "sample": sample,
    "evolve": evolve,
    "train": train,
    "sweep": sweep,
    "eval": evaluate,
    "sample-text": sample_text,
    "strings-page": strings_page,
    "generate": generate,
    "chat": chat,
    "text-page": text_page,
    "card": card,
    "model-page": model_page,
    "probe": probe,
    "probing-page": probing_page,
    "patch": patch,
    "states-page": states_page,
    "sources": sources,
    "circuit": circuit,
    "circuit-page": circuit_page,
    "sums": sums,
    "sums-lengths": sums_lengths,
    "sums-tables": sums_tables,
    "sums-page": sums_page,
    "slots": slots,
    "slots-inside": slots_inside,
    "slots-restarts": slots_restarts,
    "slots-page": slots_page,
    "compile": compile_interpreter,
    "calibrate": calibrate,
    "compare": compare,
    "curves": curves,
    "lengths": lengths,
    "thinking": thinking,
    "chains": chains,
    "diffusion": diffusion,
    "report": report,
    "push": push,
    "app": app,
    "bench": bench,
}


def run_verb(arguments: list[str]) -> None:
    """Parse, then call.

    Raises:
        UsageError: the arguments are not those of a verb.
    """
    called_with(arguments)
    parse(arguments)()


def parse(arguments: list[str]) -> Callable[[], None]:
    """The call that the arguments ask for. Tyro frames its complaints in a box of several lines; people get one line.

    Raises:
        UsageError: the arguments are not those of a verb.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(verb) for name, verb in COMMANDS.items()},
                prog="tapelens",
                description="Mechanistic interpretability on models that learned to run programs.",
                args=arguments,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        verb = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
        raise UsageError(f"{_one_line(complaint.getvalue())}; see: tapelens{verb} --help") from None


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
