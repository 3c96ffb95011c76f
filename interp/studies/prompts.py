"""What a model does with a prompt: the next token, attention, induction, the logit lens, and patching two prompts.

    run = interp.load("checkpoints/text_small")
    reading = read_prompt(run, "The assert statement")
    reading.likeliest(5), reading.patterns.shape, logit_lens(run, "The assert statement").shape

No world has to say what is right: two prompts that a person writes stand in for a variable that is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.runs import Run


@dataclass(frozen=True, eq=False)
class Reading:
    """One pass over a prompt."""

    tokens: Tensor  # long [pos]
    names: list[str]  # of the tokens
    probabilities: NDArray[np.float64]  # of the next token at each, [pos, d_vocab]
    vocab: tuple[str, ...]
    patterns: NDArray[np.float32] | None  # [layer, head, query_pos, key_pos]; None where there is no attention
    cut: int  # tokens of the prompt that were left out: the model looks back on so many at most

    def likeliest(self, k: int, at: int = -1) -> list[tuple[str, float]]:
        """The k likeliest next tokens behind position `at`, with their probabilities."""
        order = np.argsort(-self.probabilities[at], kind="stable")[:k]
        return [(self.vocab[each], float(self.probabilities[at, each])) for each in order]


def prompt_tokens(run: Run, text: str) -> tuple[Tensor, int]:
    """A prompt as tokens [1, pos], the last that the model can look back on, and how many were left out.

    Raises:
        ValueError: a world without texts, an empty prompt, or a character that the text never had.
    """
    if "text" not in run.config.world.capabilities:
        raise run.config.world.lacks("text")
    if not text:
        raise ValueError("a prompt must hold a character at least")
    tokens, longest = run.task.encode(text), run.model.longest
    cut = 0 if longest is None else max(0, tokens.shape[1] - longest)
    return tokens[:, cut:], cut


@torch.no_grad()
def read_prompt(run: Run, text: str) -> Reading:
    """One pass over a prompt. Raises ValueError as `prompt_tokens`."""
    tokens, cut = prompt_tokens(run, text)
    hooks = run.model.attention_hooks()
    logits, cache = run.model.run_with_cache(tokens, names_filter=list(hooks))
    patterns = np.stack([cache[hook][0].float().numpy() for hook in hooks]) if hooks else None
    names = [run.task.vocab[token] for token in tokens[0].tolist()]
    return Reading(tokens[0], names, logits[0].double().softmax(-1).numpy(), run.task.vocab, patterns, cut)


def induction_on(reading: Reading) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Each head's share of attention on what followed earlier uses of the token at hand, [layer, head], averaged over
    the places where there is such a token; and what attention spread evenly would give. None where there is none."""
    if reading.patterns is None:
        return None
    tokens = reading.tokens.numpy()
    length = len(tokens)
    before = np.concatenate([[-1], tokens[:-1]])
    followed = (before[None, :] == tokens[:, None]) & (np.arange(length)[None, :] <= np.arange(length)[:, None])
    some = followed.any(axis=1)
    if not some.any():
        return None
    shares = (reading.patterns * followed).sum(axis=-1)[..., some].mean(axis=-1)
    even = (followed.sum(axis=1) / np.arange(1, length + 1))[some].mean()
    return shares.astype(np.float64), np.full_like(shares, even, dtype=np.float64)


@torch.no_grad()
def induction_scores(model: Any, *, rows: int = 16, seed: int = 0) -> NDArray[np.float64]:
    """Induction heads: the share of attention, over the second half of random tokens said twice, on the token behind
    the earlier use of the one at hand, [layer, head] (Olsson et al. 2022). Even attention gives about 1 / length.

    Raises:
        ValueError: a model without attention.
    """
    if not (hooks := model.attention_hooks()):
        raise ValueError(f"a model of the kind {model.cfg.architecture} has no attention, so no induction heads")
    half = model.cfg.n_ctx // 2
    once = torch.randint(model.cfg.d_vocab - 1, (rows, half), generator=torch.Generator().manual_seed(seed))
    _, cache = model.run_with_cache(torch.cat([once, once], dim=1), names_filter=list(hooks))
    queries = torch.arange(half, 2 * half - 1)
    return np.stack([cache[hook][:, :, queries, queries - half + 1].mean(dim=(0, 2)).numpy() for hook in hooks])


@torch.no_grad()
def logit_lens(run: Run, text: str) -> NDArray[np.float64]:
    """Log-probabilities of the next token read off the residual stream before the first layer and after each, with the
    final norm and the unembedding, [n_layers + 1, pos, d_vocab] (nostalgebraist 2020). The last are the model's own.

    Raises:
        ValueError: as `prompt_tokens`; or a model that declares no residual stream.
    """
    hooks = run.model.residual_hooks()
    if not hooks:
        raise ValueError(f"a model of the kind {run.model.cfg.architecture} declares no residual stream")
    _, cache = run.model.run_with_cache(prompt_tokens(run, text)[0], names_filter=list(hooks))
    model = run.model
    return np.stack(
        [(model.ln_final(cache[hook][0]) @ model.W_U + model.b_U).double().log_softmax(-1).numpy() for hook in hooks]
    )


@torch.no_grad()
def patch_prompts(run: Run, clean: str, corrupted: str) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Activation patching between two prompts: how much of the clean answer comes back, at each cut of the residual
    stream and each position, when that one vector of the clean run is put into the corrupted one.

    The answer is what each prompt makes likeliest; the metric is the logit of the clean answer less that of the
    corrupted one, 0 as in the corrupted run and 1 as in the clean one.

    Returns:
        float64 [n_layers + 1, pos], and the two answers.

    Raises:
        ValueError: prompts of unequal length or with the same answer, or as `logit_lens`.
    """
    (first, _), (second, _) = prompt_tokens(run, clean), prompt_tokens(run, corrupted)
    if first.shape != second.shape:
        raise ValueError(f"both prompts must have as many tokens; got {first.shape[1]} and {second.shape[1]}")
    model, hooks = run.model, run.model.residual_hooks()
    if not hooks:
        raise ValueError(f"a model of the kind {model.cfg.architecture} declares no residual stream")
    logits, cache = model.run_with_cache(first, names_filter=list(hooks))
    other = model(second)
    right, wrong = int(logits[0, -1].argmax()), int(other[0, -1].argmax())
    if right == wrong:
        raise ValueError(f"both prompts have the same likeliest next token, {run.task.vocab[right]!r}")

    def difference(found: Tensor) -> Tensor:
        return (found[:, -1, right] - found[:, -1, wrong]).double()

    low, high = difference(other), difference(logits)
    length = first.shape[1]
    rows = torch.arange(length)

    def put(activation: Tensor, hook: Any, value: Tensor) -> Tensor:
        changed = activation.clone()
        changed[rows, rows] = value  # row p is patched at position p
        return changed

    effects = []
    for name in hooks:
        patched = model.run_with_hooks(
            second.expand(length, -1), fwd_hooks=[(name, partial(put, value=cache[name][0]))]
        )
        effects.append(((difference(patched) - low) / (high - low)).numpy())
    return np.stack(effects), (run.task.vocab[right], run.task.vocab[wrong])
