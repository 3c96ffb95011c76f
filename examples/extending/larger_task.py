"""A task about it: `first second =`, and the larger number is asked for at the last token."""

from functools import partial

import numpy as np
import torch

from interp.tasks import TASKS, Batch, Contrast, Task
from interp.tasks.contrast import pairs_of


class PickLarger(Task):
    """Three tokens in, one number out."""

    name = "pick_larger"
    attention_dir, positions = "causal", "learned"
    position_names = ("first[0]", "second[0]", "=")
    prompt_positions = slice(0, 3)
    answer_positions = np.array([2])

    @property
    def vocab(self):
        return (*map(str, range(self.world.size)), "=")

    def render(self, examples, answers=None):
        answers = self.expected(self.world.answer(examples)) if answers is None else answers
        tokens = torch.full((len(examples), 3), self.world.size)
        tokens[:, :2] = torch.from_numpy(examples.values)
        targets = torch.full_like(tokens, -1)
        targets[:, 2:] = torch.from_numpy(answers)
        return Batch(tokens, targets, targets >= 0, examples)

    def expected(self, answer):
        return np.where(answer.valid[:, None], answer.values, -1)

    def contrasts(self):
        """The larger number exchanged for another one, where the other number stays the smaller."""
        names = ("FIRST", "SECOND")
        return {
            name: Contrast(name, name, "order", partial(self._pairs, which), partial(self._first, which))
            for which, name in enumerate(names)
        }

    def _first(self, which, n, seed):
        examples = self.draw(8 * n, seed=seed)
        return self.render(examples[np.flatnonzero(self.world.read(examples, "which") == which)[:n]])

    def _pairs(self, which, n, *, seed, half=None):
        clean, other = (self._first(which, 8 * n, each).examples for each in (seed, seed + 1))
        corrupted = self.world.edit(clean, ("first", "second")[which], other.values[:, which])
        order, before = self.world.read(corrupted, "which") == which, clean.values[:, which]
        rows = np.flatnonzero(order & (corrupted.values[:, which] != before))[:n]
        facts = {"compared": np.ones((len(rows), 1), dtype=bool), "redraw_rate": 1 - len(rows) / len(clean)}
        return pairs_of(self, ("FIRST", "SECOND")[which], clean[rows], corrupted[rows], **facts)


TASKS["pick_larger"] = PickLarger
