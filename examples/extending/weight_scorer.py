"""A scorer of edges: how far two ends of an edge are apart in the model, whatever it computes. A baseline."""

import numpy as np

from interp.circuits import SCORERS, Scorer


def nearness(model, pairs, scoring):
    """1 / (1 + layers between writer and reader), float64 [reader, writer]; 0 where there is no edge."""
    graph = model.graph()
    last = model.cfg.n_layers
    written = np.array([-1 if each.layer is None else each.layer for each in graph.writers])
    read = np.array([last if each.layer is None else each.layer for each in graph.readers])
    return np.where(graph.mask, 1.0 / (1.0 + np.abs(read[:, None] - written[None, :])), 0.0)


SCORERS["nearness"] = Scorer(nearness, "nearness of the layers", "#999999", signed=False)
