"""Does a circuit do what the model does? (Conmy et al. 2023; Hanna et al. 2024; Mueller et al. 2025)

1. Circuit run: every reader's input gets, for each edge outside the circuit, the writer's ablated value in place of
   its current one: in_v += sum over excluded u of (a_u ablated - a_u current), current from this very run. Edges on
   no path from the input to the logits are pruned first.
2. Ablated values: resample (what the writer writes on the corrupted input), mean (over held-out states), or zero. Zero
   takes position embeddings away with the tokens', since both are the writer "input", as auto-circuit does; the EAP-IG
   repository keeps them.
3. faithfulness f(C) = (m(C) - m(empty)) / (m(model) - m(empty)): 1 is the full model, 0 the empty circuit; unbounded.
4. Over circuit sizes, k the share of edges: CPR = integral of f dk, with edges ranked by -score, so that helpful
   ones come first; higher is better. CMD = integral of |1 - f| dk, ranked by |score|; 0 is best. Sizes are even on a
   log axis, from the empty circuit on; or ("mib") those of the benchmark MIB (Mueller et al. 2025), ten shares from
   .1 %, without 0: its figures compare with these alone.
5. Null: random circuits of the same number of edges, pruned alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import edge_hooks, nodes_first, written
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.ranges import counted
from interp.stage_options import ABLATIONS, GRIDS, Ablation, Grid

Ranking = Literal["absolute", "signed"]
MIB_SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True)
class CircuitRuns:
    """What came out of running circuits, by example; the last two circuits are the empty one and the full model."""

    m: np.ndarray  # logit difference, float64 [circuit, n]
    exact: np.ndarray  # whether the whole clean next state came out, bool [circuit, n]


@counted(pairs=1, batch_size=1)
@torch.no_grad()
def run_circuits(
    model: Any,
    pairs: Pairs,
    circuits: np.ndarray,
    *,
    ablation: Ablation = "resample",
    reference: Tensor | None = None,
    batch_size: int = 256,
    progress: Callable[[float], None] | None = None,
) -> CircuitRuns:
    """Run circuits on the clean inputs, many at once along the batch axis.

    Args:
        model: the hooked transformer.
        pairs: clean inputs, and the corrupted ones that "resample" takes ablated values from.
        circuits: bool [circuit, reader, writer], edges kept; pruned here.
        ablation: what excluded edges carry.
        reference: tokens [n, pos] of the examples that "mean" averages over.
        batch_size: rows a forward pass, circuits times examples.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: circuits of another shape, an unknown ablation, or "mean" without reference.
    """
    graph = taken_apart(model)
    if (circuits := graph.read(circuits)).ndim != 3:
        raise ValueError(f"circuits must be bool [n, reader, writer], got {list(circuits.shape)}")
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}; got {ablation!r}")
    excluded = torch.from_numpy(graph.mask & ~graph.prune(circuits)).to(model.W_U.dtype)
    # Circuits that are the same after pruning, such as those with nothing left, run once.
    excluded, member = torch.unique(excluded, dim=0, return_inverse=True)
    m = np.zeros((len(excluded), len(pairs)))
    exact = np.zeros((len(excluded), len(pairs)), dtype=bool)
    fixed = None if ablation == "resample" else fixed_values(model, graph, ablation, reference, batch_size)
    size = min(len(pairs), batch_size)
    for start in range(0, len(pairs), size):
        rows = slice(start, min(start + size, len(pairs)))
        part = pairs[rows]
        ablated = fixed if fixed is not None else written(model, graph, part.corrupted.tokens, batch_size=batch_size)[0]
        per_pass = max(1, batch_size // len(part))
        for first in range(0, len(excluded), per_pass):
            group = slice(first, first + per_pass)
            logits = _run(model, graph, part.clean.tokens, excluded[group], ablated)
            m[group, rows] = part.logit_difference(logits).double().numpy()
            exact[group, rows] = part.exact(logits).numpy()
            if progress is not None:
                progress((rows.start + len(part) * min(1.0, group.stop / len(excluded))) / len(pairs))
    return CircuitRuns(m[member.numpy()], exact[member.numpy()])


def fixed_values(model: Any, graph: Graph, ablation: Ablation, reference: Tensor | None, batch_size: int) -> Tensor:
    """Ablated values that are the same for every pair, [writer, 1, pos or 1, d_model]."""
    if ablation == "zero":
        return torch.zeros(len(graph.writers), 1, 1, model.cfg.d_model, dtype=model.W_U.dtype)
    if reference is None or not len(reference):
        raise ValueError("mean ablation needs reference tokens, got none")
    return written(model, graph, reference, batch_size=batch_size)[0].mean(1, keepdim=True)


def _run(model: Any, graph: Graph, tokens: Tensor, excluded: Tensor, ablated: Tensor) -> Tensor:
    """Logits [circuit, n, pos, d_vocab] with the excluded edges [circuit, reader, writer] carrying ablated values."""
    return run_from(model, graph, model(tokens, stop_at_layer=0), excluded, ablated)


def run_from(
    model: Any,
    graph: Graph,
    resid: Tensor,
    excluded: Tensor,
    ablated: Tensor,
    *,
    layer: int = 0,
    before: Tensor | None = None,
) -> Tensor:
    """The same from the residual stream before a layer, where no edge into an earlier reader is excluded.

    Args:
        model: the hooked transformer.
        graph: its graph.
        resid: [n, pos, d_model], the clean run's before block `layer`; n_layers stands for the unembedding.
        excluded: 1 where an edge carries its ablated value, else 0, [circuit, reader, writer].
        ablated: what each writer writes when ablated, [writer, n or 1, pos or 1, d_model].
        layer: the block to start at.
        before: ablated minus clean of each writer, [writer, n, pos, d_model]; only those before `layer` are read.
    """
    n_circuits, (n, pos, size) = len(excluded), resid.shape
    n_before = graph.n_written(layer) if layer else 0
    # Ablated minus current value of each writer that has been computed since, [circuit, writer, n, pos, d_model]
    delta = resid.new_zeros(n_circuits, len(graph.writers) - n_before, n, pos, size)
    columns = {place.hook: place for place in graph.writer_places}
    rows = {place.hook: place for place in graph.reader_places}

    def write(activation: Tensor, hook: Any) -> None:
        place, current = columns[hook.name], nodes_first(activation).unflatten(1, (n_circuits, n)).transpose(0, 1)
        value = ablated[place.nodes]  # [writer, n or 1, pos or 1, d_model]
        value = value if value.shape[2] == 1 else value[:, :, place.positions]
        where = slice(place.nodes.start - n_before, place.nodes.stop - n_before)
        delta[:, where, :, place.positions] = value - current

    def change(where: slice) -> Tensor | None:
        """What exclusions add to the inputs of readers `where`, [circuit, reader, n, pos, d_model]."""
        weights = excluded[:, where, : graph.n_sources(graph.readers[where.start])]
        total, old, new = None, weights[..., :n_before], weights[..., n_before:]
        if before is not None and old.any():
            total = (old.flatten(0, 1) @ before[: old.shape[-1]].flatten(1)).unflatten(0, weights.shape[:2])
        if new.any():
            recent = torch.bmm(new, delta[:, : new.shape[-1]].flatten(2))
            total = recent if total is None else total + recent
        return None if total is None else total.unflatten(2, (n, pos, size))

    def read(activation: Tensor, hook: Any) -> Tensor | None:
        place = rows[hook.name]
        added = change(place.nodes)
        if added is None:
            return None
        added = added[:, :, :, place.positions]
        return activation + (added.permute(0, 2, 3, 1, 4) if activation.ndim == 4 else added[:, 0]).flatten(0, 1)

    stack = resid.repeat(n_circuits, 1, 1)
    if layer == graph.n_layers:  # the logits read the residual stream itself
        added = change(slice(len(graph.readers) - 1, len(graph.readers)))
        stack = stack if added is None else stack + added[:, 0].flatten(0, 1)
        return model(stack, start_at_layer=layer).unflatten(0, (n_circuits, n))
    hooks = [(name, write) for name, place in columns.items() if place.nodes.start >= n_before]
    hooks += [(name, read) for name, place in rows.items() if excluded[:, place.nodes].any()]
    with edge_hooks(model), model.hooks(fwd_hooks=hooks):
        return model(stack, start_at_layer=layer).unflatten(0, (n_circuits, n))


@counted(n_edges=1, n_sizes=1, smallest=1)
def size_grid(n_edges: int, *, n_sizes: int = 12, smallest: int = 4, grid: Grid = "log") -> list[int]:
    """Circuit sizes to run: evenly on a log axis from `smallest` to all `n_edges`, or MIB's shares, the empty left out.

    Raises:
        ValueError: an unknown grid.
    """
    if grid not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}; got {grid!r}")
    if grid == "mib":
        return sorted({size for share in MIB_SHARES if (size := _n_edges(share, n_edges))})
    sizes = np.geomspace(min(smallest, n_edges), n_edges, n_sizes)
    return sorted({round(float(size)) for size in sizes})


def ranked(scores: np.ndarray, ranking: Ranking) -> np.ndarray:
    """What to take the largest of: |s| for "absolute" (CMD), -s for "signed" (CPR), since helpful edges have s < 0.

    Raises:
        ValueError: an unknown ranking, or scores that are not numbers.
    """
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {"absolute": np.abs, "signed": np.negative}
    if ranking not in ways:
        raise ValueError(f"ranking must be one of {', '.join(ways)}; got {ranking!r}")
    if np.isnan(scores).any():
        raise ValueError(f"scores must be numbers, {int(np.isnan(scores).sum())} of {scores.size} are NaN")
    return ways[ranking](scores)


@dataclass(frozen=True)
class Faithfulness:
    """Faithfulness of circuits against the same full and empty runs; estimates [circuit]."""

    estimate: np.ndarray  # ratio of means over examples
    ci_low: np.ndarray  # 95 %, bootstrap over units
    ci_high: np.ndarray


@counted(n_bootstrap=1)
def faithfulness(
    m: np.ndarray,
    m_model: np.ndarray,
    m_empty: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
    n_bootstrap: int = 1000,
) -> Faithfulness:
    """(m(C) - m(empty)) / (m(model) - m(empty)) from logit differences by example.

    Args:
        m: of the circuits, [circuit, n].
        m_model: of the full model, [n].
        m_empty: of the empty circuit, [n].
        groups: a key of each example's unit, its program, [n]; whole units are resampled.
        seed: of the bootstrap.
        n_bootstrap: number of resamples.

    Raises:
        ValueError: other shapes, or no examples.
    """
    shapes = [list(np.shape(x)) for x in (m, m_model, m_empty, groups)]
    if len(shapes[0]) != 2 or not shapes[0][1] or any(shape != shapes[0][1:] for shape in shapes[1:]):
        raise ValueError(f"m must be [circuit, n], m_model, m_empty and groups [n] with n at least 1; got {shapes}")
    above, gap = m - m_empty, m_model - m_empty
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_bootstrap)[:, group]
    drawn = (above @ weights.T) / (gap @ weights.T)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
    return Faithfulness(above.mean(1) / gap.mean(), low, high)


def _n_edges(share: float, n_edges: int) -> int:
    """The whole edges of a share, rounded down."""
    return int(share * n_edges + 1e-9)


def areas(sizes: list[int], values: np.ndarray, n_edges: int, *, grid: Grid = "log") -> tuple[float, float]:
    """(CPR, CMD) of faithfulness `values` at the sizes of a grid, over the share of edges.

    "log" begins with 0 at the empty circuit; "mib" spans MIB's ten shares alone, where a share below one edge is the
    empty circuit.
    """
    if grid == "mib":
        known = {0: 0.0, **dict(zip(sizes, values, strict=True))}
        share, f = np.array(MIB_SHARES), np.array([known[_n_edges(each, n_edges)] for each in MIB_SHARES])
    else:
        share, f = np.array([0, *sizes]) / n_edges, np.array([0.0, *values])
    return float(np.trapezoid(f, share)), float(np.trapezoid(np.abs(1 - f), share))
