"""A probe with one hidden layer, for what is encoded but not linearly (XOR is the smallest case)."""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from probes.activations import Array
from probes.base import SoftmaxProbe
from probes.parameters import check_real, check_share, check_whole
from probes.row_weights import ClassWeight
from probes.stack import MIN_ROWS, Axes, Stack

LOST = 10  # a validation loss of so many times that of equal probabilities is no training


class MLPProbe(SoftmaxProbe):
    """One hidden ReLU layer, cross-entropy, AdamW on minibatches, early stopping; a stack trains side by side.

    Each probe keeps the weights of its best validation epoch, and stops for itself after `patience` epochs without a
    better one. All probes of a stack start from one random draw and see the rows in one order, so each is the same as
    when it is fitted alone. Features are standardised inside; the learned weights take raw activations.

    Args:
        hidden: width of the hidden layer.
        lr: learning rate of AdamW, above 0, at most 1.
        weight_decay: of AdamW, below 1 / lr.
        batch_size: rows a step.
        max_epochs: passes over the rows at most.
        patience: epochs without a better validation loss before a probe stops.
        validation: share of the groups (rows, if fit gets no groups) held out for stopping.
        seed: of the initial weights, the validation part and the order of rows.
        class_weight: factors of rows by class in the loss, None, "balanced" or a dict, as in scikit-learn.

    Learned: coefs_ ([*batch, d, hidden], [*batch, hidden, C]), intercepts_ ([*batch, hidden], [*batch, C]),
    n_epochs_ int [*batch] (the epoch kept), validation_loss_ [*batch] in nats a row.
    """

    def __init__(
        self,
        *,
        hidden: int = 64,
        lr: float = 3e-3,
        weight_decay: float = 1e-4,
        batch_size: int = 256,
        max_epochs: int = 60,
        patience: int = 5,
        validation: float = 0.1,
        seed: int = 0,
        class_weight: ClassWeight = None,
    ):
        self.hidden = hidden
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation = validation
        self.seed = seed
        self.class_weight = class_weight

    def fit(
        self, X: Array, y: Array, sample_weight: ArrayLike | None = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Fit every probe of the stack: X [*batch, n, d], y [*batch, n] with -1 where undefined; returns self.

        sample_weight [n] or [*batch, n] weighs rows in the loss. groups [n] (programs) keep whole groups in the
        validation part. Raises as LinearProbe.fit does, and ValueError where training diverges.
        """
        # Gradients whatever the caller has switched off: tensors made in inference mode could never have any.
        with torch.inference_mode(False), torch.enable_grad():
            return self._fit(X, y, sample_weight, groups)

    def _fit(self, X: Array, y: Array, sample_weight: ArrayLike | None, groups: ArrayLike | None) -> Self:
        for name in ("hidden", "batch_size", "max_epochs", "patience"):
            check_whole(name, getattr(self, name), least=1)
        check_real("lr", self.lr, above=0)
        check_real("weight_decay", self.weight_decay, least=0)
        if self.lr > 1:
            raise ValueError(f"lr must be at most 1, about what a step of AdamW moves every weight by, got {self.lr:g}")
        if self.lr * self.weight_decay >= 1:
            raise ValueError(f"weight_decay must be below 1 / lr = {1 / self.lr:g}, got {self.weight_decay:g}")
        check_share("validation", self.validation)
        check_whole("seed", self.seed, least=0)
        stack = Stack.of(X, y, sample_weight, self.class_weight)
        rng = np.random.default_rng(self.seed)
        held_out = torch.from_numpy(self._held_out(stack.x.shape[1], groups, rng)).to(stack.x.device)
        train, rest = (~held_out).nonzero()[:, 0], held_out.nonzero()[:, 0]
        mean = stack.x[:, train].mean(1, keepdim=True)
        scale = stack.x[:, train].std(1, keepdim=True)
        scale = torch.where(scale > 0, scale, 1.0)
        x = (stack.x - mean) / scale
        seen = (stack.counts > 0).expand(len(x), -1, -1)
        w1, b1, w2, b2 = self._train(x, stack.y, stack.weights, seen, train, rest, rng)
        w1 = w1 / scale.mT[:, None]
        b1 = b1 - (mean[:, None] @ w1)[..., 0, :]
        b2 = torch.where(seen, b2, -torch.inf)
        join = stack.axes.join
        self.coefs_ = (join(w1), join(w2))
        self.intercepts_ = (join(b1), join(b2))
        self.n_epochs_ = join(self._best_epoch)
        self.validation_loss_ = join(self._best_loss)
        del self._best_epoch, self._best_loss
        self.classes_ = stack.labels
        self.n_features_in_ = int(x.shape[-1])
        return self

    def _held_out(self, n: int, groups: ArrayLike | None, rng: np.random.Generator) -> np.ndarray:
        """bool [n]: the validation rows, whole groups."""
        ids = np.arange(n) if groups is None else np.asarray(groups)
        if ids.shape != (n,):
            raise ValueError(f"groups must have shape [{n}], one a row of X, got {list(ids.shape)}")
        unique, ids = np.unique(ids, return_inverse=True)
        count = round(self.validation * len(unique))
        held_out = np.isin(ids, rng.permutation(len(unique))[:count])
        if held_out.sum() < 1 or (~held_out).sum() < MIN_ROWS:
            raise ValueError(
                f"X must have rows to hold out {self.validation:g} of {len(unique)} groups and train on at least "
                f"{MIN_ROWS} rows, got {n} rows"
            )
        return held_out

    def _train(
        self,
        x: Tensor,
        target: Tensor,
        weights: Tensor | None,
        seen: Tensor,
        train: Tensor,
        rest: Tensor,
        rng: np.random.Generator,
    ) -> list[Tensor]:
        """Train on rows `train`, stop on rows `rest`; the best parameters of every probe, [s, v, ...] each.

        The output layer starts at zero, and only at the classes seen [s, v, C]: a stack changes nothing for its probes.
        """
        (s, v, n_classes), d, h = seen.shape, x.shape[-1], self.hidden
        unseen = torch.where(seen, 0.0, -torch.inf).to(x)[:, :, None]
        first = torch.from_numpy(rng.normal(size=(d, h)) * np.sqrt(2 / d)).to(x)
        parameters = [
            first.expand(s, v, d, h).clone(),
            x.new_zeros(s, v, h),
            x.new_zeros(s, v, h, n_classes),
            x.new_zeros(s, v, n_classes),
        ]
        for p in parameters:
            p.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)
        best = [p.detach().clone() for p in parameters]
        self._best_loss = x.new_full((s, v), torch.inf)
        self._best_epoch = torch.zeros(s, v, dtype=torch.int64, device=x.device)
        weights = (target >= 0).to(x) if weights is None else torch.where(target >= 0, weights, 0.0).to(x)
        x_rest, target_rest, weights_rest = x[:, rest], target[:, :, rest], weights[:, :, rest]
        judged = (weights_rest > 0).any(-1)  # the others train on to the last epoch
        for epoch in range(1, self.max_epochs + 1):
            order = train[torch.from_numpy(rng.permutation(len(train))).to(train.device)]
            for rows in order.split(self.batch_size):
                optimizer.zero_grad(set_to_none=True)
                scores = _forward(x[:, rows], *parameters) + unseen
                _loss(scores, target[:, :, rows], weights[:, :, rows]).sum().backward()
                optimizer.step()
            with torch.no_grad():
                loss = _loss(_forward(x_rest, *parameters) + unseen, target_rest, weights_rest)
                running = epoch - self._best_epoch <= self.patience
                better = running & (loss < self._best_loss) | ~judged & torch.isfinite(loss)
                self._best_loss = torch.where(better, loss, self._best_loss)
                self._best_epoch = torch.where(better, epoch, self._best_epoch)
                for kept, p in zip(best, parameters, strict=True):
                    kept[better] = p[better]
            if not bool((epoch - self._best_epoch < self.patience).any()):
                break
        self._best_loss = torch.where(judged, self._best_loss, torch.nan)
        silent = (seen.sum(-1) * 1.0).log()  # the loss of saying nothing
        lost = (self._best_epoch == 0) | (self._best_loss > LOST * silent)
        if bool(lost.any()) or not all(bool(torch.isfinite(p).all()) for p in best):
            raise ValueError(f"lr {self.lr:g} is too high for these rows: training diverged")
        return best

    def _batch(self) -> tuple[int, ...]:
        return self.coefs_[0].shape[:-2]

    def _scores(self, x: Tensor, axes: Axes) -> Iterator[Tensor]:
        learned = [*zip(self.coefs_, self.intercepts_, (2, 2), (1, 1), strict=True)]
        (w1, b1), (w2, b2) = (
            (axes.split(torch.from_numpy(w).to(x), i), axes.split(torch.from_numpy(b).to(x), j))
            for w, b, i, j in learned
        )
        for i, site in enumerate(x):
            k = slice(min(i, len(w1) - 1), min(i, len(w1) - 1) + 1)
            yield _forward(site[None], w1[k], b1[k], w2[k], b2[k])[0]


def _forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Class scores [s, v, n, C] of x [s, n, d]; one product for all the variables of a site."""
    s, v, d, h = w1.shape
    hidden = x @ w1.transpose(1, 2).reshape(s, d, v * h)
    hidden = torch.relu(hidden.view(s, -1, v, h).transpose(1, 2) + b1[:, :, None])
    return hidden @ w2 + b2[:, :, None]


def _loss(scores: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy [s, v] in nats over the rows whose target is not -1; 0 where none is."""
    target = target.expand(scores.shape[:-1])
    picked = scores.log_softmax(-1).gather(-1, target.clamp(min=0)[..., None])[..., 0]
    picked = torch.where(weights > 0, picked, 0.0)  # a row that is left out may point to an unseen class: -inf * 0
    total = weights.sum(-1)
    return -(picked * weights).sum(-1) / torch.where(total > 0, total, 1.0)
