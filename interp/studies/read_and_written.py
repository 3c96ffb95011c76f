"""What probing and editing say together, from rows alone: which variables are decodable, which are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from interp.results import COLUMNS, Aggregation, Control, IntervalKind, Method, Metric, select, site_order

ABOVE = 0.1  # how far a score must stand above its strongest control, to be worth a word
WINDOW = "window"  # the stratum of rows that hold probes against the causal window
ENOUGH_SEEDS = 5
ENOUGH_PAIRS = 10  # edits on fewer pairs are not judged
_INPUT = "blocks.0.hook_resid_pre"
_OF_ONE_RUN = ("run", "seed", "checkpoint_step")
EDITS = (Method.PROBE_MEAN, Method.PROBE_SHIFT, Method.PROBE_LOGITS)
_READ_CONTROLS = (Control.MAJORITY_CLASS, Control.CONTROL_TASK, Control.EMBEDDING_ONLY, Control.UNTRAINED_MODEL)
_WRITE_CONTROLS = (Control.UNPATCHED, Control.RANDOM_SUBSPACE, Control.WRONG_SITE)


def with_controls(rows: pd.DataFrame, keys: list[str], controls: tuple[Control, ...]) -> pd.DataFrame:
    """The measured rows, with the greatest estimate among these controls as column `control_estimate` (0 for none)."""
    beside: Any = rows[rows["control"].isin(controls)].groupby(keys, dropna=False)["estimate"].max()
    measured = select(rows, control=None)
    return measured.join(beside.rename("control_estimate"), on=keys).fillna({"control_estimate": 0.0})


def read_and_written(probes: pd.DataFrame, *, method: str = Method.LOGISTIC) -> pd.DataFrame:
    """One line a variable: where it is read best and where edits work best, with what controls reach there.

    Columns: variable; read_site, read_position, accuracy, accuracy_control (the strongest of majority class, control
    task, embedding and untrained model), decodable; edit_site, edit_scope, success, success_control, used (absent where
    no edit was made); n_probes, how many probes the best was chosen from. Both maxima are over places measured on the
    same held-out data, so they are a little too high.

    Raises:
        ValueError: the frame has no probe accuracy by this method.
    """
    whole: Any = probes[probes["stratum"].isna() | probes["metric"].eq(Metric.EDIT_SUCCESS)]
    accuracy = select(whole, metric=Metric.ACCURACY, method=method)
    keys = ["site", "position", "variable"]
    read: Any = with_controls(accuracy, keys, _READ_CONTROLS)
    if read.empty:
        raise ValueError(f"the frame has no {method} probe accuracy")
    edits: Any = _judged_edits(whole, method)
    written: Any = with_controls(edits[edits["method"].isin(EDITS)], [*keys, "method"], _WRITE_CONTROLS)
    lines: list[dict[str, Any]] = []
    for name in dict.fromkeys(read["variable"]):
        mine = read[read["variable"] == name]
        best = mine.loc[(mine["estimate"] - mine["control_estimate"]).idxmax()]
        line: dict[str, Any] = {
            "variable": name,
            "read_site": best["site"],
            "read_position": best["position"],
            "accuracy": best["estimate"],
            "accuracy_control": best["control_estimate"],
            "decodable": best["estimate"] - best["control_estimate"] >= ABOVE,
            "n_probes": len(mine),
        }
        tried = written[written["variable"] == name]
        if len(tried):
            tried = tried.assign(gap=tried["estimate"] - tried["control_estimate"])
            top = tried.sort_values(["gap", "estimate"]).iloc[-1]
            line |= {
                "edit_site": top["site"],
                "edit_scope": top["position"],
                "success": top["estimate"],
                "success_control": top["control_estimate"],
                "used": top["estimate"] - top["control_estimate"] >= ABOVE,
            }
        lines.append(line)
    columns = ["variable", "read_site", "read_position", "accuracy", "accuracy_control", "decodable", "n_probes"]
    columns += ["edit_site", "edit_scope", "success", "success_control", "used"]
    return pd.DataFrame(lines, columns=columns)


def _judged_edits(probes: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows of edits along probes of this kind, on pairs enough to be judged."""
    rows: Any = select(probes, metric=Metric.EDIT_SUCCESS, granularity=method)
    return rows[rows["n"] >= ENOUGH_PAIRS]


def edited_where_read(probes: pd.DataFrame, *, method: str = Method.LOGISTIC) -> bool:
    """Whether edits were made at the places that probes read, not at tokens of their own, as in streams."""
    read = set(select(probes, metric=Metric.ACCURACY, method=method)["position"])
    return set(_judged_edits(probes, method)["position"]) <= read


@dataclass(frozen=True)
class Places:
    """For each place (variable, site, position) where a probe and an edit were tried: what passed its controls."""

    frame: pd.DataFrame  # variable, site, position, decodable, used, in_window: bool

    def counts(self) -> tuple[int, int, int, int]:
        """Decodable and used, decodable alone, used alone, neither."""
        read, used = (self.frame[name].to_numpy(bool) for name in ("decodable", "used"))
        return (
            int((read & used).sum()),
            int((read & ~used).sum()),
            int((~read & used).sum()),
            int((~read & ~used).sum()),
        )


def localisation(probes: pd.DataFrame, *, method: str = Method.LOGISTIC) -> Places:
    """Where each variable is decodable, and where it is written and not yet consumed.

    A place counts as decodable, or used, when its score stands `ABOVE` over its strongest control. An edit changes the
    answer only after the variable was written there and before it is consumed: the *window* of a variable at a position
    is made of the layers from the first where an edit is used to the last. In streams, where edits are made at tokens
    of their own, a place is a site: decodable or used at any position.
    """
    whole: Any = probes[probes["stratum"].isna()]
    accuracy = select(whole, metric=Metric.ACCURACY, method=method)
    edits = _judged_edits(probes, method)
    joint = edited_where_read(probes, method=method)
    keys = ["variable", "site", "position"] if joint else ["variable", "site"]

    def passes(rows: pd.DataFrame, controls: tuple[Control, ...]) -> Any:
        joined: Any = with_controls(rows, ["variable", "site", "position", "method"], controls)
        above = joined["estimate"] - joined["control_estimate"] >= ABOVE
        return above.groupby([joined[key] for key in keys]).any()

    both: Any = pd.concat(
        [passes(accuracy, _READ_CONTROLS).rename("decodable"), passes(edits, _WRITE_CONTROLS).rename("used")],
        axis=1,
        join="inner",
    )
    found = both.astype(bool).reset_index()
    if not joint:
        found["position"] = None
    order = {site: i for i, site in enumerate(site_order(found["site"]))}
    depth = found["site"].map(order)
    found["in_window"] = False
    for _, part in found.groupby(["variable", "position"], dropna=False):
        at = depth.loc[part.index]
        acting = at[part["used"]]
        if len(acting):
            found.loc[part.index, "in_window"] = at.between(acting.min(), acting.max()).to_numpy()
    return Places(found[["variable", "site", "position", "decodable", "used", "in_window"]])


def localisation_rows(probes: pd.DataFrame) -> list[dict[str, Any]]:
    """Precision, recall and false-positive rate of "decodable" against the window, for each variable and for all.

    Of the places where both were tried (`localisation`); `n` counts those that the rate is a share of. No row where
    that is none.
    """
    rows: list[dict[str, Any]] = []
    for method in select(probes, metric=Metric.EDIT_SUCCESS)["granularity"].dropna().unique():
        places = localisation(probes, method=method).frame
        for name in [*dict.fromkeys(places["variable"]), None]:
            part = places if name is None else places.loc[places["variable"] == name]
            read, window = (part[column].to_numpy(bool) for column in ("decodable", "in_window"))
            for metric, share, of in (
                (Metric.PRECISION, window, read),
                (Metric.RECALL, read, window),
                (Metric.FALSE_POSITIVE_RATE, read, ~window),
            ):
                if of.any():
                    rows.append(
                        {
                            "variable": name,
                            "method": method,
                            "stratum": WINDOW,
                            "metric": metric,
                            "aggregation": Aggregation.MEAN,
                            "estimate": float(share[of].mean()),
                            "n": int(of.sum()),
                        }
                    )
    return rows


def over_seeds(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Rows of runs that differ in their seed alone, averaged: one row for each that all runs hold.

    `n` counts runs. The interval is Student's t over five or more seeds, and the least and greatest value below that.

    Raises:
        ValueError: fewer than two runs, or two of one seed.
    """
    seeds = [int(frame["seed"].iloc[0]) for frame in frames]
    if len(frames) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"an interval over training seeds needs two or more runs of different seeds, got {seeds}")
    keys = [
        name for name in COLUMNS if name not in (*_OF_ONE_RUN, "estimate", "ci_low", "ci_high", "interval_kind", "n")
    ]
    values: Any = pd.concat(list(frames)).groupby(keys, dropna=False, sort=False)["estimate"]
    found = values.agg(["mean", "min", "max", "std", "size"]).reset_index()
    found = found[found["size"] == len(frames)]
    low, high, kind = found["min"], found["max"], IntervalKind.SEED_RANGE
    if len(frames) >= ENOUGH_SEEDS:
        half = student.ppf(0.975, len(frames) - 1) * found["std"] / np.sqrt(len(frames))
        low, high, kind = found["mean"] - half, found["mean"] + half, IntervalKind.SEEDS
    rows = found[keys].assign(estimate=found["mean"], ci_low=low, ci_high=high, interval_kind=kind, n=len(frames))
    return rows.reindex(columns=list(COLUMNS)).astype(COLUMNS)  # type: ignore[arg-type]


def where_first(probes: pd.DataFrame, swaps: pd.DataFrame | None, *, method: str = Method.LOGISTIC) -> pd.DataFrame:
    """One line a variable: the first layer, and the positions there, at which it is decodable and at which it is used.

    Columns: variable; read_site, read_positions; edit_site, edit_positions (edits along probes); swap_site,
    swap_positions (interchange of whole activations in independent pairs whose answer changes, from the rows of
    `tapelens patch`). Edits and interchange count after the first layer: before it they edit the input. Absent where
    that is nowhere so. A place counts where its score stands `ABOVE` over its strongest control.
    """
    whole: Any = probes[probes["stratum"].isna()]
    accuracy = select(whole, metric=Metric.ACCURACY, method=method)
    edits = _judged_edits(probes, method)
    kinds = [("read", accuracy, _READ_CONTROLS), ("edit", edits[edits["site"] != _INPUT], _WRITE_CONTROLS)]
    if swaps is not None:
        chosen = select(
            swaps, metric=Metric.IIA, method=Method.FULL_VECTOR, pair_design="independent", stratum="changes"
        )
        inside: Any = chosen[chosen["site"] != _INPUT]
        kinds.append(("swap", inside, (*_WRITE_CONTROLS, Control.UNTRAINED_MODEL)))
    lines = {name: {"variable": name} for name in dict.fromkeys(select(accuracy, control=None)["variable"])}
    for kind, rows, controls in kinds:
        if rows.empty:
            continue
        joined: Any = with_controls(rows, ["variable", "site", "position", "method"], controls)
        passing = joined[joined["estimate"] - joined["control_estimate"] >= ABOVE]
        depth = {site: i for i, site in enumerate(site_order(joined["site"]))}
        for name, line in lines.items():
            mine = passing[passing["variable"] == name]
            if len(mine):
                site = min(mine["site"], key=depth.__getitem__)
                here = mine[mine["site"] == site].sort_values("estimate", ascending=False)
                shown = [f"{r.position} ({r.estimate:.2f})" for r in here.head(3).itertuples()]
                more = f" and {len(here) - 3} more" if len(here) > 3 else ""
                line |= {f"{kind}_site": site, f"{kind}_positions": ", ".join(shown) + more}
    columns = ["variable", *(f"{kind}_{what}" for kind in ("read", "edit", "swap") for what in ("site", "positions"))]
    return pd.DataFrame(list(lines.values()), columns=columns)


def formation(
    along: pd.DataFrame, needed_by: Callable[[str], Sequence[str]], *, method: str = Method.LOGISTIC
) -> pd.DataFrame:
    """One line a variable: when it becomes decodable, and when the behaviour that needs it appears.

    Columns: variable; decodable: the first kept step from which on the best place stands `ABOVE` over majority class
    and embedding; best: the first step whose best accuracy is within .05 of the greatest; needed_by: the strata whose
    answer hangs on it, of those that were judged; behaviour: the first step from which on all of them have exact match
    of .9. NaN for never.

    needed_by: the strata whose answer hangs on a variable, `World.needed_by`.
    """
    whole: Any = along[along["stratum"].isna()]
    accuracy = select(whole, metric=Metric.ACCURACY, method=method)
    keys = ["checkpoint_step", "site", "position", "variable"]
    joined: Any = with_controls(accuracy, keys, (Control.MAJORITY_CLASS, Control.EMBEDDING_ONLY))
    joined = joined.assign(gap=joined["estimate"] - joined["control_estimate"])
    exact: Any = select(along, metric=Metric.EXACT_MATCH)
    by_op = exact[exact["op"].notna()].pivot_table(index="checkpoint_step", columns="op", values="estimate")
    lines = []
    for name, part in joined.groupby("variable", sort=False):
        best = part.groupby("checkpoint_step")[["gap", "estimate"]].max()
        ops = [op for op in needed_by(str(name)) if op in by_op]
        right = (by_op[ops] >= 0.9).all(axis=1) if ops else pd.Series(dtype=bool)
        lines.append(
            {
                "variable": name,
                "decodable": _from_then_on(best["gap"] >= ABOVE),
                "best": _from_then_on(best["estimate"] >= best["estimate"].max() - 0.05),
                "needed_by": ", ".join(ops) or "–",
                "behaviour": _from_then_on(right),
            }
        )
    return pd.DataFrame(lines, columns=["variable", "decodable", "best", "needed_by", "behaviour"])


def _from_then_on(holds: pd.Series) -> float:
    """The first index from which on it holds to the end; NaN where the last does not."""
    lasting: Any = holds.astype(bool).iloc[::-1].cummin().iloc[::-1]
    return float(lasting.index[lasting][0]) if lasting.any() else float("nan")
