"""One entry a method: how it is held against a model whose mechanism is known.

An entry takes (model, answer key, task, settings, report) and gives rows of the tidy frame; `report` is called with the
share done. It calls the functions that trained models are measured with. A method that joins the project joins this
table with one entry here, or says in `EXEMPT` why it makes no claim that a mechanism could refute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from interp.calibration import criteria, edges, interchange, probes, roles
from interp.calibration.settings import CalibrationSettings
from interp.calibration.states import state_calibration
from interp.calibration.strings import STRING_NETWORKS, string_calibration
from interp.calibration.subjects import SETTINGS, TAPES
from interp.results import Method

Rows = list[dict[str, Any]]
Report = Callable[[float], None]
Calibrate = Callable[[Any, Any, Any, CalibrationSettings, Report], Rows]  # model, key, task

_DISGUISED = ("rotated", "distracted", "superposed", "redundant")  # sharpness makes no difference to these


@dataclass(frozen=True)
class Entry:
    """A method's place in the table."""

    calibrate: Calibrate
    subjects: tuple[str, ...] | None = None  # the models that it is run on; None: all of `SETTINGS`


CALIBRATIONS: dict[str, Entry] = {
    "logistic": Entry(partial(probes.probe_calibration, Method.LOGISTIC, edits=True), _DISGUISED),
    "ridge": Entry(partial(probes.probe_calibration, Method.RIDGE, edits=True), ("distracted",)),
    "mean_difference": Entry(partial(probes.probe_calibration, Method.MEAN_DIFFERENCE, edits=True), ("distracted",)),
    "mlp": Entry(partial(probes.probe_calibration, Method.MLP, edits=False), ("distracted",)),
    "true_subspace": Entry(interchange.true_set_calibration),
    "full_vector": Entry(interchange.sweep_calibration, _DISGUISED),
    "das": Entry(interchange.das_calibration, ("rotated", "superposed")),
    "eap": Entry(partial(edges.edge_calibration, Method.EAP, edges.by_scorer("eap"))),
    "eap_ig": Entry(partial(edges.edge_calibration, Method.EAP_IG, edges.by_scorer("eap_ig"))),
    "attribution_patching": Entry(
        partial(edges.node_calibration, Method.ATTRIBUTION_PATCHING, edges.by_node_attribution)
    ),
    "exact_nodes": Entry(partial(edges.node_calibration, Method.EXACT_PATCHING, edges.by_exact_nodes), _DISGUISED),
    "exact_patching": Entry(
        partial(edges.edge_calibration, Method.EXACT_PATCHING, edges.by_exact_edges),
        ("rotated", "superposed", "redundant"),
    ),
    "acdc": Entry(partial(edges.edge_calibration, Method.ACDC, edges.by_scorer("acdc")), ("rotated",)),
    "head_role": Entry(roles.role_calibration, ("distracted",)),
    "state_interchange": Entry(state_calibration, tuple(TAPES)),
    "circuit_run": Entry(criteria.criteria_calibration, ("rotated", "redundant")),
    "string_interchange": Entry(string_calibration, tuple(STRING_NETWORKS)),
}

# Methods measured by another entry.
WITHIN: dict[Method, str] = {Method.PROBE_SUBSPACE: "logistic"}

EXEMPT: dict[Method, str] = {
    Method.EXACT_CONDITIONAL: "summed over a rule's own chain of states: of what a model says, not of its inside",
    Method.SAMPLED_TEXT: "texts that a model writes, judged by a rule; they say nothing about a mechanism",
    Method.LIKELIHOOD: "how likely a model holds a text to be: of what it says, not of its inside",
    Method.BOUND: "a bound on how likely a model holds a text to be: of what it says, not of its inside",
    Method.TRAINING: "a curve of the training loop; it says nothing about a mechanism",
    Method.GREEDY: "the answers themselves; every calibration model must give them without an error",
    Method.ACTIVATION_PATCHING: "an operation; node effects (exact_nodes) and interchange are the claims made with it",
    Method.ABLATION: "an operation; exact_nodes measures it under resample, mean and zero",
    Method.LOGISTIC_PATH: "logistic regression with a chosen penalty, not yet held against compiled models",
    Method.PROBE_MEAN: "an edit along a probe of a stream task, of which there is no compiled model",
    Method.PROBE_SHIFT: "an edit along a probe of a stream task, of which there is no compiled model",
    Method.PROBE_LOGITS: "an edit along a probe of a stream task, of which there is no compiled model",
    Method.POSITION_SEARCH: "a search over sets of positions, not yet held against compiled models",
    Method.PATH_PATCHING: "an operation on one named path, not yet held against compiled models",
}


def runs(subjects: Sequence[str], only: Sequence[str] = ()) -> list[tuple[str, str]]:
    """What a calibration consists of, (entry, model), in order: cheap entries of all models come first."""
    return [
        (name, subject)
        for name, entry in CALIBRATIONS.items()
        for subject in subjects
        if (not only or name in only) and subject in (entry.subjects or SETTINGS)
    ]
