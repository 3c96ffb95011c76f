"""Texts judged by a rule: how many it allows, how many of these are new, how many differ, beside two baselines.

Validity alone misleads: "aaaa" obeys many rules. So the same numbers stand beside it for as many texts that the rule
itself draws, and for texts of uniformly drawn characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.ranges import counted
from interp.worlds.strings import END, Fault


@dataclass(frozen=True)
class Judged:
    """What was found about some texts."""

    n: int
    allowed: int  # that the rule allows
    new: int  # of these, that are not among the known texts
    different: int
    faults: tuple[tuple[str, Fault], ...]  # of the texts that are not allowed, in order

    @property
    def in_distribution(self) -> float:
        """Share of the texts that the rule allows."""
        return self.allowed / self.n

    @property
    def novelty(self) -> float:
        """Share of the allowed texts that are new; NaN where none is allowed."""
        return self.new / self.allowed if self.allowed else float("nan")

    @property
    def uniqueness(self) -> float:
        """Different texts over all."""
        return self.different / self.n

    def reasons(self) -> list[tuple[str, int]]:
        """The reasons of the first faults with how often each occurs, the commonest first."""
        return Counter(fault.reason for _, fault in self.faults).most_common()


def judge_texts(world: Any, texts: Sequence[str], known: set[str]) -> Judged:
    """Hold texts against a world with "language".

    Args:
        world: the rule.
        texts: at least one, without END.
        known: texts that training showed.

    Raises:
        ValueError: no text.
    """
    if not texts:
        raise ValueError("there is no text to judge")
    different = list(dict.fromkeys(texts))
    cache: dict[str, Fault | None] = dict.fromkeys(different)
    for text, fine in zip(different, world.obey(different), strict=True):
        if not (fine and text):  # the slow walk says where and why
            cache[text] = world.fault(text) if text else Fault(0, "the text is empty")
    allowed = [text for text in texts if cache[text] is None]
    faults = tuple((text, fault) for text in texts if (fault := cache[text]) is not None)
    return Judged(len(texts), len(allowed), sum(text not in known for text in allowed), len(cache), faults)


@counted(n=1)
def sample_texts(model: Any, task: Any, n: int, *, seed: int, temperature: float = 1.0, batch: int = 1000) -> list[str]:
    """Texts that a model writes by itself from the start token, a character at a time, n of them.

    A start token inside a text is shown as `^`, which no rule allows. A string that should end and does not is cut
    after the rule's length.
    """
    rule, vocab = task.world.rule, task.vocab
    generator = torch.Generator().manual_seed(seed)
    stop = (len(rule.alphabet) - 1,) if rule.ends else ()
    texts = []
    for first in range(0, n, batch):
        start = torch.full((min(batch, n - first), 1), len(vocab) - 1)
        written = model.generate(
            start, rule.length, temperature=temperature, stop_tokens=stop, generator=generator, return_type="tokens",
            use_past_kv_cache=False,
        )  # fmt: skip
        for row in written[:, 1:].tolist():
            text = "".join(vocab[token] for token in row)
            texts.append(text.partition(END)[0] if rule.ends else text)
    return texts


def uniform_texts(world: Any, texts: Sequence[str], *, seed: int) -> list[str]:
    """As many texts of the same lengths, every character drawn uniformly (END aside)."""
    letters = np.array(list(world.rule.alphabet.removesuffix(END) if world.rule.ends else world.rule.alphabet))
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(letters, size=len(text))) for text in texts]
