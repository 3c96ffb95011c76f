"""A probe: the label of the nearest row that it was fitted on."""

from typing import Self

import torch

from probes import PROBES, Probe
from probes.stack import Stack


class NearestNeighbourProbe(Probe):
    """Class scores are minus the distance to the nearest row of each class. Takes stacks, as every probe does."""

    def fit(self, X, y, sample_weight=None) -> Self:
        if sample_weight is not None:
            raise ValueError("a nearest neighbour has no use for sample_weight; got one")
        stack = Stack.of(X, y)
        self.rows_, self.codes_ = stack.x, stack.y  # [site, n, d], and labels by number [site or 1, variable, n]
        self.batch_, self.classes_, self.n_features_in_ = stack.axes.batch, stack.labels, stack.x.shape[-1]
        return self

    def _batch(self):
        return self.batch_

    def _scores(self, x, axes):
        for site in range(axes.n_sites):
            distance = torch.cdist(x[site % len(x)], self.rows_[site % len(self.rows_)])  # [m, n]
            codes = self.codes_[site % len(self.codes_)]  # [variable, n]
            nearest = [
                torch.where(codes[:, None] == c, distance, torch.inf).amin(-1) for c in range(len(self.classes_))
            ]
            yield -torch.stack(nearest, dim=-1)  # [variable, m, class]


PROBES["neighbour"] = NearestNeighbourProbe
