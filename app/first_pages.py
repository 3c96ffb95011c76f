"""Which page a run opens with: a world may have one of its own, all others share the examples.

A first page comes with a module whose `view(run)` gives what all pages look at. It is imported when a run asks for it,
so that nobody needs the machine to look at another world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from app.pages import PAGES, Page
from interp import Run

if TYPE_CHECKING:
    from app.session import View


@dataclass(frozen=True)
class FirstPage:
    """A key of PAGES, and the module that knows what stands there."""

    name: str
    module: str

    @property
    def page(self) -> Page:
        return PAGES[self.name]

    def view(self, run: Run) -> View:
        """What to show now. Raises RunError where this page cannot show the run."""
        return import_module(self.module).view(run)


STEP = FirstPage("step", "app.machine_view")
EXAMPLES = FirstPage("examples", "app.examples_view")
SUMS = FirstPage("sums", "app.sums_view")
STRING = FirstPage("string", "app.examples_view")
TEXT = FirstPage("text", "app.text_view")


def _of_machine(run: Run) -> FirstPage:
    """The tape and its pointers, where a state is what the model answers, in the layout that the boards draw."""
    spec = run.config.spec
    drawn = spec.pointers == "one_hot" and spec.punctuation == "blocks" and not (spec.outcome_token or spec.padded)
    return STEP if run.config.answers_state and drawn else EXAMPLES


VIEWS: dict[str, Callable[[Run], FirstPage]] = {
    "machine": _of_machine,
    "addition": lambda run: SUMS,
    "strings": lambda run: STRING,
    "text": lambda run: TEXT,
}


def first_page(run: Run) -> FirstPage:
    """The first page of a run, by its world."""
    choose = VIEWS.get(run.config.world.name)
    return EXAMPLES if choose is None else choose(run)


def pages_of(run: Run) -> dict[str, Page]:
    """The pages in the order of the navigation: the first page, then those that are about the model."""
    first = first_page(run)
    own = {each.name for each in (STEP, EXAMPLES, SUMS, STRING, TEXT)}
    return {first.name: first.page} | {name: page for name, page in PAGES.items() if name not in own}
