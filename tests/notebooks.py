"""The tutorials as the tests run them, and as the documentation shows them.

    python tests/notebooks.py [NAME …]    runs notebooks of docs/tutorials and stores what their cells print

No kernel is needed: cells are executed in order in one namespace; what is stored is what a cell prints, and the value
of an expression at its end.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells that are run."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> str:
    """What a cell prints, and after it the value of an expression at its end."""
    tree, out = ast.parse(source), io.StringIO()
    last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    tree.body = tree.body if last is None else tree.body[:-1]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(tree, "cell", "exec"), names)
        value = (
            None if not isinstance(last, ast.Expr) else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        )
    return out.getvalue() + ("" if value is None else f"{value!r}\n")


def run(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The notebook with the outputs of its cells, and the names that it leaves."""
    notebook = json.loads(path.read_text("utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells(notebook):
        printed = run_cell("".join(cell["source"]), names)
        lines = printed.splitlines(keepends=True)
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if printed.strip() else []
    return notebook, names


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for file in sorted(TUTORIALS.glob("*.ipynb")):
        if len(sys.argv) == 1 or file.stem in sys.argv[1:]:
            began = time.process_time()
            told, _ = run(file)
            file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
            print(f"{file.stem}: {time.process_time() - began:.0f} s")
