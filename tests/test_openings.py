"""Pages whose rows are not kept here open with what their own tables say."""

from __future__ import annotations

import itertools
from pathlib import Path

from interp.pages.openings import calibration_opening

DOCS = Path(__file__).resolve().parents[1] / "docs"


def cells(text: str, heading: str) -> list[list[str]]:
    """The lines of the first table behind a heading."""
    lines = text.partition(heading)[2].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]


def facts_of(text: str) -> dict[str, float]:
    """What the tables of the page of calibration say of what it opens with."""
    probe = next(line for line in cells(text, "## Probes") if line[:2] == ["logistic probe", "distracted"])
    swap = next(line for line in cells(text, "## Interchange") if line[0] == "rotated")
    scores = {(line[1], line[2]): float(line[3]) for line in cells(text, "## Attribution")[2:] if line[0] == "edge"}
    recall, false = (float(each) for each in probe[2].split(" / "))
    edit_recall, edit_false = (float(each) for each in probe[-1].split(" / "))
    return {
        "recall": recall, "false": false, "edit_recall": edit_recall, "edit_false": edit_false,
        "true": float(swap[1]), "random": float(swap[2]), "whole": float(swap[5]),
        "exact": scores["exact patching", "rotated"], "eap_ig": scores["EAP-IG (5 steps)", "rotated"],
        "eap": scores["EAP", "rotated"], "saturated": scores["EAP", "saturated"],
    }  # fmt: skip


def test_the_page_of_calibration_opens_with_what_its_tables_show() -> None:
    text = (DOCS / "calibration.md").read_text()
    opening = calibration_opening(facts_of(text))
    assert opening in text.partition("Written by")[0] and opening.count(". ") == 4
    assert text.index("(calibration.svg)") < text.index("Written by") and text.count("(calibration.svg)") == 1


def test_what_was_not_measured_is_not_said() -> None:
    opening = calibration_opening({"true": 1.0, "random": 0.001, "whole": 0.32})
    assert "in 100% of pairs" in opening and "probe calls" not in opening and "AUROC" not in opening
