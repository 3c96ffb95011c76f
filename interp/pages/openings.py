"""How a page made from rows opens: a few sentences that a person would say, and one picture; tables follow.

Each sentence is put together from the rows that the page's tables show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from interp.pages.card_page import rows_of
from interp.results import Aggregation, Method, Metric, records, select
from interp.runs.circuit_files import Circuit
from interp.studies.read_and_written import read_and_written

ALWAYS, NEVER = 0.9, 0.1  # shares that count as nearly always and as hardly ever


def circuits_opening(
    circuits: Sequence[Circuit], summary: Mapping[str, Any], frame: pd.DataFrame, swaps: pd.DataFrame | None
) -> str:
    """Of one run: how small circuits are, what they hang on, what they share, where variables are kept, what is open.

    Args:
        circuits: of the world's strata.
        summary: the run's summary of them.
        frame: its rows of circuits.
        swaps: its rows of interchange; None where none were measured.
    """
    sizes, total = [sum(edge.in_circuit for edge in each.edges) for each in circuits], len(circuits[0].edges)
    points = [next(p for p in each.faithfulness if p.n_edges == each.size) for each in circuits]
    nulls = [point.null_mean for point in points if point.null_mean is not None]
    said = [
        f"To run an instruction the model needs {min(sizes)} to {max(sizes)} of its {total} edges: these alone keep "
        f"{min(point.estimate for point in points):.0%} or more of what the whole model does"
        + (f", as many random ones {max(nulls):.0%} at most." if nulls else ".")
    ]
    neediest = Counter(
        min((node for node in each.nodes if node.kind in ("head", "mlp")), key=lambda node: node.effect or 0.0).id
        for each in circuits
    )
    node, n = neediest.most_common(1)[0]
    said.append(f"What costs most to take away is the same part, `{node}`, for {n} of {len(circuits)} instructions.")
    if shared := summary.get("shared", {}).get("edges"):
        alone = [len(each["edges"]) for each in summary.get("own", {}).values()]
        said.append(
            f"Most of the machinery is common: {len(shared)} edges are in all {len(circuits)} circuits, and "
            f"{max(alone, default=0)} at most are in one circuit alone."
        )
    if swaps is not None and (best := _best_swaps(swaps)):
        kept = [name for name, iia in best.items() if iia >= ALWAYS]
        nowhere = [name for name, iia in best.items() if iia <= NEVER]
        said.append(
            f"Of {len(best)} variables of the world {len(kept)} have a place in the stream that moves them nearly "
            f"always ({_names(kept)}); {len(nowhere)} have none that moves them in more than one of ten pairs "
            f"({_names(nowhere)})."
        )
    holes = [row["estimate"] for row in records(select(frame, metric=Metric.COMPLETENESS)) if row["control"] is None]
    if holes:
        said.append(
            "That a circuit is enough does not make it all that the model uses: with parts taken out of both, circuit "
            f"and model come apart by up to {max(holes):.2f} of the answer."
        )
    return " ".join(said)


def _best_swaps(swaps: pd.DataFrame) -> dict[str, float]:
    """The greatest IIA of each variable after a layer, at less than all positions, pooled over strata."""
    rows = select(swaps, metric=Metric.IIA, stratum="changes", method=Method.FULL_VECTOR, control=None, op=None)
    found: dict[str, float] = {}
    for row in records(rows):
        if "&" not in row["variable"] and row["position"] != "all" and str(row["site"]).endswith("hook_resid_post"):
            found[row["variable"]] = max(found.get(row["variable"], 0.0), row["estimate"])
    return found


def probing_opening(frames: Mapping[str, pd.DataFrame]) -> str:
    """Of several runs, by name: what can be read, what of it is used, and what is used without being readable."""
    said = [
        "A linear probe reads some of what a program computes out of the model's activations, and not all of what can "
        "be read is used."
    ]
    for name, frame in list(frames.items())[:3]:
        lines = read_and_written(frame)
        decodable = [each for each, yes in zip(lines["variable"], lines["decodable"], strict=True) if yes]
        judged = lines[lines["used"].notna()]
        used = [each for each, yes in zip(judged["variable"], judged["used"], strict=True) if yes]
        both = [each for each in used if each in decodable]
        said.append(
            f"In `{name}` {len(decodable)} of {len(lines)} variables can be read beyond every control "
            f"({_names(decodable)})"
            + (f"; of {len(judged)} that were written into, {len(used)} move the answer, {len(both)} of them readable."
               if len(judged) else ".")
        )  # fmt: skip
    said.append("Best places are maxima over many, on the same held-out data: a single best score flatters itself.")
    return " ".join(said)


def models_opening(cards: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """Of cards by name: which are right nearly always, which is worst, and what is left wrong."""
    open_ended = [name for name, card in cards if any(row["metric"] == Metric.BITS for row in card["rows"])]
    scores = {
        name: rows_of(card, Metric.EXACT_MATCH, Aggregation.MACRO)[0]["estimate"]
        for name, card in cards
        if name not in open_ended or len(open_ended) == len(cards)
    }
    sizes = [card["parameters"] for _, card in cards]
    best, worst = max(scores, key=lambda name: scores[name]), min(scores, key=lambda name: scores[name])
    tasks = dict(cards)
    good = [name for name, score in scores.items() if score >= 0.999]
    aside = f"; of text ({_names(open_ended)}) no answer is the right one, so it is left out" if open_ended else ""
    said = [
        f"{len(cards)} trained models come with the project, of {min(sizes):,} to {max(sizes):,} parameters.",
        f"{len(good)} of them are right in 999 of 1,000 answers or more, every stratum of the world counted once.",
        f"The best is `{best}` ({percent_of(scores[best])}), on the task `{tasks[best]['config']['task']}`.",
        f"The worst is `{worst}` ({percent_of(scores[worst])}), on the task `{tasks[worst]['config']['task']}`{aside}.",
        "Everything is measured on units that no training saw; each run's card lists the answers that are wrong.",
    ]
    return " ".join(said)


def lengths_opening(hardest: str, exact: Mapping[str, float], trained: Mapping[str, float], copied: float) -> str:
    """Of positional schemes: what they get right where they were trained, and on the longest machine.

    Args:
        hardest: the longest machine's name.
        exact: exact match there, by scheme.
        trained: the same on the machine of training.
        copied: what copying the input gets there.
    """
    best, better = max(exact, key=lambda name: exact[name]), sum(value > copied for value in exact.values())
    low, high = min(trained.values()), max(trained.values())
    return (
        f"Trained on a small machine, {len(trained)} positional schemes get {low:.0%} to {high:.0%} of its states "
        f"right. On a machine that is longer in every way ({hardest}) the best, `{best}`, is left with "
        f"{exact[best]:.1%}. "
        f"Copying the input, which is right wherever the machine stands still, gets {copied:.1%} there. "
        f"{better} of {len(exact)} schemes do better than copying. One training a scheme: another could come out "
        "otherwise."
    )


def calibration_opening(facts: Mapping[str, float]) -> str:
    """Of methods held against hand-set models: what each finds there, and what it says too much.

    Args:
        facts: shares from 0 to 1 and AUROCs; those that were not measured are absent, and with them their sentence.
    """
    said = ["Every method was run on models whose weights were written and not trained, so that it can be checked."]
    sentences = (
        "A logistic probe calls a variable readable at {recall:.0%} of the places where it is in use and at "
        "{false:.0%} of the others; asking that an edit along the probe works as well leaves {edit_recall:.0%} and "
        "{edit_false:.0%}.",
        "Swapped inside its true subspace a variable moves the answer as the machine says in {true:.0%} of pairs, "
        "inside random subspaces in {random:.1%}, and as whole vectors at the same places in {whole:.0%}.",
        "Exact patching tells true edges from others (AUROC {exact:.3f}); EAP-IG has {eap_ig:.3f} and EAP {eap:.3f}, "
        "which is {saturated:.3f} where attention is saturated.",
    )
    for sentence in sentences:
        try:
            said.append(sentence.format(**facts))
        except KeyError:
            continue
    said.append("So an edit or a swap that works is evidence, and a probe's score alone is not.")
    return " ".join(said)


def percent_of(share: float) -> str:
    """ "99.98 %"; 100 % only where nothing is wrong."""
    return "100 %" if share == 1 else f"{min(share, 0.9999):.2%}".replace("%", " %")


def _names(names: Sequence[str]) -> str:
    shown = [f"`{name}`" for name in names[:4]]
    return (", ".join(shown) or "none") + (" …" if len(names) > 4 else "")
