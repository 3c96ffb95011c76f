"""Probes: estimators over arrays of activations, fitted in stacks, with their controls and scores. Imports no model."""

from probes.controls import MajorityProbe, control_labels, majority_label, selectivity, shuffled_labels
from probes.evaluation import (
    CodeLength,
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
from probes.linear import DiscriminantProbe, LinearProbe, LogisticProbe, MeanDifferenceProbe, RidgeProbe

__all__ = [
    "CodeLength",
    "DiscriminantProbe",
    "Interval",
    "LinearProbe",
    "LogisticProbe",
    "MajorityProbe",
    "MeanDifferenceProbe",
    "ProbeScore",
    "RidgeProbe",
    "accuracy",
    "balanced_accuracy",
    "bootstrap_mean",
    "confusion_matrix",
    "control_labels",
    "joint_exactness",
    "majority_label",
    "score_predictions",
    "selectivity",
    "shuffled_labels",
    "split_groups",
]
