"""The part of a comparison that is about other seeds: does what was found of a family hold in each of its models?"""

from __future__ import annotations

import math

import pandas as pd

from interp.pages.markdown import table
from interp.studies.again import Again, again, shared_circuits

_WORDS = {"relative": "by distance", "absolute": "by place", "both": "both", "neither": "neither"}


def seed_sentences(frame: pd.DataFrame) -> list[str]:
    """What was found, for a person."""
    found = again(frame)
    told = [_spread(found), _alike(found)]
    circuits = shared_circuits(frame)
    if circuits:
        values = [value for each in circuits for value in each.jaccard]
        same = sum(value == 1 for value in values)
        first = f"{same} of {len(values)} times two seeds find" if same else "No two seeds find"
        more = sum(each.above for each in circuits)
        told.append(
            f"{first} the same circuit of an instruction: theirs share {100 * min(values):.0f} to "
            f"{100 * max(values):.0f} % of their edges (heads matched by where they look), in "
            f"{more} of {len(values)} comparisons more than with heads matched at random."
        )
    return [said for said in told if said]


def _spread(found: list[Again]) -> str:
    """By how much seeds differ, against by how much families do."""
    within = max(max(each.exact) - min(each.exact) for each in found)
    between = max(sum(each.exact) / len(each.exact) for each in found) - min(
        sum(each.exact) / len(each.exact) for each in found
    )
    n = max(len(each.seeds) for each in found)
    return (
        f"Trained from {n} seeds, models of one family differ by up to {100 * within:.2f} points, families (their "
        f"means) by {100 * between:.2f}."
    )


def _alike(found: list[Again]) -> str:
    """Which families keep cells in one way, whatever the seed."""
    some = [each for each in found if len(each.verdicts) == len(each.seeds) > 1]
    if not some:
        return ""
    same = [each for each in some if len(set(each.verdicts)) == 1]
    rest = [f"`{each.run}`" for each in some if each not in same]
    if not rest:
        return f"How cells are kept is the same for each seed in all {len(some)} families."
    return (
        f"How cells are kept is the same for each seed in {len(same)} of {len(some)} families; it changes with the "
        f"seed in {', '.join(rest)}."
    )


def seed_sections(frame: pd.DataFrame) -> list[str]:
    """The tables behind the sentences, in Markdown."""
    found = again(frame)
    lengths = [name for name in found[0].kept[0].longer if all(name in k.longer for each in found for k in each.kept)]
    lines = []
    for each in found:
        far = [f"{100 * kept.longer[lengths[-1]]:.1f}" for kept in each.kept] if lengths else []
        ways = [_WORDS[word] for word in each.verdicts]
        lines.append(
            [
                each.run,
                ", ".join(map(str, each.seeds)),
                ", ".join(f"{math.floor(1e4 * value) / 100:.2f}" for value in each.exact),
                ", ".join(far) or "–",
                ", ".join(f"{kept.relative[0]:.2f}" for kept in each.kept if kept.relative) or "–",
                ", ".join(f"{kept.absolute[0]:.2f}" for kept in each.kept if kept.absolute) or "–",
                ways[0] if len(set(ways)) == 1 else ", ".join(ways) or "–",
            ]
        )
    head = ("", "seeds", "exact match, %", f"at {lengths[-1]}, %" if lengths else "longer", "by distance", "by place")
    parts = [
        "## Does it hold from seed to seed?",
        "Values of the seeds in their order; all else, optimizer and rate included, is that of the first. *By "
        "distance* and *by place* as above.",
        table((*head, "kept"), lines),
    ]
    circuits = shared_circuits(frame)
    if circuits:
        parts += [
            "Edges that the circuits of two seeds share (Jaccard, heads matched by where they look), each two seeds; "
            "*at random*: the highest that heads matched at random within layers give in 97.5 % of draws.",
            table(
                ("", "shared by two seeds", "at random"),
                [
                    [c.op, *(", ".join(f"{value:.2f}" for value in some) for some in (c.jaccard, c.null))]
                    for c in circuits
                ],
            ),
        ]
    return parts
