"""docs/extending.md from its words and the files of examples/extending. `make house` writes it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
FILES = ROOT / "examples" / "extending"
PARTS = {
    "larger_world.py": """## A world

What is true, apart from how it is shown: examples, variables with their values, what would come out if one were
different, what must be held out together. Everything else asks these few methods. A world without `do` is probed and
evaluated; causal methods refuse it in a sentence that names what it lacks.""",
    "larger_task.py": """## A task

One way of showing a world to a model: tokens, what is asked where, and (for circuits) inputs that differ in one thing.
Scores, counterfactuals and labels come from the world.""",
    "pooled_model.py": """## An architecture

A `HookedModel` with a frozen config. It declares the axes of its activations and where its residual stream can be
cut; what it does not declare (attention, a graph of edges, a state that is carried along), methods leave out, and say
so.""",
    "neighbour_probe.py": """## A probe

A scikit-learn estimator over arrays `[*batch, n, d]`, in the registry that sweeps read.""",
    "weight_scorer.py": """## A scorer of edges

A function from a model and pairs to a score for every edge, in the registry that the search, the calibration and the
pages read.""",
}
OPENING = """# Adding a world, a task, an architecture, a probe, a scorer

Each is one file and one entry of a registry. The five files below lie in `examples/extending`; a test runs them through
training, evaluation, probing, interchange, circuits, the report and the app, in a process where the machine cannot be
imported (`tests/test_extending.py`).
"""


def page() -> str:
    """The page as it should be."""
    parts = [OPENING]
    for name, words in PARTS.items():
        code = (FILES / name).read_text(encoding="utf-8").strip()
        parts.append(f"{words}\n\n`examples/extending/{name}`:\n\n```python\n{code}\n```\n")
    parts.append(f"## All of it\n\n```python\n{(FILES / 'journey.py').read_text(encoding='utf-8').strip()}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
