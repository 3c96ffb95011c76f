"""Draw more of what the model still gets wrong.

Learning curves look like power laws: a stratum's error falls as n^-a with the records n drawn from it. The mean error
is then least for a given total when every stratum's n is proportional to its error, so that is what is drawn. The
strata are op × outcome × branch, and jumps split by their distance, since distant brackets are learned last. The
errors are those of the training batches themselves (teacher-forced exact match), as running means.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cython_vm import MachineSpec, Op, Outcome, States, sample, strata_weights
from cython_vm import step as machine_step
from cython_vm.packing import block_columns
from interp.worlds.base import Split

PERIOD = 50  # steps between changes of the shares
_MEMORY = 500  # records of a stratum that its running error remembers
_LEAST_ERROR = 1e-3  # below it strata count as equally well known
_TABLE = (len(Op), len(Outcome), 2)
_BUCKETS_PER_OCTAVE = 2


class AdaptiveSampler:
    """The shares of the strata in training batches, from a running estimate of their errors.

    A batch is drawn with weights (1 - strength) × base + strength × error share. The shares change every `PERIOD`
    steps and lag behind the errors by one step, so that a batch may be drawn while the one before it is learned; they
    are a function of the batches so far, and of nothing else.

    Args:
        spec: the machine.
        base: weights [9, 8, 2] over op × outcome × branch, see `cython_vm.sample`.
        strength: in (0, 1]; the share of records that follows the errors.
        distances: whether to split jumps by distance (not where records come from the disk or the machine is padded).
        split: of the programs to draw.
    """

    prefixes = ("adaptive/",)

    def __init__(
        self, spec: MachineSpec, base: NDArray[np.float64], strength: float, *, distances: bool, split: Split = "train"
    ):
        self.spec, self.base, self.strength, self.split = spec, base / base.sum(), strength, split
        self.plain = np.argwhere(strata_weights(spec, branches=True) > 0)  # (op, outcome, branch), [k, 3]
        self.buckets = np.zeros(0, dtype=np.int64)  # bucket of each jump distance, from 0 on
        if distances and spec.loops and not spec.padded and spec.n_instructions > 2:
            self.plain = self.plain[self.plain[:, 2] == 0]
            self.buckets = _buckets(spec.n_instructions - 1)
        n = len(self.plain) + len(np.unique(self.buckets[1:]))
        self.errors = np.ones(n)  # nothing is known: as if all were wrong
        self.shares = np.full((2, n), 1 / n)  # in the periods of even and of odd number
        self._number = np.full(_TABLE, -1)
        self._number[tuple(self.plain.T)] = np.arange(len(self.plain))

    def table(self, step: int) -> NDArray[np.float64]:
        """The weights [9, 8, 2] of one step, those of jumps by distance left out; they sum to 1 without these."""
        table = (1 - self.strength) * self.base
        table[tuple(self.plain.T)] += self.strength * self._shares(step)[: len(self.plain)]
        return table

    def distance_shares(self, step: int) -> NDArray[np.float64]:
        """The share of the records of one step that are jumps drawn for their distance, by distance from 0 on."""
        if not len(self.buckets):
            return np.zeros(0)
        by_bucket = self.strength * self._shares(step)[len(self.plain) :]
        own = self.buckets[1:]
        return np.concatenate([[0.0], (by_bucket / np.bincount(own))[own]])

    def draw(self, step: int, batch_size: int, *, seed: int) -> States:
        """The states of the batch of 0-based `step`, of training programs: a function of the arguments and the shares.

        Jumps drawn for their distance are natural states whose operand is set such that they jump.
        """
        rng = np.random.default_rng([seed, step])
        distances = self.distance_shares(step)
        n_jumps = int(rng.binomial(batch_size, distances.sum()))
        start, n = step * batch_size, batch_size - n_jumps
        states = sample(self.spec, n, seed=seed, start=start, split=self.split, weights=self.table(step))
        if not n_jumps:
            return states
        brackets = sample(
            self.spec, n_jumps, seed=seed, start=start + n, split=self.split, weights=distances, by="jump_distance"
        )
        return States.concatenate([states, _made_to_jump(brackets, rng)])

    def strata(self, states: States) -> NDArray[np.int64]:
        """The number of each state's stratum, [n]."""
        latents = machine_step(states).latents
        op, taken = latents["op"], np.maximum(latents["branch_taken"], 0)
        numbers = self._number[op, latents["outcome"], taken]
        if len(self.buckets):
            distance = np.abs(latents["jump_target"] - 1 - latents["instruction_ptr"])
            jumps = np.flatnonzero(taken)
            numbers[jumps] = len(self.plain) + self.buckets[distance[jumps]]
        return numbers

    def learn(self, step: int, strata: NDArray[np.int64], right: NDArray[np.bool_]) -> None:
        """Take in which records of 0-based `step` the model got right; strata and right are [n]."""
        counts = np.bincount(strata, minlength=len(self.errors))
        wrong = np.bincount(strata, weights=~right, minlength=len(self.errors)) / np.maximum(1, counts)
        kept = (1 - 1 / _MEMORY) ** counts
        self.errors = kept * self.errors + (1 - kept) * wrong
        if (step + 2) % PERIOD == 0:
            weights = self.errors + _LEAST_ERROR
            self.shares[(step + 2) // PERIOD % 2] = weights / weights.sum()

    def _shares(self, step: int) -> NDArray[np.float64]:
        return self.shares[step // PERIOD % 2]

    def state_tensors(self) -> dict[str, Tensor]:
        """The running errors and the shares."""
        return {f"adaptive/{name}": torch.tensor(getattr(self, name)) for name in ("errors", "shares")}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        self.errors, self.shares = (tensors[f"adaptive/{name}"].numpy().copy() for name in ("errors", "shares"))


def _buckets(n: int) -> NDArray[np.int64]:
    """A bucket for each distance below n: half an octave wide, numbered from 0; distance 0 has none and shows 0."""
    octaves = np.floor(_BUCKETS_PER_OCTAVE * np.log2(np.arange(1, n)))
    return np.concatenate([[0], np.unique(octaves, return_inverse=True)[1]])


def _made_to_jump(brackets: States, rng: np.random.Generator) -> States:
    """The same states with the operand 0 under WHILE, and not 0 under ENDW (drawn uniformly where it was 0)."""
    latents = machine_step(brackets).latents
    rows, operand = np.arange(len(brackets)), latents["operand"].copy()
    others = rng.integers(1, brackets.spec.max_value, size=len(brackets), endpoint=True)
    operand[latents["op"] == Op.WHILE] = 0
    stays = (latents["op"] == Op.ENDW) & (operand == 0)
    operand[stays] = others[stays]
    packed = brackets.rows.copy()
    packed[rows, block_columns(brackets.spec)["cells"].start + brackets.array_ptr.astype(np.int64)] = operand
    return States.wrap(brackets.spec, packed)  # a cell of a state that is one holds another value of its range
