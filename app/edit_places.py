"""Where a person may edit a model: named places, and the one where a run's own measurements say that a variable is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app import run_access
from interp import Run, RunError
from interp.results import Method, Metric, records, select


@dataclass(frozen=True)
class Place:
    """A hook, or one head at it."""

    hook: str
    head: int | None
    words: str

    @property
    def id(self) -> str:
        return self.hook if self.head is None else f"{self.hook}#{self.head}"


def places(model: Any) -> dict[str, Place]:
    """The places of a model by id: its stream (or what carries it on), its heads and MLPs, then every other hook."""
    stream, found = list(model.residual_hooks()), []
    for index, hook in enumerate(stream):
        found.append(Place(hook, None, "stream before layer 0" if index == 0 else f"stream after layer {index - 1}"))
    if (graph := model.graph()) is not None:
        for writer in graph.writers[1:]:
            named = f"MLP {writer.layer}" if writer.head is None else f"L{writer.layer}H{writer.head}"
            what = {"head": "the head", "cross": "the head of cross-attention", "mlp": "it"}[writer.kind]
            found.append(Place(graph.unit_hook(writer), writer.head, f"{named}: what {what} writes"))
    found += [Place(hook, None, f"what is carried on: {hook}") for hook in model.carrier_hooks()]
    found += [Place(hook, None, hook) for hook in model.hook_dict if _has_positions(model, hook)]
    by_id = {}
    for place in found:
        by_id.setdefault(place.id, place)
    return by_id


def _has_positions(model: Any, hook: str) -> bool:
    try:
        return "pos" in model.axes(hook)
    except ValueError:  # a hook without declared axes cannot be edited by position
        return False


def node_place(model: Any, node: str) -> dict[str, Any]:
    """Hook and head of a circuit's node, "a1.h3" or "m1", as `recipes.propose` takes them; {} for input and logits."""
    if (graph := model.graph()) is None:
        return {}
    for writer in graph.writers[1:]:
        if writer.name == node:
            return {"hook": graph.unit_hook(writer)} | ({} if writer.head is None else {"head": writer.head})
    return {}


def best_site(run: Run, variable: str) -> tuple[str, str, float] | None:
    """(hook, positions, IIA) where whole-vector swaps of a run moved a variable most; None where nothing was measured.

    Left out are "all" and both ends of the stream: before the first layer a swap edits the input, after the last one
    the answer."""
    try:
        frame = run_access.frame(run, "interventions")
    except RunError:
        return None
    rows = select(frame, variable=variable, metric=Metric.IIA, stratum="changes", method=Method.FULL_VECTOR)
    found = [
        row for row in records(rows)
        if row["control"] is None and row["op"] is None and row["position"] != "all"
        and str(row["site"]).endswith("hook_resid_post")
    ]  # fmt: skip
    last = max((str(row["site"]) for row in found), key=_layer, default=None)
    inner = [row for row in found if row["site"] != last]
    if not inner:
        return None
    best = max(inner, key=lambda row: row["estimate"])
    return str(best["site"]), str(best["position"]), float(best["estimate"])


def _layer(site: str) -> int:
    return int(site.split(".")[1])


def first_variable(run: Run, names: Sequence[str]) -> str:
    """Of these variables the first that a run's own swaps moved in four pairs of five, else the first."""
    found = {name: best_site(run, name) for name in names}
    return next((name for name, best in found.items() if best is not None and best[2] >= 0.8), names[0])
