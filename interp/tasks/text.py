"""`text`: a stretch of a text, token by token; each next one is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.results import Aggregation, IntervalKind, Method, Metric, wilson_interval
from interp.tasks.base import Task
from interp.tasks.batch import Batch
from interp.tasks.options import TextOptions
from interp.worlds.base import Split, Strata
from interp.worlds.text.vocabulary import END

_ROWS = 64  # windows a pass where bits are counted
_RESAMPLES = 1000


class Text(Task):
    """`length` tokens; behind the first `given` each is asked for at the one before it, up to the end of a document.

    What a model should say is what the text says; nothing else is known to be right. It is judged by bits a character,
    and by how often the likeliest token is the text's own.
    """

    name = "text"
    Options = TextOptions
    attention_dir = "causal"
    positions = "learned"
    has_strata = False
    shows_answer = True
    n_probed = 16_000
    words = "The model reads a text piece by piece and says at each piece what comes next."

    def __init__(self, world: Any, options: Any = None):
        super().__init__(world, options)
        if "text" not in self.world.capabilities:
            raise self.world.lacks("text")
        if self.options.given >= self.world.length:
            raise ValueError(
                f"given must be below the length of an example, {self.world.length}; got {self.options.given}"
            )

    @property
    def vocab(self) -> tuple[str, ...]:
        """The pieces of the text, then the end of a document."""
        return (*self.world.vocabulary.names, END)

    @property
    def position_names(self) -> tuple[str, ...]:
        """One block."""
        return tuple(f"text[{index}]" for index in range(self.world.length))

    @property
    def prompt_positions(self) -> slice:
        """What is given."""
        return slice(0, self.options.given)

    @property
    def answer_positions(self) -> np.ndarray:
        """Each but those before the last token that is given, and the last of all."""
        return np.arange(self.options.given - 1, self.n_ctx - 1)

    def render(self, examples: Any, answers: np.ndarray | None = None) -> Batch:
        """The windows, which carry their own answers. Behind the end of a document nothing is asked."""
        tokens = torch.from_numpy(examples.tokens)
        targets = torch.full_like(tokens, -1)
        targets[:, self.options.given - 1 : -1] = tokens[:, self.options.given :]
        ended = (tokens == self.world.end).cumsum(dim=1) > 0
        targets = torch.where(ended, -1, targets)
        return Batch(tokens, targets, targets >= 0, examples)

    def expected(self, answer: Any) -> np.ndarray:
        """Raises ValueError: no world says what should come out of a text that is another."""
        raise self.world.lacks("do")

    def encode(self, text: str) -> Tensor:
        """A text as a model reads it, long [1, pos]. Raises ValueError for a character that the text never had."""
        return torch.from_numpy(self.world.encode(text))[None]

    def decode(self, tokens: Any) -> str:
        """The text of token ids [pos]."""
        return self.world.decode(torch.as_tensor(tokens).flatten().tolist())

    def notice_before_sharing(self) -> str | None:
        """Byte pairs are pieces of the text."""
        if not self.world.vocabulary.holds_text:
            return None
        count = len(self.world.vocabulary.names)
        return f"its config holds {count:,} byte pairs learned from {self.world.source}: pieces of that text"

    def strata(self, batch: Batch, at: int | np.ndarray = 0) -> Strata:
        """The class of the token that comes behind the `at`-th."""
        return self.world.strata(batch.examples, at)

    def times(self, batch: Batch) -> np.ndarray:
        """The number of each token; −1 behind the end."""
        return np.where(self._there(batch), np.arange(self.n_ctx), -1)

    def labels(self, batch: Batch, name: str) -> np.ndarray:
        """The variable once each token is read, int64 [batch, pos]."""
        return self.world.read(batch.examples, name, self.times(batch))

    def control_types(self, batch: Batch, name: str) -> np.ndarray:
        """(token, position), int64 [batch, pos]: all that the embedding sees."""
        return batch.tokens.numpy() * self.n_ctx + np.arange(self.n_ctx)

    def probe_places(self) -> list[str]:
        """Every token."""
        return ["text"]

    def token_places(self) -> Mapping[str, Callable[[Batch], np.ndarray]]:
        """The tokens of a window, END left out."""
        return {"text": lambda batch: self._there(batch) & (batch.tokens.numpy() != self.world.end)}

    def _there(self, batch: Batch) -> np.ndarray:
        ends = (batch.tokens.numpy() == self.world.end).cumsum(axis=1)
        return (ends == 0) | ((ends == 1) & (batch.tokens.numpy() == self.world.end))

    # Answers.

    def answer(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Tensor:
        """Teacher-forced: the token held likeliest behind every position, long [n, pos]."""
        return model(batch.tokens).argmax(dim=-1)

    def score(self, predicted: Tensor, batch: Batch) -> pd.DataFrame:
        """Likeliest tokens that are the text's own, by the class of what comes. `n` counts tokens, not windows."""
        asked, rows = batch.loss_mask.cpu().numpy(), []
        right = (predicted.cpu() == batch.targets.cpu()).numpy() & asked
        n, length = right.shape
        number = self.world.strata(batch.examples, np.tile(np.arange(length), (n, 1))).number
        for stratum, name in enumerate(self.world.stratum_names):
            members = asked & (number == stratum)
            if count := int(members.sum()):
                successes = int((right & members).sum())
                low, high = wilson_interval(successes, count)
                shares = {"estimate": successes / count, "ci_low": low, "ci_high": high, "n": count}
                rows.append({"op": name, "stratum": None, "metric": Metric.EXACT_MATCH, **shares})
        return pd.DataFrame(rows)

    def also_measured(self, model: Any, *, n: int, split: Split) -> list[dict[str, Any]]:
        """Bits a character of at most `n` windows that lie side by side; a model that gives bounds gives a bound."""
        windows = self.world.side_by_side(split, n)
        nats, characters = self.nats(model, windows)
        groups, unit = np.unique(windows.hashes, return_inverse=True)
        sums = np.stack([np.bincount(unit, weights=each, minlength=len(groups)) for each in (nats, characters)])
        bits = sums[0].sum() / sums[1].sum() / math.log(2)
        drawn = np.random.default_rng(0).integers(len(groups), size=(_RESAMPLES, len(groups)))
        resampled = sums[0][drawn].sum(axis=1) / np.maximum(sums[1][drawn].sum(axis=1), 1) / math.log(2)
        low, high = np.quantile(resampled, [0.025, 0.975])
        return [
            {
                "method": Method.LIKELIHOOD if getattr(model, "max_denoising_steps", None) is None else Method.BOUND,
                "metric": Metric.BITS,
                "aggregation": Aggregation.MEAN,
                "estimate": float(bits),
                "ci_low": float(low),
                "ci_high": float(high),
                "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
                "n": int(characters.sum()),
            }
        ]

    @torch.no_grad()
    def nats(self, model: Any, windows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Nats of what is asked in each window, float64 [n], and its characters, int64 [n]."""
        found, characters, of_token = [], [], torch.from_numpy(self.world.characters)
        for first in range(0, len(windows), _ROWS):
            batch = self.render(windows[first : first + _ROWS])
            found.append(nats_of(model, batch).double().cpu())
            characters.append(torch.where(batch.loss_mask, of_token[batch.targets.clamp(min=0)], 0).sum(dim=1))
        return torch.cat(found).numpy(), torch.cat(characters).numpy()


def nats_of(model: Any, batch: Batch) -> Tensor:
    """Nats of what is asked in each row, [batch]; an upper bound of a model that fills in rather than writes on."""
    bound = getattr(model, "answer_bound", None)
    if bound is not None:
        return bound(batch.tokens)
    logits = model(batch.tokens).float()
    losses = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-1, reduction="none")
    return losses.view(batch.targets.shape).sum(dim=1)
