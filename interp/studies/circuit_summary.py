"""circuits/summary.json: a run's circuits in sentences, with what they share and what is their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.circuits.overlap import Sharing
from interp.files import write_json
from interp.reading import BrokenFileError, check_provenance, read_json, reading
from interp.runs import Run
from interp.runs.circuit_files import Circuit
from interp.studies.explain import explain

SUMMARY = "summary.json"


def write_summary(
    run: Run,
    circuits: Sequence[Circuit],
    shared: Sharing | None,
    *,
    roles: Mapping[str, Any],
    dissociations: Mapping[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write the summary of these circuits.

    Args:
        run: whose folder it is written into.
        circuits: one a contrast.
        shared: what they have in common; None where there is one alone.
        roles: of heads, by the contrast's name.
        dissociations: details by LEVEL.ABLATION; of neurons under resample ablation where that was measured.
        provenance: what the file says of itself.
    """
    chosen = next((dissociations[name] for name in ("neuron.resample", *dissociations) if name in dissociations), None)
    sentences = {
        circuit.op: explain(circuit, roles=roles[circuit.op], shared=shared, dissociation=chosen)
        for circuit in circuits
    }
    summary: dict[str, Any] = {"provenance": provenance, "sentences": sentences}
    if shared is not None:
        summary["shared"] = {"edges": shared.shared(), "nodes": shared.shared("nodes")}
        summary["own"] = {op: {kind: shared.own(op, kind) for kind in ("edges", "nodes")} for op in shared.ops}
    write_json(run.path / "circuits" / SUMMARY, summary)


def summary_of(run: Run) -> dict[str, Any]:
    """What `circuits/summary.json` says: sentences by instruction, shared and own edges and nodes; {} without one."""
    try:
        path = run.path / "circuits" / SUMMARY
        found = read_json(path, "a summary of circuits")
        with reading(path, "a summary of circuits"):
            check_provenance(found["provenance"])
            found["sentences"] = {str(op): str(sentence) for op, sentence in found["sentences"].items()}
        return found
    except (FileNotFoundError, BrokenFileError):
        return {"sentences": {}}
