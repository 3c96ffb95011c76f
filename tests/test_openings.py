"""Pages whose rows are not kept here open with what their own tables say."""

from __future__ import annotations

import itertools
from pathlib import Path

from interp.pages.lengths_drawing import lengths_drawing
from interp.pages.openings import calibration_opening, lengths_opening

DOCS = Path(__file__).resolve().parents[1] / "docs"


def cells(text: str, heading: str) -> list[list[str]]:
    """The lines of the first table behind a heading."""
    lines = text.partition(heading)[2].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[first:])
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]


def test_the_page_of_lengths_opens_with_what_its_table_shows() -> None:
    text = (DOCS / "length_generalisation.md").read_text()
    (_, *tests), _, *lines = cells(text, "## Exact match")
    exact = {
        ("copy" if scheme.startswith("copying") else scheme, test): float(value) / 100
        for scheme, *values in lines
        for test, value in zip(tests, values, strict=True)
    }
    schemes = list(dict.fromkeys(scheme for scheme, _ in exact))
    first, last = ({name: exact[name, test] for name in schemes[:-1]} for test in (tests[0], tests[-1]))
    assert lengths_opening(tests[-1], last, first, exact["copy", tests[-1]]) in text.partition("Written by")[0]
    assert (DOCS / "length_generalisation.svg").read_text() == lengths_drawing(exact, schemes, tests)
    assert "![Exact match by scheme and machine](length_generalisation.svg)" in text


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
