"""The modules of `cython_vm` import each other one way, at their top; importing the package needs NumPy alone."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import cython_vm

FOLDER = Path(cython_vm.__file__).parent
MODULES = {f"cython_vm.{path.stem}": path for path in FOLDER.glob("*.py") if path.stem != "__init__"}
KERNELS = {f"cython_vm.{path.stem}" for path in FOLDER.glob("*.pyx")}


def only_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree):
    """(Line, module, whether it is inside a function or class) of every import, those for type checkers aside."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if only_for_types(child):
                continue
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0 and child.module, "imports are absolute"
                for alias in child.names:
                    deeper = f"{child.module}.{alias.name}"  # from cython_vm import states
                    yield child.lineno, deeper if deeper in {*MODULES, *KERNELS} else child.module, inside
            yield from walk(child, inside or isinstance(child, (ast.FunctionDef, ast.ClassDef, ast.Lambda)))

    return list(walk(tree, False))


def graph(sources):
    """Module → the modules of ours that it imports, wherever in the file."""
    return {
        name: {target for _, target, _ in imports(ast.parse(text)) if target.partition(".")[0] == "cython_vm"}
        for name, text in sources.items()
    }


def test_no_module_imports_itself_by_a_detour():
    found = graph({name: path.read_text(encoding="utf-8") for name, path in MODULES.items()})
    order = list(TopologicalSorter(found).static_order())  # raises CycleError, which names the cycle
    assert set(order) == MODULES.keys() | {target for targets in found.values() for target in targets}
    assert "cython_vm" not in order, "a module imports the package that imports it"
    assert order.index("cython_vm.spec") < order.index("cython_vm.states") < order.index("cython_vm.variables")


def test_the_walk_sees_what_functions_import_and_not_what_types_do():
    text = """
from typing import TYPE_CHECKING
from cython_vm import states
if TYPE_CHECKING:
    from cython_vm.spec import MachineSpec
def f():
    from cython_vm.machine import step
"""
    assert graph({"m": text}) == {"m": {"cython_vm.states", "cython_vm.machine"}}
    assert [name for _, name, inside in imports(ast.parse(text)) if inside] == ["cython_vm.machine"]


def test_modules_of_ours_are_imported_at_the_top():
    hidden = [
        f"{path.name}:{line} imports {name} inside a function"
        for path in MODULES.values()
        for line, name, inside in imports(ast.parse(path.read_text(encoding="utf-8")))
        if inside and name.partition(".")[0] == "cython_vm"
    ]
    assert hidden == []


def test_numpy_is_all_that_is_needed():
    code = """
import sys, numpy
before = set(sys.modules)
import cython_vm
print(*{name.partition(".")[0] for name in sys.modules.keys() - before} - set(sys.stdlib_module_names))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=FOLDER.parent)
    names = {name for name in found.stdout.split() if not name.startswith(("_cython_", "cython_runtime", "numpy"))}
    assert names == {"cython_vm"}
