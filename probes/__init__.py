"""Probes: estimators over arrays of activations, fitted in stacks, with their controls and scores. Imports no model."""

from probes.base import Probe, SoftmaxProbe
from probes.code_length import CodeLength, online_code_length
from probes.controls import MajorityProbe, control_labels, majority_label, selectivity, shuffled_labels
from probes.linear import DiscriminantProbe, LinearProbe, MeanDifferenceProbe, RidgeProbe
from probes.logistic import LogisticProbe
from probes.mlp import MLPProbe
from probes.path import LogisticPathProbe
from probes.scores import (
    Bootstrap,
    Interval,
    ProbeScore,
    accuracy,
    balanced_accuracy,
    bootstrap_mean,
    confusion_matrix,
    joint_exactness,
    score_predictions,
    split_groups,
)

# A new probe is one file and one entry.
PROBES: dict[str, type[Probe]] = {
    "logistic": LogisticProbe,
    "logistic_path": LogisticPathProbe,
    "ridge": RidgeProbe,
    "discriminant": DiscriminantProbe,
    "mean_difference": MeanDifferenceProbe,
    "mlp": MLPProbe,
}

__all__ = [
    "PROBES",
    "Bootstrap",
    "CodeLength",
    "DiscriminantProbe",
    "Interval",
    "LinearProbe",
    "LogisticPathProbe",
    "LogisticProbe",
    "MLPProbe",
    "MajorityProbe",
    "MeanDifferenceProbe",
    "Probe",
    "ProbeScore",
    "RidgeProbe",
    "SoftmaxProbe",
    "accuracy",
    "balanced_accuracy",
    "bootstrap_mean",
    "confusion_matrix",
    "control_labels",
    "joint_exactness",
    "majority_label",
    "online_code_length",
    "score_predictions",
    "selectivity",
    "shuffled_labels",
    "split_groups",
]
