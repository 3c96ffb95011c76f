"""What was measured about circuits, on disk: `circuits/KIND/NAME.json`, one file a measurement.

A file holds rows of the tidy frame and what does not fit into rows. It counts as there when it was measured on the same
weights (the config's digest and the training step) with the same settings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.files import write_json
from interp.reading import check_provenance, read_json, reading

FORMAT = 1


@dataclass(frozen=True)
class Finding:
    """One measurement."""

    kind: str  # "dissociation", "evidence", …
    name: str  # of an instruction, or of what else it is one of
    rows: list[dict[str, Any]]
    detail: dict[str, Any]
    provenance: dict[str, Any]


def finding_path(folder: Path, kind: str, name: str) -> Path:
    """Where a finding of the run folder lies."""
    return folder / "circuits" / kind / f"{name}.json"


def write_finding(
    folder: Path,
    kind: str,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    detail: Mapping[str, Any],
    *,
    provenance: Mapping[str, Any],
) -> None:
    """Write a finding, whole or not at all."""
    values = {"format": FORMAT, "provenance": dict(provenance), "rows": list(rows), "detail": dict(detail)}
    write_json(finding_path(folder, kind, name), values, indent=None)  # long lists of numbers


def read_finding(folder: Path, kind: str, name: str) -> Finding | None:
    """The finding, or None where there is none.

    Raises:
        BrokenFileError: it is broken or of another version; the message names it.
    """
    path = finding_path(folder, kind, name)
    try:
        values = read_json(path, "a whole finding")
    except FileNotFoundError:
        return None
    with reading(path, "a whole finding"):
        found = values["format"]
        if found != FORMAT:
            raise ValueError(f"format {found!r:.60}, this version reads {FORMAT}")
        check_provenance(values["provenance"])
        rows = [dict(row) for row in values["rows"]]
        return Finding(kind, name, rows, dict(values["detail"]), dict(values["provenance"]))


def current_finding(folder: Path, kind: str, name: str, *, provenance: Mapping[str, Any]) -> Finding | None:
    """The finding if it was measured on these weights with these settings; a broken one counts as absent."""
    try:
        found = read_finding(folder, kind, name)
    except ValueError:
        return None
    wanted = json.loads(json.dumps(dict(provenance)))
    same = found is not None and all(found.provenance.get(key) == wanted.get(key) for key in _MATCH)
    return found if same else None


_MATCH = ("digest", "step", "settings")


def findings(folder: Path, kind: str, *, digest: str, step: int) -> list[Finding]:
    """All findings of a kind on these weights, by name; broken ones are left out."""
    found = []
    for path in sorted((folder / "circuits" / kind).glob("*.json")):
        try:
            each = read_finding(folder, kind, path.stem)
        except ValueError:
            continue
        if each is not None and each.provenance.get("digest") == digest and each.provenance.get("step") == step:
            found.append(each)
    return found
