"""What the documentation site is made of beside docs/*.md: tutorials from notebooks, run cards, and the reference.

mkdocs calls these hooks. Pages are made in memory when the site is built, so that nothing is written twice.
"""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    *("interp", "interp.worlds", "interp.tasks", "interp.models", "interp.runs", "interp.training"),
    *("interp.interventions", "interp.probing", "interp.circuits", "interp.evaluation.measure", "interp.compiled"),
    *("interp.calibration", "interp.figures", "interp.studies", "interp.results", "probes", "cython_vm"),
)
_CARD = re.compile(r"\(\.\./checkpoints/(\w+)/card\.md\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for notebook in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        _add(files, config, f"tutorials/{notebook.stem}.md", tutorial(notebook))
    cards = sorted((ROOT / "checkpoints").glob("*/card.md"))
    for card in cards:
        _add(files, config, f"cards/{card.parent.name}.md", card.read_text("utf-8"))
    listed = "\n".join(f"- [{card.parent.name}]({card.parent.name}.md)" for card in cards)
    _add(files, config, "cards/index.md", f"# Run cards\n\nOne for each bundled run: how it was made, what it gets "
         f"right, its known failures.\n\n{listed}\n")  # fmt: skip
    for page in ("CONTRIBUTING", "SECURITY"):
        _add(files, config, f"{page.lower()}.md", (ROOT / f"{page}.md").read_text("utf-8"))
    known = {package: public_names(package) for package in PACKAGES}
    for package, names in known.items():
        _add(files, config, f"reference/{package}.md", reference(package, names))
    lines = [f"- [`{package}`]({package}.md): {_first_sentence(package)}" for package in PACKAGES]
    _add(files, config, "reference/index.md", "# Reference\n\nEvery public name, from its docstring.\n\n"
         + "\n".join(lines) + "\n")  # fmt: skip
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links that are right in the repository, made right on the site."""
    if page.file.src_uri == "contributing.md":
        markdown = re.sub(r"\(docs/([\w/]+\.md)\)", r"(\1)", markdown)
    return _CARD.sub(r"(cards/\1.md)", markdown)


def public_names(package: str) -> list[str]:
    """The names that a package declares public, in its own order; of a module that declares none, what it defines."""
    module = import_module(package)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == package)
    return [name for name in own if not name.startswith("_")]


def reference(package: str, names: list[str]) -> str:
    """A page with every public name of a package."""
    listed = "\n\n".join(f"::: {package}.{name}" for name in names)
    return f"# `{package}`\n\n{_docstring(package)}\n\n{listed}\n"


def tutorial(notebook: Path) -> str:
    """A notebook as a page: prose, code, and the outputs that are stored in it."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            text = "".join(output.get("text", data.get("text/plain", "")))
            if "image/svg+xml" in data:
                parts.append(f"<div>{''.join(data['image/svg+xml'])}</div>")
            elif text.strip():
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(f"The notebook itself: `docs/tutorials/{notebook.name}`. The tests run it.")
    return "\n\n".join(parts) + "\n"


def _add(files: Files, config: MkDocsConfig, uri: str, text: str) -> None:
    files.append(File.generated(config, uri, content=text))


def _docstring(package: str) -> str:
    return (import_module(package).__doc__ or "").strip()


def _first_sentence(package: str) -> str:
    return _docstring(package).split("\n\n")[0].replace("\n", " ")
