"""A section of docs/calibration.md: two hand-set networks for strings, neither of them a transformer."""

from __future__ import annotations

import pandas as pd

from interp.calibration.settings import CalibrationSettings
from interp.calibration.strings import STRING_NETWORKS, N
from interp.calibration.summary import mean, short
from interp.pages.markdown import table
from interp.results import Control, Method, Metric, select

_PLACES = {"rival": "the embedding", "own": "the last layer"}


def string_networks(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    """Empty where nothing was measured."""
    rows = select(frame, granularity="string")
    if rows.empty:
        return ""
    names = list(dict.fromkeys(rows["run"]))
    lines, read, used = [], [], []
    for name in names:
        for stratum, place in _PLACES.items():
            of = select(rows, run=name, stratum=stratum)
            probe = [mean(of, method=Method.LOGISTIC, control=each) for each in (None, Control.MAJORITY_CLASS)]
            whole = [mean(of, method=Method.FULL_VECTOR, control=each) for each in (None, Control.UNPATCHED)]
            true = [mean(of, method=Method.TRUE_SUBSPACE, control=each) for each in (None, Control.RANDOM_SUBSPACE)]
            lines.append([f"`{name}`", place, *map(short, (*probe, *whole, *true))])
            if stratum == "own":
                read.append(f"{short(probe[0])} in `{name}`")
                used.append(true[0] or 0.0)
    described = "; ".join(f"`{name}`: {STRING_NETWORKS[name]}" for name in names)
    n = int(min(select(rows, metric=Metric.IIA)["n"].tolist()))
    return (
        f"## Strings: two mechanisms that are no transformer\n\nBoth solve `sticky` N = {N} exactly, with weights "
        f"written from the rule. {described}. Asked for is how long the class of the last character has lasted "
        "(“run”): by a probe, and by interchange at the character after which base and source agree in the class and "
        f"differ in what may follow (IIA, {n} pairs). “True” are the dimensions that the weights write for whether the "
        "class may be left.\n\n"
        + table(["network", "where", "probe", "commonest run", "whole vector", "left alone", "true", "random"], lines)
        + f"\n\nInterchange says the same of both networks: nothing at the embedding, and {min(used):.2f} of answers "
        "by the three dimensions that matter. The probe does not: it reads the run right in a share of "
        f"{', '.join(read)}, since one network counts and the other only notices that the run is long enough. What a "
        "probe reads is what a network keeps, not what it uses."
    )
