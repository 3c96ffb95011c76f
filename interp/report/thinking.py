"""The report's section on thinking: answers as they come into being, loop step by loop step or entry by entry."""

from __future__ import annotations

from typing import Any

from interp.report.material import Material, Missing
from interp.report.page import Page, code, escape, how_to_read, missing, table

_NUMBERS = (11, 19, 27)  # which examples: where every number of steps is drawn in turn, of medium to long runs
_SEED = 20  # of the examples: the app's


def thinks(material: Material) -> bool:
    """Whether the run's model goes over its answer more than once, or writes a chain before it."""
    return bool(getattr(material.run.config.model, "drafts_in", None)) or material.run.task.writes


def thinking_section(material: Material, page: Page) -> str:
    """Some of the app's held-out examples, each with a slider of steps, or a strip of written entries."""
    if isinstance(material.weights, Missing):
        return missing(material.weights.message, material.weights.command)
    run = material.run
    word = getattr(run.config.model, "drafts_in", None)
    body = how_to_read(
        "The model writes what each executed step does before it answers. Every entry stands beside the machine's: ✓ "
        "it is the machine's, ✗ it is not. The answer may be right behind a wrong entry; whether it goes by what is "
        f"written is asked with {code('tapelens chains')}."
        if word is None
        else f"The model goes over its answer again and again. Each {word} is decoded here as if it were the last, "
        "beside the answer of the world: ✓ right, ✗ wrong, · not decided yet. Where the model's own rule stops it, the "
        "step says so; the model never sees what is decoded on the way."
    )
    panels = []
    for number in _NUMBERS:
        batch = run.task.sample(1, seed=_SEED, start=number, split="evaluation")
        told = _chain(run, batch) if word is None else _drafts(run, batch, page, word)
        prompt = f'<p class="quiet">{escape(_shown(run.task, batch))}</p>'
        panels.append((f"example {number + 1}", prompt + told))
    return body + page.tabs("held-out examples", panels)


def _shown(task: Any, batch: Any) -> str:
    """The tokens that are given."""
    tokens = batch.tokens[0, task.prompt_positions].tolist()
    return " ".join(task.vocab[token] if token < len(task.vocab) else "·" for token in tokens)


def _drafts(run: Any, batch: Any, page: Page, word: str) -> str:
    """A tab a step: the tokens that are answered after it, and the world's."""
    found, vocab, names = run.model.drafts(run.task, batch), run.task.vocab, run.task.position_names
    right, panels, last = found.right, [], len(found.tokens) - 1
    for at, (tokens, p) in enumerate(zip(found.tokens.tolist(), found.p.tolist(), strict=True)):
        lines = []
        for place, (token, share) in enumerate(zip(tokens, p, strict=True)):
            said = "·" if token < 0 else f"{escape(vocab[token])} {'✓' if right[at, place] else '✗'} {share:.3f}"
            true = escape(vocab[int(found.truth[place])])
            lines.append([code(names[int(found.positions[place])]), said, true])
        whole = "✓ the whole answer is right" if bool(right[at].all()) else "✗ the answer is not right"
        stops = "; here the model stops by itself" if found.stop == at else ""
        title = f"<p>{escape(word)} {at + 1} of {last + 1}: {whole}{stops}.</p>"
        mark = "◀" if found.stop == at else ""
        panels.append((f"{at + 1}{mark}", title + table(["token", "the model", "the world"], lines)))
    chosen = last if found.stop is None else found.stop
    return page.tabs(word, panels, chosen=chosen)


def _chain(run: Any, batch: Any) -> str:
    """The entries that the model writes, each beside the machine's, and its answer."""
    written = run.task.answer(run.model, batch)
    steps, said, true = run.task.told_steps(written, batch)
    marks = "".join("✓" if right else "✗" for _, _, right in steps)
    lines = [[str(s + 1), escape(own), escape(theirs), "✓" if r else "✗"] for s, (own, theirs, r) in enumerate(steps)]
    ending = f"<p>Its answer: {escape(said)}, {'✓' if said == true else '✗'}; the machine prints {escape(true)}.</p>"
    strip = f'<p role="img" aria-label="{marks.count("✓")} of {len(steps)} entries right">{marks}</p>'
    return strip + table(["entry", "the model", "the machine", ""], lines) + ending
