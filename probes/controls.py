"""Controls for probes: what accuracy is worth when the activations say nothing, or when the probe merely memorises.

1. Majority class: always answer the training rows' most frequent label.
2. Control task (Hewitt & Liang 2019): every input *type* (a token, an (op, cell) pair …) gets one label for ever, drawn
   from the labels' own distribution. Types carry no meaning, so a probe can only memorise them.
   selectivity = accuracy on the task - accuracy on the control task, in [-1, 1], higher is better.
3. Shuffled labels: the labels in random order; only chance is left.
"""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from probes.activations import Array, as_activations
from probes.base import Probe
from probes.labels import as_labels, defined, read_labels
from probes.row_weights import as_sample_weight


class MajorityProbe(Probe):
    """The most frequent training label of each variable, whatever X is (ties go to the smaller label).

    Learned: classes_ [C], label_ [*batch of y], in the caller's labels.
    """

    def fit(self, X: Array, y: Array, sample_weight: ArrayLike | None = None) -> Self:
        """Count the labels y [*batch, n], -1 left out, by weight if weights [n] or [*batch, n] are given.

        X [*batch, n, d] only gives the number of rows and features. Returns self.
        """
        x = as_activations(X)
        n = x.shape[-2]
        labels = read_labels(y, n=n)
        known = defined(labels)
        weights = known * (1.0 if sample_weight is None else as_sample_weight(sample_weight, n=n))
        if not (weights.sum(-1) > 0).all():
            raise ValueError("y must have at least one label that is not -1 in every row of the stack")
        self.classes_, codes = np.unique(labels[known], return_inverse=True)
        places = np.zeros(labels.shape, dtype=int)
        places[known] = codes
        counts = np.stack([(weights * (places == i)).sum(-1) for i in range(len(self.classes_))], -1)
        self.label_ = self.classes_[counts.argmax(-1)]
        self.n_features_in_ = int(x.shape[-1])
        return self

    def decision_function(self, X: Array) -> np.ndarray:
        """Refused: the majority label is no score."""
        raise AttributeError("MajorityProbe has no scores, it answers one label: predict has it")

    def predict(self, X: Array) -> np.ndarray:
        """label_ for every row: [*batch, n]."""
        self._check_fitted()
        x = self._activations(X)
        return np.repeat(np.asarray(self.label_)[..., None], x.shape[-2], -1)


def majority_label(y: ArrayLike) -> np.ndarray:
    """The most frequent label >= 0 of each row of y [*batch, n]: int64 [*batch]. ValueError where none is defined."""
    labels = as_labels(np.asarray(y), n=np.shape(y)[-1]).numpy()
    flat = labels.reshape(-1, labels.shape[-1])
    counts = np.stack([np.bincount(row[row >= 0], minlength=int(labels.max()) + 1) for row in flat])
    if not counts.size or (counts.sum(1) == 0).any():
        raise ValueError("y must have at least one label that is not -1 in every row of the stack")
    return counts.argmax(1).reshape(labels.shape[:-1])


def control_labels(y: ArrayLike, types: ArrayLike, *, seed: int, reference: ArrayLike | None = None) -> np.ndarray:
    """Control-task labels [*batch, n]: one label per input type, drawn from each variable's own label distribution.

    A type's draw depends only on (seed, position in the stack, type), so training and evaluation rows may be labelled
    in separate calls: pass the training labels as `reference` in both, and a type keeps its label.

    Args:
        y: labels [*batch, n]; rows of -1 stay -1.
        types: integer type ids [n] or [*batch, n], any values.
        seed: which control task.
        reference: labels [*batch, m] whose distribution is drawn from; y by default.
    """
    labels = as_labels(np.asarray(y), n=np.shape(y)[-1]).numpy()
    ids = np.asarray(types)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"types must be integer ids, got dtype {ids.dtype}")
    if ids.ndim < 1 or ids.shape[-1] != labels.shape[-1]:
        raise ValueError(f"types must have one id a row of y, shape [{labels.shape[-1]}], got {list(ids.shape)}")
    source = labels if reference is None else as_labels(np.asarray(reference), n=np.shape(reference)[-1]).numpy()
    if source.shape[:-1] != labels.shape[:-1]:
        raise ValueError(
            f"reference must have y's batch shape {list(labels.shape[:-1])}, got {list(source.shape[:-1])}"
        )
    flat = labels.reshape(-1, labels.shape[-1])
    drawn = np.empty_like(flat)
    ids = np.broadcast_to(ids, labels.shape).reshape(flat.shape)
    for i, row in enumerate(source.reshape(-1, source.shape[-1])):
        classes, counts = np.unique(row[row >= 0], return_counts=True)
        if not len(classes):
            raise ValueError("y must have at least one label that is not -1 in every row of the stack")
        cumulative = np.cumsum(counts) / counts.sum()
        drawn[i] = classes[np.searchsorted(cumulative[:-1], _uniform(ids[i], seed, i), side="right")]
    return np.where(flat >= 0, drawn, -1).reshape(labels.shape)


def shuffled_labels(y: ArrayLike, *, seed: int) -> np.ndarray:
    """Labels [*batch, n] in random order, each variable by itself; rows of -1 stay where they are."""
    labels = as_labels(np.asarray(y), n=np.shape(y)[-1]).numpy().copy()
    rng = np.random.default_rng(seed)
    for row in labels.reshape(-1, labels.shape[-1]):
        defined = row >= 0
        row[defined] = rng.permutation(row[defined])
    return labels


def selectivity(task_accuracy: ArrayLike, control_accuracy: ArrayLike) -> np.ndarray:
    """Accuracy on the task minus accuracy on the control task (Hewitt & Liang 2019), any shapes that broadcast."""
    return np.asarray(task_accuracy) - np.asarray(control_accuracy)


def _uniform(ids: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """One number in [0, 1) for each id, by the SplitMix64 finaliser (Steele, Lea & Flood 2014)."""
    key = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):
        z = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + key
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) / 2.0**53
