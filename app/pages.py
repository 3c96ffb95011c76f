"""The pages of the app, and for each whether a run has anything to show on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from interp import Run


def shows_every_run(run: Run) -> None:
    """For pages that have something to say of any run."""


@dataclass(frozen=True)
class Page:
    """One page: a file of its own in `app/views`."""

    file: str
    title: str
    icon: str
    url_path: str  # of the first page of a run: the bare address
    refuses: Callable[[Run], str | None] = shows_every_run
    """The sentence shown in place of the page where a run has nothing for it. Reads the config alone: no torch."""


def _without_attention(run: Run) -> str | None:
    config = run.config.model
    if getattr(config, "has_attention", False):  # what a config does not declare, its models do not have
        return None
    return f"A model of the kind {config.architecture} has no attention, so there are no patterns to look at."


def _without_graph(run: Run) -> str | None:
    config = run.config.model
    if getattr(config, "has_graph", False):
        return None
    return (
        f"Circuits are drawn of attention heads and MLPs that write to one stream; the {config.architecture} of this "
        "run is not made of these."
    )


def _without_do(run: Run) -> str | None:
    world = run.config.world
    if "do" in world.capabilities:
        return None
    return (
        f"The world {world.name} cannot be asked what would come out if one of its variables had another value, so "
        "there is nothing to hold an edit of the model against."
    )


PAGES: dict[str, Page] = {
    "step": Page("views/step.py", "Step", ":material/footprint:", "step"),
    "examples": Page("views/examples.py", "Examples", ":material/view_carousel:", "examples"),
    "attention": Page(
        "views/attention.py", "Attention", ":material/visibility:", "attention", refuses=_without_attention
    ),
    "probes": Page("views/probe_results.py", "Probes", ":material/sensors:", "probes"),
    "circuit": Page("views/circuit.py", "Circuit", ":material/account_tree:", "circuit", refuses=_without_graph),
    "intervene": Page("views/intervene.py", "Intervene", ":material/tune:", "intervene", refuses=_without_do),
    "training": Page("views/training.py", "Training", ":material/timeline:", "training"),
    "data": Page("views/data.py", "Data", ":material/inventory:", "data"),
}
