"""A compiled interpreter: a transformer whose weights are written, not trained, so that its mechanism is known.

`compile_model(spec)` gives the model with its answer key; `interp.runs.compiled_run` writes both as a run folder, on
which every tool of the project works as on a trained one.

    components.py  subspaces, heads, gates: the language that programs are declared in
    passes/        the interpreter, one concept a file
    program.py     all passes in order
    assembler.py   from a program to the weights of a Transformer
    noise.py       rotation, distractors, superposition, redundancy
    key.py         the answer key: where each variable is, which edges each instruction uses
    liveness.py, locate.py   the key's first half, from declarations
    evaluate.py   the program run as declared (interp.calibration.truth makes the key's second half with it)
    squeezing.py   how sure the answers are, and the tightest squeeze that keeps them so
    build.py       all of it
    held_tape.py   two recurrent interpreters of `trace` that hold the tape, each in its own way
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.compiled.config import NoiseConfig

if TYPE_CHECKING:
    from interp.compiled.build import Compiled, compile_model
    from interp.compiled.held_tape import HeldTape, compile_held_tape
    from interp.compiled.key import AnswerKey, Carrier, CircuitKey, Place, Swap, VariableKey
    from interp.compiled.squeezing import margin, tightest

__all__ = [
    "AnswerKey",
    "Carrier",
    "CircuitKey",
    "Compiled",
    "HeldTape",
    "NoiseConfig",
    "Place",
    "Swap",
    "VariableKey",
    "compile_held_tape",
    "compile_model",
    "margin",
    "tightest",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("HeldTape", "compile_held_tape"):
        return vars(import_module("interp.compiled.held_tape"))[name]
    from interp.compiled import build, key

    if name in ("margin", "tightest"):
        return vars(import_module("interp.compiled.squeezing"))[name]
    for module in (build, key):
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(name)
