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
    config, world = run.config.model, run.config.world
    if not world.contrast_names:
        return (
            f"Circuits are found from pairs that differ in one thing; the world {world.name} draws none. Two prompts "
            "of your own can be patched on the first page."
        )
    if getattr(config, "has_graph", False):
        return None
    return (
        f"Circuits are drawn of attention heads and MLPs that write to one stream; the {config.architecture} of this "
        "run is not made of these."
    )


def _without_stream(run: Run) -> str | None:
    if run.config.tells_stream:
        return None
    return f"The task {run.config.task} tells no stream of executed instructions; the task trace does."


def _without_state(run: Run) -> str | None:
    config = run.config.model
    if getattr(config, "has_state", False):
        return None
    if getattr(config, "has_attention", False):
        return (
            f"A {config.architecture} holds no state: it keeps keys and values of every token and looks them up again; "
            "the Attention page shows what it looks up."
        )
    return f"A model of the kind {config.architecture} declares no state that it carries from token to token."


def _without_drafts(run: Run) -> str | None:
    config = run.config.model
    if getattr(config, "drafts_in", None) or run.config.writes:
        return None
    return (
        f"A {config.architecture} gives its answer in one go; looped models, and those that fill in an answer by "
        "denoising, come to it step by step, and models of the task scratchpad write a chain before it."
    )


def _without_memory(run: Run) -> str | None:
    config = run.config.model
    if getattr(config, "has_slots", False):
        return None
    return f"A {config.architecture} has no memory of slots; models of the kind slot_machine write one and run it."


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
    "string": Page("views/string.py", "String", ":material/text_fields:", "string"),
    "text": Page("views/text.py", "Text", ":material/article:", "text"),
    "examples": Page("views/examples.py", "Examples", ":material/view_carousel:", "examples"),
    "stream": Page("views/stream.py", "Stream", ":material/timeline:", "stream", refuses=_without_stream),
    "sums": Page("views/sums.py", "Sum", ":material/add:", "sums"),
    "attention": Page(
        "views/attention.py", "Attention", ":material/visibility:", "attention", refuses=_without_attention
    ),
    "state": Page("views/state.py", "State", ":material/memory:", "state", refuses=_without_state),
    "memory": Page("views/memory.py", "Memory", ":material/grid_on:", "memory", refuses=_without_memory),
    "thinking": Page("views/thinking.py", "Thinking", ":material/psychology:", "thinking", refuses=_without_drafts),
    "probes": Page("views/probe_results.py", "Probes", ":material/sensors:", "probes"),
    "circuit": Page("views/circuit.py", "Circuit", ":material/account_tree:", "circuit", refuses=_without_graph),
    "intervene": Page("views/intervene.py", "Intervene", ":material/tune:", "intervene", refuses=_without_do),
    "training": Page("views/training.py", "Training", ":material/show_chart:", "training"),
    "compare": Page("views/compare.py", "Compare", ":material/compare_arrows:", "compare"),
    "data": Page("views/data.py", "Data", ":material/inventory:", "data"),
}
