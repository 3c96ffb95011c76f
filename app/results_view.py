"""From the tidy frame to what the Probes page shows: differences to controls, joined row by row."""

from __future__ import annotations

import re
from typing import Any, cast

import numpy as np
import pandas as pd

from interp.results import Control, Metric
from interp.worlds import World

KIND_WORDS = {
    "root": "given: stored in the example",
    "fetch": "fetched: op, operand, …",
    "decide": "decided: outcome, branch",
    "result": "results: what is written",
    "latent": "latents over a run",
}
CONTROL_WORDS = {
    Control.CONTROL_TASK.value: "control task (labels re-drawn by input type)",
    Control.EMBEDDING_ONLY.value: "the same probe on the embedding",
    Control.UNTRAINED_MODEL.value: "the same probe on an untrained model",
    Control.MAJORITY_CLASS.value: "the commonest class",
    Control.SHUFFLED_LABELS.value: "shuffled labels",
    Control.ALTERED_SEMANTICS.value: "the same variable, had opcodes other meanings",
}
INTERVAL_WORDS = {
    "bootstrap_programs": "95 % interval, bootstrap over programs",
    "wilson": "95 % Wilson interval",
    "null_range": "95 % of the random draws",
}
CELL = ["variable", "position", "site"]
_JOIN = [*CELL, "method", "stratum", "rank", "pair_design"]


def where(frame: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """The rows where `mask` holds."""
    return cast(pd.DataFrame, frame.loc[mask])


def kind_of(world: World, name: str) -> str:
    """The kind of a concrete variable ("cell[3]" is a root): root, fetch, decide, result; latent where unknown."""
    known = world.variables()
    return known[name].kind if name in known else "latent"


def site_words(site: str) -> str:
    """A hook name as a person says it: "after layer 1" for blocks.0.hook_resid_post; layers count from 0 as L0."""
    if site in ("hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre"):
        return {"hook_embed": "embedding", "hook_pos_embed": "positions"}.get(site, "before L0")
    names = {
        "hook_resid_pre": "before L{}",
        "hook_resid_mid": "mid L{}",
        "hook_resid_post": "after L{}",
        "hook_attn_out": "attention L{}",
        "hook_mlp_out": "MLP L{}",
    }
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", site)
    return names.get(found[2], found[2] + " L{}").format(found[1]) if found else site


def site_order(sites: list[str]) -> list[str]:
    """Sites along the model: the embedding, then layer by layer."""

    def key(site: str) -> tuple[int, int, str]:
        found = re.fullmatch(r"blocks\.(\d+)\.(.+)", site)
        within = ("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")
        if not found:
            return (-1 if "embed" in site else 10**6, 0, site)
        return (int(found[1]), within.index(found[2]) if found[2] in within else 2, site)

    return sorted(sites, key=key)


def measured(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that are no controls."""
    return where(frame, (frame.metric == metric) & frame.control.isna())


def controlled_gap(frame: pd.DataFrame, control: str) -> pd.DataFrame:
    """Accuracy minus the same row under `control`, as column `gap`, with both estimates; one row a cell."""
    rows = where(frame, frame.metric == Metric.ACCURACY)
    keys = [key for key in _JOIN if len(rows[key].dropna())]
    main = where(rows, rows.control.isna())
    under = where(rows, rows.control == control).rename(columns={"estimate": "control_estimate"})
    joined = main[[*keys, "estimate", "n"]].merge(under[[*keys, "control_estimate"]], on=keys, how="inner")
    return joined.assign(gap=joined.estimate - joined.control_estimate)


def clearest(frame: pd.DataFrame, *, k: int = 3) -> list[tuple[str, str, str, float]]:
    """The `k` variables that stand furthest above the best of their controls: (variable, position, site, difference).

    Being above one control is easy: a stored token reads itself from its embedding, and so does an untrained model.
    """
    measured_at: dict[tuple[str, ...], float] = {}
    best_control: dict[tuple[str, ...], float] = {}
    for row in where(frame, frame.metric == Metric.ACCURACY).to_dict("records"):
        cell = (row["variable"], row["position"], row["site"], row["method"])
        if pd.isna(row["control"]):
            measured_at[cell] = row["estimate"]
        else:
            best_control[cell] = max(row["estimate"], best_control.get(cell, 0.0))
    gaps = sorted(((measured_at[c] - best_control[c], c) for c in measured_at if c in best_control), reverse=True)
    first_of: dict[str, tuple[str, str, str, float]] = {}
    for gap, (variable, position, site, _) in gaps:
        first_of.setdefault(variable, (variable, position, site, gap))
    return [found for found in first_of.values() if found[3] > 0][:k]


def overview(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, list[str], list[tuple[str, str] | None]]:
    """One table of variable x (position, site): values [variable, column], the variables, and what each column is.

    Every position has all sites along the model, and an empty column (None) after them. Where several rows fit one
    cell, their mean.
    """
    variables = list(dict.fromkeys(rows.variable))
    sites = site_order(list(rows.site.unique()))
    columns: list[tuple[str, str] | None] = []
    for position in dict.fromkeys(rows.position):
        columns += [*((position, site) for site in sites), None]
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in rows.to_dict("records"):
        found.setdefault((row["variable"], row["position"], row["site"]), []).append(row[column])
    values = np.full((len(variables), len(columns)), np.nan)
    for r, name in enumerate(variables):
        for c, key in enumerate(columns):
            if key is not None and (name, *key) in found:
                values[r, c] = float(np.mean(found[name, *key]))
    return values, variables, columns


def site_label(site: str) -> str:
    """A hook name in two or three letters, for narrow columns: "in" before the first layer, "L2" after layer 2."""
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", site)
    return f"L{found[1]}" if found else "in" if site_words(site) in ("before L0", "embedding") else site_words(site)


def cell_id(variable: str, site: str, position: str) -> str:
    """The selection id of a probe cell."""
    return f"{variable}|{site}|{position}"


def of_cell(frame: pd.DataFrame, cell: str) -> pd.DataFrame:
    """All rows of one cell, controls included; empty if the id is stale or malformed."""
    parts = cell.split("|")
    if len(parts) != 3:
        return frame.head(0)
    variable, site, position = parts
    return where(frame, (frame.variable == variable) & (frame.site == site) & (frame.position == position))


STRATUM_WORDS = {
    "changes": "pairs where the right answer changes (the headline)",
    "same": "pairs where it stays the same",
    "all": "all pairs",
}
DESIGN_WORDS = {
    "independent": "two independent states",
    "minimal": "states that differ in one stored value",
}
SWAP_WORDS = {
    "full_vector": "the whole activation",
    "probe_subspace": "the probe's directions only",
    "das": "a learned subspace (DAS)",
}


def in_order(values: Any, words: dict[str, str]) -> list[str]:
    """The distinct values of a column (a Series): those that have words first, in their order."""
    found = list(values.dropna().unique())
    return [value for value in words if value in found] + sorted(value for value in found if value not in words)


def in_words(row: pd.Series) -> str:
    """ "0.93 [0.91, 0.95], n = 812" — the estimate with what it is worth."""
    interval = "" if pd.isna(row.ci_low) else f" [{row.ci_low:.3f}, {row.ci_high:.3f}]"
    n = "" if pd.isna(row.n) else f", n = {int(row.n):,}"
    return f"{row.estimate:.3f}{interval}{n}"
