"""The part of a comparison that is about where a value comes from: right after it was overwritten, read from where?"""

from __future__ import annotations

from collections.abc import Mapping

from interp.pages.markdown import table
from interp.studies.source_tables import Sources
from interp.tasks.value_sources import HISTORIES, OVERWRITTEN, READ_IN

_NONE = "–"


def source_sentence(found: Mapping[str, Sources]) -> str:
    """What was found, for a person; "" where nothing was measured."""
    both = {name: each for name, each in found.items() if {READ_IN, OVERWRITTEN} <= set(each.right)}
    if not both:
        return ""
    worse = [f"`{name}`" for name, each in both.items() if each.right[OVERWRITTEN][2] < each.right[READ_IN][1]]
    shares = [each.right[OVERWRITTEN][0] for each in both.values()]
    told = (
        "A cell that GET overwrites is no harder than one that it sets for the first time for "
        + ("any of them" if not worse else f"all but {', '.join(worse)}")
        + f" ({100 * min(shares):.1f} to {100 * max(shares):.1f} % right)"
    )
    heads = {name: each for name, each in both.items() if each.head is not None}
    if not heads:
        return f"{told}."
    name, each = max(heads.items(), key=lambda pair: pair[1].head.made)  # type: ignore[union-attr]
    assert each.head is not None
    return (
        f"{told}; where a value is asked for, the head that reads most of what made it is in `{name}`, "
        f"{100 * each.head.made:.0f} % of its weight where {100 * each.even['made']:.0f} % of the tokens are."
    )


def source_sections(found: Mapping[str, Sources]) -> list[str]:
    """The tables behind the sentence, in Markdown."""
    if not found:
        return []
    first = next(iter(found.values()))
    histories = [name for name in HISTORIES if name in first.right]
    head = ("", *(f"{name}, %" for name in histories))
    lines = [
        [name, *(f"{100 * each.right[h][0]:.1f} ({each.n[h]:,})" if h in each.right else _NONE for h in histories)]
        for name, each in found.items()
    ]
    parts = [
        "## Where does a value come from?",
        "What PUT prints, right, by how the cell came by its value, where nothing has told it since it changed "
        "(answers). A memory that adds without forgetting must lose where GET overwrites: that was predicted of linear "
        "attention without decay, and of none that replaces or forgets.",
        table(head, lines),
    ]
    heads = {name: each for name, each in found.items() if each.head is not None}
    if heads:
        even = next(iter(heads.values())).even
        lines = [
            [
                name,
                f"`{each.head.site}`",
                f"{100 * each.head.made:.0f}",
                _NONE if each.head.overwritten is None else f"{100 * each.head.overwritten:.0f}",
            ]
            for name, each in heads.items()
            if each.head is not None
        ]
        lines.append(["tokens themselves", "", f"{100 * even['made']:.0f}", f"{100 * even['overwritten']:.0f}"])
        parts += [
            "Of each model the head that reads most of what made the value, at the token that asks for it: the share "
            "of its attention there, and on what GET has overwritten since. Where heads hold a matrix it is their "
            "effective attention, exact of the values written and yet a heuristic: weights of either sign, taken by "
            "magnitude, say where a value comes from and not that it is used.",
            table(("", "head", "on what made it, %", "on what was overwritten, %"), lines),
        ]
    return parts
