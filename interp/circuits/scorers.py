"""Ways to score edges, by name: what discovery, calibration, pages and reports read.

A new one is a function and an entry here; its name is also a `results.Method`, since rows carry it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interp.circuits.attribution import eap, eap_ig
from interp.circuits.exact import exact_effects
from interp.circuits.pairs import Pairs
from interp.circuits.search import acdc_scores
from interp.circuits.standing import taken_apart
from interp.registry import Registry
from interp.stage_options import Ablation


@dataclass(frozen=True)
class Scoring:
    """What a scorer is told besides model and pairs; each takes what concerns it."""

    steps: int = 5  # points of an integrated gradient
    ablation: Ablation = "resample"  # what an edge carries that is dropped
    reference: Tensor | None = None  # tokens [n, pos] of the examples that "mean" averages over
    progress: Callable[[float], None] | None = None  # called with the share done, 0 to 1


@dataclass(frozen=True)
class Scorer:
    """A way to score every edge of `model.graph()`."""

    function: Callable[[Any, Pairs, Scoring], np.ndarray]  # float64 [reader, writer]; 0 where there is no edge
    words: str  # as people call it
    colour: str  # in drawings
    signed: bool = True  # a score predicts m(edge corrupted) - m(clean); else only how much the edge matters
    integrates: bool = False  # scores of the edges out of the input should sum to m(corrupted) - m(clean)
    approximates: bool = True  # exact patching, else
    searches: bool = False  # some hundred times slower than a gradient


def _eap(model: Any, pairs: Pairs, scoring: Scoring) -> np.ndarray:
    return eap(model, pairs)


def _eap_ig(model: Any, pairs: Pairs, scoring: Scoring) -> np.ndarray:
    return eap_ig(model, pairs, steps=scoring.steps)


def _acdc(model: Any, pairs: Pairs, scoring: Scoring) -> np.ndarray:
    options: dict[str, Any] = {"ablation": scoring.ablation, "reference": scoring.reference}
    return acdc_scores(model, pairs, progress=scoring.progress, **options)


def _exact(model: Any, pairs: Pairs, scoring: Scoring) -> np.ndarray:
    graph = taken_apart(model)
    places = np.argwhere(graph.mask)
    scores = np.zeros(graph.mask.shape)
    edges = [graph.edge(row, column) for row, column in places]
    scores[tuple(places.T)] = exact_effects(model, pairs, edges, progress=scoring.progress).mean(axis=1)
    return scores


SCORERS: Registry[Scorer] = Registry(
    "scorer",
    {
        "eap": Scorer(_eap, "EAP", "#E69F00"),
        "eap_ig": Scorer(_eap_ig, "EAP-IG", "#0072B2", integrates=True),
        "acdc": Scorer(_acdc, "ACDC-style search", "#009E73", signed=False, searches=True),
        "exact_patching": Scorer(_exact, "exact patching", "#56B4E9", approximates=False),
    },
)


def score_edges(name: str, model: Any, pairs: Pairs, **settings: Any) -> np.ndarray:
    """Scores by the scorer of that name, float64 [reader, writer]; settings are the fields of `Scoring`.

    Raises:
        ValueError: no such scorer, or what it refuses.
    """
    return SCORERS[name].function(model, pairs, Scoring(**settings))
