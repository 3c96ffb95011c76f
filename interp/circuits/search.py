"""Greedy search for a circuit, from the output backwards (ACDC; Conmy et al. 2023).

1. Start from the whole graph, H = G. Visit readers from the logits to the first layer; a reader whose node has no kept
   outgoing edge loses all its edges untried.
2. Of a reader, try edges one by one, from the latest source to the earliest: let the edge carry its ablated value and
   keep it so if that changes the metric by less than tau; else put it back.

The change is the mean over pairs of |m(H without e) - m(H)|, in logits, m the logit difference of the pairs: effects of
opposite sign do not cancel. Conmy et al. use the KL divergence between the outputs of G and of H: it compares with the
full model and not with the last step, sees every token at every position, so that it also keeps edges that serve other
parts of the answer, and drops an edge whose absence brings H closer to G, which this change, being absolute, does not.

The decisions are those of the sequential procedure, and depend on its order; the runs are not sequential. All sources
of a reader are dropped one after the other in one batch, on the guess that none matters; where one does, the rest is
run again from there. Nothing before the reader's layer differs from the clean run, so passes start at that layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import written
from interp.circuits.faithfulness import fixed_values, run_from
from interp.circuits.hooked import streams
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.ranges import counted
from interp.stage_options import ABLATIONS, Ablation

_MIN_WIDTH = 4  # edges tried in one batch after one that was kept; doubles as long as none is


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found."""

    tau: float
    kept: np.ndarray  # bool [reader, writer]; every edge lies on a path from the input to the logits
    change: np.ndarray  # of the metric when the edge was tried, float64 [reader, writer]; nan where it was not
    m: np.ndarray  # logit difference of what is kept, float64 [n]
    n_runs: int  # circuits run, guesses that failed included


@counted(pairs=1, batch_size=1)
@torch.no_grad()
def acdc(
    model: Any,
    pairs: Pairs,
    *,
    tau: float,
    ablation: Ablation = "resample",
    reference: Tensor | None = None,
    batch_size: int = 512,
    progress: Callable[[float], None] | None = None,
) -> Search:
    """Search for the circuit that the pairs use.

    Args:
        model: the hooked transformer.
        pairs: clean inputs, and the corrupted ones that "resample" takes ablated values from.
        tau: in logits; an edge that changes the metric by less is dropped.
        ablation: what dropped edges carry.
        reference: tokens [n, pos] of the examples that "mean" averages over.
        batch_size: rows a forward pass, edges times pairs.
        progress: called with the share of readers done, 0 to 1.

    Raises:
        ValueError: tau is not positive, an unknown ablation, "mean" without reference, or a model that `taken_apart`
            refuses.
    """
    return _Search(model, pairs, ablation, reference, batch_size).run(tau, progress or (lambda share: None))


@counted(pairs=1, batch_size=1)
@torch.no_grad()
def acdc_scores(
    model: Any,
    pairs: Pairs,
    *,
    taus: Sequence[float] | None = None,
    ablation: Ablation = "resample",
    reference: Tensor | None = None,
    batch_size: int = 512,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """A score an edge from a sweep of thresholds: the largest tau at which it stays, 0 where it never does.

    Args:
        model: the hooked transformer.
        pairs: as for `acdc`, and so `ablation`, `reference` and `batch_size`.
        taus: thresholds in logits; by default six, even on a log axis, from 0.1 % to 30 % of the model's own gap,
            |m(clean) - m(ablated everywhere)|.
        progress: called with the share done, 0 to 1.

    Returns:
        float64 [reader, writer].

    Raises:
        ValueError: no tau, one that is not positive, or what `acdc` refuses.
    """
    search = _Search(model, pairs, ablation, reference, batch_size)
    report = progress or (lambda share: None)
    levels = sorted(search.default_taus() if taus is None else taus)
    if not levels:
        raise ValueError("taus must name at least one threshold, got none")
    scores = np.zeros(search.graph.mask.shape)
    for place, tau in enumerate(levels):
        found = search.run(tau, lambda share, place=place: report((place + share) / len(levels)))
        scores[found.kept] = tau
    return scores


class _Search:
    """Clean and ablated activations, which every threshold shares, and the greedy pass over them."""

    def __init__(self, model: Any, pairs: Pairs, ablation: Ablation, reference: Tensor | None, batch_size: int):
        if ablation not in ABLATIONS:
            raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}; got {ablation!r}")
        self.model, self.pairs, self.batch_size = model, pairs, batch_size
        self.graph = taken_apart(model)
        clean, logits = written(model, self.graph, pairs.clean.tokens)
        if ablation == "resample":
            self.ablated = written(model, self.graph, pairs.corrupted.tokens)[0]
        else:
            self.ablated = fixed_values(model, self.graph, ablation, reference, batch_size).expand_as(clean)
        self.before = self.ablated - clean
        self.m = pairs.logit_difference(logits).double().numpy()
        self.resid = streams(model, pairs.clean.tokens)

    def default_taus(self) -> list[float]:
        empty = np.zeros_like(self.graph.mask)[None]
        gap = float(np.abs(self.m - self._run(empty, 0)[0]).mean())
        return [float(tau) for tau in gap * np.geomspace(1e-3, 0.3, 6)]

    def run(self, tau: float, progress: Callable[[float], None]) -> Search:
        if not tau > 0:
            raise ValueError(f"tau must be above 0, in logits; got {tau}")
        graph, n_runs = self.graph, 0
        kept, change, m = graph.mask.copy(), np.full(graph.mask.shape, np.nan), self.m
        names = [writer.name for writer in graph.writers]
        for row, reader in reversed(list(enumerate(graph.readers))):
            if reader.kind != "logits" and not kept[:, names.index(reader.node)].any():
                kept[row] = False
                continue
            layer = graph.n_layers if reader.layer is None else reader.layer
            waiting, width = np.flatnonzero(graph.mask[row])[::-1].tolist(), 2 * _MIN_WIDTH
            while waiting:
                tried = waiting[:width]
                trials = np.repeat(kept[None], len(tried), axis=0)
                for place, column in enumerate(tried):
                    trials[place:, row, column] = False
                found = self._run(trials, layer)
                n_runs += len(tried)
                moved = np.abs(np.diff(np.concatenate([m[None], found]), axis=0)).mean(axis=1)
                n_dropped = int(np.append(moved >= tau, True).argmax())
                known = tried[: n_dropped + 1]
                change[row, known] = moved[: len(known)]
                kept[row, tried[:n_dropped]] = False
                m = found[n_dropped - 1] if n_dropped else m
                waiting = waiting[len(known) :]
                width = 2 * width if n_dropped == len(tried) else _MIN_WIDTH
            progress(1 - row / len(graph.readers))
        return Search(tau=tau, kept=graph.prune(kept), change=change, m=m, n_runs=n_runs)

    def _run(self, trials: np.ndarray, layer: int) -> np.ndarray:
        """Logit differences [trial, n]; what a trial lacks is read in `layer` or later (0: anywhere)."""
        excluded = torch.from_numpy(self.graph.mask & ~trials).to(self.ablated.dtype)
        n = len(self.pairs)
        m = np.zeros((len(trials), n))
        size = min(n, self.batch_size)
        per_pass = max(1, self.batch_size // size)
        for start in range(0, n, size):
            rows = slice(start, start + size)
            part, resid = self.pairs[rows], self.resid[layer][rows]
            ablated, before = self.ablated[:, rows], self.before[:, rows]
            for first in range(0, len(trials), per_pass):
                group = slice(first, first + per_pass)
                logits = run_from(self.model, self.graph, resid, excluded[group], ablated, layer=layer, before=before)
                m[group, rows] = part.logit_difference(logits).double().numpy()
        return m
