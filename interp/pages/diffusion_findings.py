"""What was found of models that fill in or denoise, in sentences made from rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from interp.pages.diffusion_rows import (
    ORDERS,
    by_time,
    exact_matches,
    fetching_places,
    mean_over_passes,
    order_ranks,
    unswapped,
    way,
)
from interp.results import Metric, records, select


def findings(name: str, frame: pd.DataFrame) -> list[str]:
    """What was found of a run, in sentences."""
    return [
        *_of_order(name, frame),
        *_of_edits(frame),
        *_of_places(name, frame),
        *_of_carry(name, frame),
        *_of_confidence(frame),
        *_of_embeddings(frame),
    ]


def _of_order(name: str, frame: pd.DataFrame) -> Iterator[str]:
    """In which order slots are decided, and what other orders break."""
    if orders := order_ranks(frame):
        yield (
            f"`{name}` fills in slots in the order of what it was sure of at the start: the pass that decides a slot "
            f"has a rank correlation of {orders['own difficulty']:.2f} with its confidence from full mask, and, that "
            f"held fixed, of {orders['causal depth, difficulty fixed']:.2f} with the machine's causal order "
            f"({orders['causal depth']:.2f} without)."
        )
        exact = exact_matches(frame)
        forced = [row for row in exact if row["method"] not in ("denoise_once", "denoise_confidence")]
        worst = min(forced, key=lambda row: row["estimate"])
        free = next(row for row in exact if row["method"] == "denoise_confidence")
        once = next(row for row in exact if row["method"] == "denoise_once")
        other = (
            "forced into any other order in as many"
            if all(row["estimate"] == free["estimate"] for row in forced)
            else f"forced {ORDERS[worst['method']]}, the worst, in {100 * worst['estimate']:.2f} %"
        )
        yield (
            f"In {int(free['time'])} passes of its own order it is right in {100 * free['estimate']:.2f} %, {other}, "
            f"in one pass in {100 * once['estimate']:.2f} %."
        )


def _of_edits(frame: pd.DataFrame) -> Iterator[str]:
    """What a slot or an activation that is changed between passes changes."""
    edits = by_time(frame, Metric.SIDE_ACCURACY, "one decided slot")
    if edits:
        mended = by_time(frame, Metric.RETURN, "one decided slot")
        yield (
            f"Set one decided slot to another token between two passes, and the other slots stay as they were in "
            f"{100 * mean_over_passes(edits):.0f} % of answers; asked again, the model puts the slot right in "
            f"{100 * mean_over_passes(mended):.0f} %."
        )
    if moved := _moved_first(frame):
        yield (moved)


def _of_places(name: str, frame: pd.DataFrame) -> Iterator[str]:
    """Where the instruction is fetched."""
    if places := fetching_places(frame):
        own = next(each for each in places if "own slot" in each[0])
        other = next(each for each in places if "all blocks but" in each[0])
        across = max((each for each in places if each[0].startswith("cross")), key=lambda each: each[1])
        plain = unswapped(frame)[0]["estimate"]
        yield (
            f"`{name}`: of what another instruction should change, {100 * own[1]:.0f} % changes when the encoder's "
            f"output at the instruction's own slot is swapped, {100 * other[1]:.0f} % when all other blocks' are, and "
            f"{100 * across[1]:.0f} % when what {across[0].replace(', decoder', ' of decoder')} brings across is; with "
            f"nothing swapped it is {100 * plain:.0f} %, since the right answer's own tokens tell."
        )


def _of_carry(name: str, frame: pd.DataFrame) -> Iterator[str]:
    """Whether the answer returns when what goes from pass to pass is exchanged."""
    if (both := by_time(frame, Metric.RETURN, "both")) and (source := by_time(frame, Metric.IIA, "both")):
        first, last = min(both), max(both)
        yield (
            f"`{name}`: with another example's sample and prediction put in before pass {first} of {last} and the "
            f"prompt kept, the answer is base's own again in {100 * both[first]:.0f} % and the other's in "
            f"{100 * source[first]:.0f} %; before the last pass, in {100 * both[last]:.0f} % and "
            f"{100 * source[last]:.0f} %."
        )
        once = next(row for row in exact_matches(frame) if row["method"] == "denoise_once")
        best = max(exact_matches(frame), key=lambda row: row["estimate"])
        apart = "outside" if best["ci_low"] > once["estimate"] else "inside"
        yield (
            f"It is right in {100 * once['estimate']:.1f} % after one pass and in {100 * best['estimate']:.1f} % at "
            f"its best, after {int(best['time'])} by {way(best['method'])}: {apart} that row's 95 % interval."
        )


def _of_confidence(frame: pd.DataFrame) -> Iterator[str]:
    """Whether the sampler knows where it errs."""
    errors = select(frame, metric=Metric.CALIBRATION_ERROR, position=None)
    if len(errors):
        once, last = records(errors)[0], records(errors)[-1]
        yield (
            f"Its confidence in a slot is off by {100 * once['estimate']:.3f} points on average after one pass and by "
            f"{100 * last['estimate']:.3f} after {int(last['time'])} (expected calibration error){_unsure(frame)}."
        )


def _of_embeddings(frame: pd.DataFrame) -> Iterator[str]:
    """Whether embeddings have collapsed."""
    if len(cosines := select(frame, metric=Metric.COSINE)):
        highest = cosines.loc[cosines["estimate"].idxmax()]
        yield (
            f"No two of its embeddings have come together: the nearest, of {highest['part']} and "
            f"{highest['position']}, have a cosine of {highest['estimate']:.2f}{_neighbours(cosines)}."
        )


def _moved_first(frame: pd.DataFrame) -> str:
    """Of interchange at single passes: what moves when source's activations are in all of them."""
    rows = records(select(frame, pair_design="independent", stratum="changes", metric=Metric.EFFECT_ACCURACY))
    whole = [row for row in rows if row["time"] is None and row["control"] is None and not row["part"]]
    if not whole:
        return ""
    told = []
    for before, words in ((True, "before the first layer"), (False, "after a layer")):
        some = [row for row in whole if str(row["site"]).endswith("hook_resid_pre") == before]
        if some:
            sites = ", ".join(dict.fromkeys(f"`{row['site']}`" for row in some))
            shares = [f"{100 * row['estimate']:.0f} % of what `{row['variable']}` should change" for row in some]
            told.append(f"{words} ({sites}) it changes {_and(shares)}")
    return f"Of source's activation at a variable's place, exchanged in all passes: {'; '.join(told)}."


def _unsure(frame: pd.DataFrame) -> str:
    """How often slots are right that are given with a confidence from .9 to .995, after one pass and after all."""
    shares = []
    for time in sorted(int(t) for t in select(frame, metric=Metric.RELIABILITY)["time"].unique()):
        rows = records(select(frame, metric=Metric.RELIABILITY, time=time))
        some = [row for row in rows if row["stratum"] in ("0.9 to 0.95", "0.95 to 0.99", "0.99 to 0.995")]
        n = sum(row["n"] for row in some)
        shares.append((time, sum(row["estimate"] * row["n"] for row in some), n))
    if len(shares) < 2 or min(n for _, _, n in shares) < 10:
        return ""
    told = [f"{right:.0f} of {n} after {time}" for time, right, n in shares]
    return f"; of slots given with .9 to .995, right are {_and(told)}"


def _neighbours(cosines: pd.DataFrame) -> str:
    """Whether embeddings of numbers that follow each other are nearer than those of other numbers."""
    near, far = [], []
    for a, b, value in zip(cosines["position"], cosines["part"], cosines["estimate"], strict=True):
        first, second = (str(each).removeprefix("NUM_") for each in (a, b))
        if first.isdigit() and second.isdigit() and "NUM_" in str(a) and "NUM_" in str(b):
            (near if abs(int(first) - int(second)) == 1 else far).append(float(value))
    if not near or not far:
        return ""
    return (
        f"; numbers that follow each other have {sum(near) / len(near):.2f} on average, other pairs of numbers "
        f"{sum(far) / len(far):.2f}"
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
