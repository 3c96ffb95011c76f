"""The card of a run as the README of its repository: metadata that a hub reads, how to open it, then the card.

Everything is taken from the run's config and from measured rows of `card.json`; a run without a card says so.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

from interp.commands import command
from interp.pages.card_page import card_page, rows_of
from interp.results import Aggregation, Metric
from interp.runs import Run
from interp.runs.hub_names import SCHEME


def readme(run: Run, card: dict[str, Any] | None, *, repository: str) -> str:
    """The README as Markdown with YAML front matter.

    Args:
        run: the run.
        card: what its card.json holds; None: nothing was measured.
        repository: OWNER/NAME, for the lines that open it.
    """
    how = f'```python\nimport interp\n\nrun = interp.load("{SCHEME}{repository}")  # .task, .model, .frame(…)\n```'
    body = f"# {run.name}\n\n{_unmeasured(run)}\n" if card is None else card_page(card)
    heading, _, rest = body.partition("\n\n")
    return f"---\n{_metadata(run, card)}\n---\n\n{heading}\n\n{how}\n\n{rest}"


def _metadata(run: Run, card: dict[str, Any] | None) -> str:
    """YAML, as the hub's own client writes it."""
    from huggingface_hub import EvalResult, ModelCardData

    config = run.config
    words = (config.world.name, config.task, config.model.architecture)
    tags = ["tapelens", "mechanistic-interpretability", *(re.sub(r"[^a-z0-9]+", "-", word.lower()) for word in words)]
    macro = [] if card is None else rows_of(card, Metric.EXACT_MATCH, Aggregation.MACRO)[:1]
    results = [
        EvalResult(
            task_type=f"tapelens-{config.task}",
            task_name=config.task,
            dataset_type=f"tapelens-{config.world.name}",
            dataset_name=f"held-out examples of {config.world.in_words()}",
            dataset_split="evaluation",
            metric_type="exact_match",
            metric_name=f"exact match, macro average, n = {row['n']:,}",
            metric_value=row["estimate"],
        )
        for row in macro
    ]
    values = ModelCardData(
        library_name="tapelens",
        license=licence(),
        tags=list(dict.fromkeys(tags)),
        model_name=run.name if results else None,
        eval_results=results or None,
    )
    return values.to_yaml().strip()


def licence() -> str:
    """The licence of this project as a hub spells it: that of its package."""
    return str(metadata.metadata("tapelens")["License-Expression"]).lower()


def _unmeasured(run: Run) -> str:
    config = run.config
    return (
        f"A model of the architecture `{config.model.architecture}` for the task `{config.task}` on "
        f"{config.world.in_words()}.\n\n"
        f"Nothing was measured for a card; `{command('card', run.name)}` does that."
    )
