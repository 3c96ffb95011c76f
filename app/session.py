"""What every page looks at: the run, one example of its world, and the step of it that is shown.

The first page of a world (`first_pages`) brings its own kind of `View`; the other pages ask it for no more than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app import run_access, run_list, selection
from app.first_pages import first_page
from app.theme import GLYPHS, OP_MEANINGS
from interp import Run, RunError
from interp.calibration import score


@dataclass(frozen=True)
class View:
    """The run in view, and where in its examples we are."""

    run: Run
    step: int = 0  # of the time slider, from 0

    @property
    def ops(self) -> tuple[str, ...]:
        """The strata of the world that this run can meet; () where examples belong to none."""
        return self.run.config.world.stratum_names

    @property
    def op(self) -> str:
        """The stratum of what is in view; "" where that is not known."""
        return ""

    @property
    def contrasts(self) -> tuple[str, ...]:
        """What circuits are looked for: the strata, or what the world names in their place."""
        world = self.run.config.world
        return self.ops if world.contrast_names == world.stratum_names else world.contrast_names

    @property
    def chosen_op(self) -> str:
        """The contrast to explain: the one picked, else that of what is in view, else the first."""
        wanted = (selection.current().op, self.op, *self.contrasts)
        return next((op for op in wanted if op in self.contrasts), "")

    def status(self) -> str:
        """Where we are, in one line."""
        return describe_model(self.run)

    def place(self) -> str:
        """What "this state" is on the pages that look into the model."""
        return f"The example on the {first_page(self.run).page.title} page: a forward pass made now."

    def example(self) -> Any:
        """The example in view, one of the world's. Imports torch where the task does. Raises RunError."""
        raise NotImplementedError(f"{type(self).__name__} must say what its example is")

    def executed(self) -> int:
        """The executed step of `example` that is in view; 0 where an example is one step."""
        return 0

    def named(self) -> dict[str, Any]:
        """What names the example, for a recipe in JSON."""
        raise NotImplementedError(f"{type(self).__name__} must say how its example is named")

    def code(self) -> list[str]:
        """Lines of Python that give the same example as `base`, from `run` and `task`; imports first."""
        raise NotImplementedError(f"{type(self).__name__} must say how its example is made")

    def value_words(self, name: str, value: int) -> str:
        """A value of a variable as a person picks it."""
        return str(value)

    def held_out(self, n: int, op: str) -> str:
        """That something is a mean over `n` held-out examples of a stratum, in words."""
        return f"{n} held-out examples of {op}"

    def query(self, names: Sequence[str]) -> int:
        """The position that a newcomer wants to ask about."""
        return 0

    def is_missed(self) -> bool:
        """Whether the model is known to err on the example in view."""
        return False

    def can_explain(self, op: str) -> bool:
        """Whether `draw_state` has something to say about an example of this stratum."""
        return False

    def draw_state(self) -> None:
        """Which parts of the model speak for its answer to the example in view."""

    @property
    def can_show(self) -> bool:
        """Whether `show` can bring an example that a file names to the first page."""
        return False

    def show(self, tokens: np.ndarray, step: int = 0) -> None:
        """Show on the first page the example that tokens [pos] of `Task.spell` name, at an executed step."""

    def in_words(self, tokens: np.ndarray, step: int = 0) -> str:
        """The same example in a phrase; here its tokens."""
        vocab = self.run.task.vocab
        return " ".join(f"`{vocab[int(token)]}`" for token in tokens)

    def against(self, tokens: np.ndarray) -> str:
        """What such an example differs in from the one it was held against, in a phrase."""
        return self.in_words(tokens)


def view() -> View:
    """What to show now. Raises RunError when the run cannot be opened."""
    run = run_access.current()
    world = run.config.world
    selection.begin(tuple(dict.fromkeys((*world.stratum_names, *world.contrast_names))))
    return first_page(run).view(run)


def show_status(view: View) -> None:
    """Where we are, as a line over the pages that are about something else."""
    st.caption(view.status())


def go_first(view: View) -> None:
    """Open the run's first page."""
    st.switch_page(first_page(view.run).page.file)


def contrast_title(view: View) -> str:
    """What a picker of contrasts is called: the world's word for its strata, where they are the contrasts."""
    world = view.run.config.world
    return world.stratum_title.capitalize() if world.contrast_names == world.stratum_names else "Contrast"


def unit(view: View) -> str:
    """What the world keeps out of training whole, with its article: "a program", "an input"."""
    name = view.run.config.world.unit
    return f"{'an' if name[0] in 'aeio' else 'a'} {name}"


def otherwise(view: View, op: str) -> str:
    """What holds in the other example of a pair, in words."""
    world = view.run.config.world
    return f"the {world.stratum_title} is another" if world.contrast_names == world.stratum_names else f"{op} differs"


def op_label(op: str) -> str:
    """A stratum as it is listed; opcodes with their glyph."""
    return f"{GLYPHS[op]} {op}" if op in GLYPHS else op


def op_words(op: str) -> str:
    """What a stratum is, after its name: "`+`: add 1 to the cell …"; "" where nothing more is known."""
    return f" `{GLYPHS[op]}`: {OP_MEANINGS[op]}" if op in GLYPHS else ""


def certainty(p: float) -> str:
    """A probability with two digits, never rounded to 0 or 1."""
    return "p > 0.99" if p >= 0.995 else "p < 0.01" if p < 0.005 else f"p = {p:.2f}"


def verdict(right: bool, p: float) -> str:
    """ "predicted **right ✓**, p = 0.98"."""
    return f"predicted **{'right ✓' if right else 'wrong ✗'}**, {certainty(p)}"


def describe_model(run: Run) -> str:
    """ "4 layers × 4 heads", as far as the architecture has them."""
    cfg = run.config.model
    layers, heads = getattr(cfg, "n_layers", None), getattr(cfg, "n_heads", None)
    if layers is None:
        return str(cfg.architecture)
    return counted(layers, "layer") + (f" × {counted(heads, 'head')}" if heads else f" of {cfg.architecture}")


def counted(n: int, what: str) -> str:
    """ "1 layer", "4 layers"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def describe_run(run: Run) -> str:
    """What the numbers on the pages belong to: run, task, world, weights, and how good the model is."""
    config = run.config
    parts = [f"Run {run.name}: task {config.task}", config.world.in_words(), f"config {config.digest}"]
    if run.source:
        parts.append(f"fetched from {run.source}")
    try:
        parts.append(f"weights of step {run.step:,}")
        headline = run_list.read(run.path).headline
    except RunError:  # no weights, or those of a step along the run
        return " · ".join(parts)
    if headline is not None:
        mean = f"mean over {config.world.strata_words}"
        right = run_list.percent(headline.estimate)
        parts.append(f"exact match {right} ({mean}, {headline.n:,} held-out examples)")
        if headline.bits is not None:
            parts.append(f"{headline.bits:.2f} bits a character of held-out text")
    return " · ".join(parts)


_METHODS = {
    "das": "swaps in a subspace found by distributed alignment search",
    "full_vector": "swaps of whole vectors",
    "probe_subspace": "swaps in the subspace of a probe",
    "eap_ig": "edge scores by EAP-IG, attribution with integrated gradients",
    "eap": "edge scores by EAP, attribution with gradients",
}  # how a sentence calls what a file names in short


def show_calibration(methods: Iterable[str]) -> None:
    """What each method scores on models whose mechanism is known; nothing for methods that were not calibrated."""
    for method in methods:
        if phrase := score(method):
            name = _METHODS.get(str(method), str(method).replace("_", " "))
            st.caption(f"On models with hand-set weights, whose mechanism is known, {name}: {phrase}.")
