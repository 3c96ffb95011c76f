"""What probing and editing say together, from rows alone: which variables are decodable, which are used."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp.results import Control, Method, Metric, select

ABOVE = 0.1  # how far a score must stand above its strongest control, to be worth a word
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
    edits: Any = select(whole, metric=Metric.EDIT_SUCCESS, granularity=method)
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
            top = tried.loc[(tried["estimate"] - tried["control_estimate"]).idxmax()]
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


def localisation(probes: pd.DataFrame, *, method: str = Method.LOGISTIC) -> tuple[int, int, int, int]:
    """Of the places (variable, site) where edits were tried: decodable and used, decodable alone, used alone, neither.

    A place counts as decodable, or used, when its score stands `ABOVE` over its strongest control.
    """
    keys = ["site", "variable"]
    whole: Any = probes[probes["stratum"].isna()]
    accuracy = select(whole, metric=Metric.ACCURACY, method=method)
    edits = select(probes, metric=Metric.EDIT_SUCCESS, granularity=method)

    def places(rows: pd.DataFrame, controls: tuple[Control, ...], more: list[str]) -> Any:
        joined: Any = with_controls(rows, keys + more, controls)
        passes = joined["estimate"] - joined["control_estimate"] >= ABOVE
        return passes.groupby([joined[key] for key in keys]).any()

    read, written = (
        places(accuracy, _READ_CONTROLS, ["position"]),
        places(edits, _WRITE_CONTROLS, ["position", "method"]),
    )
    both: Any = pd.concat([read.rename("read"), written.rename("written")], axis=1, join="inner").astype(bool)
    r, w = both["read"], both["written"]
    return int((r & w).sum()), int((r & ~w).sum()), int((~r & w).sum()), int((~r & ~w).sum())
