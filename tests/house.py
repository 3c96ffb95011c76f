"""Every module of the project in a line: the first sentence of its docstring. `make house` writes docs/house.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "house.md"
PACKAGES = ("cython_vm", "interp", "probes", "app", "benchmarks")
OPENING = """# The house

Every module in a line, room by room; a room imports only rooms below it (`make lint` holds the contract in
`pyproject.toml`). Made from the modules' docstrings by `make house`.
"""


def first_sentence(file: Path) -> str:
    """What a module says it is: its docstring up to the first full stop."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".pyx":
        found = re.search(r'"""(.+?)"""', text, flags=re.DOTALL)
        docstring = found[1] if found else None
    else:
        docstring = ast.get_docstring(ast.parse(text))
    if not docstring:
        raise ValueError(f"{file.relative_to(ROOT)} has no docstring; its first sentence says what it is")
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", paragraph + " ")[0].strip().rstrip(":.").strip() + "."


def modules(folder: Path) -> list[Path]:
    """The modules directly in a folder, its `__init__` aside."""
    found = [*folder.glob("*.py"), *folder.glob("*.pyx")]
    return sorted(file for file in found if not file.name.startswith("__"))


def page() -> str:
    """docs/house.md as it should be."""
    parts = [OPENING]
    for package in PACKAGES:
        folders = [ROOT / package, *sorted(p for p in (ROOT / package).rglob("*") if p.is_dir())]
        for folder in folders:
            if not (files := modules(folder)):
                continue
            parts.append(f"\n## {folder.relative_to(ROOT)}\n")
            if (init := folder / "__init__.py").exists() and ast.get_docstring(ast.parse(init.read_text())):
                parts.append(f"{first_sentence(init)}\n")
            parts.append("".join(f"- `{file.name}`: {first_sentence(file)}\n" for file in files))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
