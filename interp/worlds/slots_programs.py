"""Compilers: from a task and its size to a memory that does it.

A looped plan has the same instructions at any size; a straight one repeats them for every place, and jumps forwards
alone. Every one is proved against Python's own on all small inputs (`tests/worlds/test_slots.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cython_vm._slots import Kind
from interp.worlds.slots_assembler import Assembler, Program, array_role


def add(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """The sum of two numbers of `n` digits, least significant first, in n + 1 digits."""
    if straight:
        for i in range(n):
            m.op(Kind.ADC, f"a[{i}]", f"b[{i}]", f"sum[{i}]", place=(i, n))
        m.op(Kind.ADC, "nil", "nil", f"sum[{n}]")
        m.op(Kind.HALT)
    else:
        m.label("loop")
        m.op(Kind.ADC, "*p", "*q", "*r")
        for pointer in "pqr":
            m.op(Kind.STEP, f"*{pointer}", to=pointer)
        m.op(Kind.ORDER, "p", "end", "flag")
        m.op(Kind.JUMP, "flag", "one", "loop")  # p is still before the end
        m.op(Kind.ADC, "nil", "nil", "*r")
        m.op(Kind.HALT)
        for pointer, to in (("p", "a[0]"), ("q", "b[0]"), ("r", "sum[0]"), ("end", "b[0]")):
            m.data(pointer, following=to)
        m.data("flag")
        m.data("one", 1)
    for name in ("a", "b", "sum"):
        m.array(name, n)
    m.data(f"sum[{n}]", role=("carried out", 0))
    return [*_named("a", n), *_named("b", n)], _named("sum", n + 1)


def sort(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """Bubble sort of `n` values where they stand."""
    if straight:
        for last in range(n - 1, 0, -1):
            for i in range(last):
                here, behind = f"v[{i}]", f"v[{i + 1}]"
                m.op(Kind.CMP, here, behind, "flag")
                m.op(Kind.JUMP, "flag", "two", f"swap {last} {i}")
                m.jump(f"go on {last} {i}")
                m.label(f"swap {last} {i}")
                for first, to in ((here, "held"), (behind, here), ("held", behind)):
                    m.op(Kind.COPY, first, to=to)
                m.label(f"go on {last} {i}")
        m.op(Kind.HALT)
    else:
        m.label("pass")
        m.op(Kind.ORDER, "last", "first", "flag")
        m.op(Kind.JUMP, "flag", "nil", "done")
        m.op(Kind.POINT, "*first", to="p")
        m.label("loop")
        m.op(Kind.STEP, "*p", to="q")
        m.op(Kind.CMP, "*p", "*q", "flag")
        m.op(Kind.JUMP, "flag", "two", "swap")
        m.label("go on")
        m.op(Kind.POINT, "*q", to="p")
        m.op(Kind.ORDER, "p", "last", "flag")
        m.op(Kind.JUMP, "flag", "one", "loop")
        m.op(Kind.LEFT, "*last", to="last")
        m.jump("pass")
        m.label("swap")
        for first, to in (("*p", "held"), ("*q", "*p"), ("held", "*q")):
            m.op(Kind.COPY, first, to=to)
        m.jump("go on")
        m.label("done")
        m.op(Kind.HALT)
        for pointer, to in (("p", "nil"), ("q", "nil"), ("first", "v[0]"), ("last", f"v[{n - 1}]")):
            m.data(pointer, following=to)
        m.data("one", 1)
    for name, content in (("flag", 0), ("held", 0), ("two", 2)):
        m.data(name, content)
    m.array("v", n, linked=True)
    return _named("v", n), _named("v", n)


def search(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """Whether the first of n + 1 values is among the others, looked at one by one."""
    if straight:
        for i in range(n):
            m.op(Kind.JUMP, f"v[{i}]", "key", "hit")
        m.op(Kind.HALT)
    else:
        m.label("loop")
        m.op(Kind.JUMP, "*p", "key", "hit")
        _step_and_loop(m, "p")
        m.op(Kind.HALT)
    m.label("hit")
    m.op(Kind.COPY, "one", to="found")
    m.op(Kind.HALT)
    if not straight:
        m.data("p", following="v[0]")
        m.data("end", following="behind")
        m.data("flag")
    m.data("one", 1)
    _keyed(m, n)
    m.data("behind")
    return ["key", *_named("v", n)], ["found"]


def binary_search(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """The same where the others are sorted: left and right pointers lead to the middles of both halves."""
    m.label("loop")
    rounds = n.bit_length() if straight else 1
    for i in range(rounds):
        behind = f"round {i + 1}" if i + 1 < rounds else "loop"
        if straight:
            behind = f"round {i + 1}"
            m.label(f"round {i}")
        m.op(Kind.ORDER, "p", "nil", "flag")
        m.op(Kind.JUMP, "flag", "nil", "done")
        m.op(Kind.CMP, "key", "*p", "flag")
        m.op(Kind.JUMP, "flag", "nil", "hit")
        m.op(Kind.JUMP, "flag", "one", f"down {i}")
        m.op(Kind.RIGHT, "*p", to="p")
        m.jump(behind)
        m.label(f"down {i}")
        m.op(Kind.LEFT, "*p", to="p")
        m.jump(behind)
    m.label(f"round {rounds}")
    m.label("done")
    m.op(Kind.HALT)
    m.label("hit")
    m.op(Kind.COPY, "one", to="found")
    m.op(Kind.HALT)
    m.data("p", following=f"v[{n // 2}]")
    m.data("flag")
    m.data("one", 1)
    m.data("found")
    m.data("key")
    children = _middles(0, n)
    for i in range(n):
        left, right = ("nil" if each is None else f"v[{each}]" for each in children[i])
        m.data(f"v[{i}]", left=left, right=right, role=array_role("v", i, n))
    return ["key", *_named("v", n)], ["found"]


def reverse(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """`n` values in the other order."""
    return _moved(m, n, straight, backwards=True)


def copied(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """`n` values once more."""
    return _moved(m, n, straight, backwards=False)


def _moved(m: Assembler, n: int, straight: bool, *, backwards: bool) -> tuple[list[str], list[str]]:
    if straight:
        for i in range(n):
            m.op(Kind.COPY, f"v[{n - 1 - i if backwards else i}]", to=f"out[{i}]")
        m.op(Kind.HALT)
    else:
        m.label("loop")
        m.op(Kind.COPY, "*p", to="*q")
        m.op(Kind.STEP, "*q", to="q")
        m.op(Kind.LEFT if backwards else Kind.STEP, "*p", to="p")
        m.op(Kind.ORDER, "q", "end", "flag")
        m.op(Kind.JUMP, "flag", "one", "loop")
        m.op(Kind.HALT)
        m.data("p", following=f"v[{n - 1 if backwards else 0}]")
        m.data("q", following="out[0]")
        m.data("end", following="behind")
        m.data("flag")
        m.data("one", 1)
    m.array("v", n, linked=backwards)
    m.array("out", n)
    m.data("behind")
    return _named("v", n), _named("out", n)


def compare(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """Two numbers of `n` digits, least significant first: 0 where equal, 1 where the first is less, 2 greater."""
    if straight:
        for i in range(n - 1, -1, -1):
            m.op(Kind.CMP, f"a[{i}]", f"b[{i}]", "order")
            m.op(Kind.JUMP, "order", "nil", f"place {i}")
            m.jump("done")
            m.label(f"place {i}")
    else:
        m.label("loop")
        m.op(Kind.CMP, "*p", "*q", "order")
        m.op(Kind.JUMP, "order", "nil", "equal")
        m.op(Kind.HALT)
        m.label("equal")
        m.op(Kind.LEFT, "*p", to="p")
        m.op(Kind.LEFT, "*q", to="q")
        m.op(Kind.ORDER, "nil", "p", "flag")
        m.op(Kind.JUMP, "flag", "one", "loop")
    m.label("done")
    m.op(Kind.HALT)
    if not straight:
        m.data("p", following=f"a[{n - 1}]")
        m.data("q", following=f"b[{n - 1}]")
        m.data("flag")
        m.data("one", 1)
    m.data("order")
    m.array("a", n, linked=True)
    m.array("b", n, linked=True)
    return [*_named("a", n), *_named("b", n)], ["order"]


def substring(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """Whether a pattern of (n + 1) // 3 values, at least one, occurs among `n` values."""
    k = max(1, (n + 1) // 3)
    if straight:
        for start in range(n - k + 1):
            for i in range(k):
                m.op(Kind.JUMP, f"v[{start + i}]", f"w[{i}]", f"like {start} {i}")
                m.jump(f"start {start + 1}")
                m.label(f"like {start} {i}")
            m.jump("hit")
            m.label(f"start {start + 1}")
        m.op(Kind.HALT)
    else:
        m.label("start")
        m.op(Kind.POINT, "*s", to="p")
        m.op(Kind.POINT, "*whole", to="q")
        m.label("loop")
        m.op(Kind.JUMP, "*p", "*q", "like")
        m.op(Kind.STEP, "*s", to="s")
        m.op(Kind.ORDER, "s", "stop", "flag")
        m.op(Kind.JUMP, "flag", "one", "start")
        m.op(Kind.HALT)
        m.label("like")
        m.op(Kind.STEP, "*p", to="p")
        m.op(Kind.STEP, "*q", to="q")
        m.op(Kind.ORDER, "q", "end", "flag")
        m.op(Kind.JUMP, "flag", "one", "loop")
    m.label("hit")
    m.op(Kind.COPY, "one", to="found")
    m.op(Kind.HALT)
    m.data("one", 1)
    if not straight:
        stop = f"v[{n - k + 1}]" if k > 1 else "w[0]"
        for name, to in (
            ("s", "v[0]"),
            ("p", "nil"),
            ("q", "nil"),
            ("whole", "w[0]"),
            ("stop", stop),
            ("end", "found"),
        ):
            m.data(name, following=to)
        m.data("flag")
    m.array("v", n)
    m.array("w", k)
    m.data("found")
    return [*_named("v", n), *_named("w", k)], ["found"]


def runs(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """Run lengths of `n` values: each run's value, then each run's length, 0 behind the last."""
    _looped_only("runs", straight)
    m.label("run")
    m.op(Kind.COPY, "*p", to="*q")
    m.label("loop")
    m.op(Kind.ADD, "*r", "one", "*r")
    m.op(Kind.STEP, "*p", to="p")
    m.op(Kind.ORDER, "p", "end", "flag")
    m.op(Kind.JUMP, "flag", "nil", "done")
    m.op(Kind.JUMP, "*p", "*q", "loop")
    m.op(Kind.STEP, "*q", to="q")
    m.op(Kind.STEP, "*r", to="r")
    m.jump("run")
    m.label("done")
    m.op(Kind.HALT)
    for pointer, to in (("p", "v[0]"), ("q", "value[0]"), ("r", "length[0]"), ("end", "value[0]")):
        m.data(pointer, following=to)
    m.data("flag")
    m.data("one", 1)
    for name in ("v", "value", "length"):
        m.array(name, n)
    return _named("v", n), [*_named("value", n), *_named("length", n)]


def linked_list(m: Assembler, n: int, straight: bool) -> tuple[list[str], list[str]]:
    """`n` values put in front of a list whose nodes are allocated, then read from its head; every node is freed."""
    _looped_only("list", straight)
    m.op(Kind.POINT, "v[0]", to="p")
    m.label("build")
    m.op(Kind.NEW, to="node")
    m.op(Kind.COPY, "*p", to="*node")
    m.op(Kind.POINT, "*head", to="*node")
    m.op(Kind.POINT, "*node", to="head")
    m.op(Kind.STEP, "*p", to="p")
    m.op(Kind.ORDER, "p", "end", "flag")
    m.op(Kind.JUMP, "flag", "one", "build")
    m.op(Kind.POINT, "out[0]", to="q")
    m.label("read")
    m.op(Kind.COPY, "*head", to="*q")
    m.op(Kind.STEP, "*q", to="q")
    m.op(Kind.POINT, "*head", to="node")
    m.op(Kind.NEXT, "*head", to="head")
    m.op(Kind.DROP, "*node")
    m.op(Kind.ORDER, "nil", "head", "flag")
    m.op(Kind.JUMP, "flag", "one", "read")
    m.op(Kind.HALT)
    for pointer in ("p", "q", "head", "node"):
        m.data(pointer)
    m.data("end", following="out[0]")
    m.data("flag")
    m.data("one", 1)
    m.array("v", n)
    m.array("out", n)
    m.heap(n)
    return _named("v", n), _named("out", n)


@dataclass(frozen=True)
class Compiler:
    """One task of the slot machine."""

    build: Callable[[Assembler, int, bool], tuple[list[str], list[str]]]
    words: str  # what follows "the slot machine that": "adds two numbers"
    has_straight: bool = True


COMPILERS: dict[str, Compiler] = {
    "add": Compiler(add, "adds two numbers"),
    "sort": Compiler(sort, "sorts by exchanging neighbours"),
    "search": Compiler(search, "looks for a value"),
    "binary_search": Compiler(binary_search, "looks for a value in a sorted list by halves"),
    "reverse": Compiler(reverse, "reverses a list"),
    "copy": Compiler(copied, "copies a list"),
    "compare": Compiler(compare, "compares two numbers"),
    "substring": Compiler(substring, "looks for a pattern"),
    "runs": Compiler(runs, "counts runs of equal values", has_straight=False),
    "list": Compiler(linked_list, "builds a linked list and frees it", has_straight=False),
}


def compile_program(name: str, size: int, *, straight: bool = False, base: int = 10, n_values: int = 20) -> Program:
    """The memory of a task of some size.

    Raises:
        ValueError: no such task, a size below 1, or a task that has no straight plan.
    """
    if name not in COMPILERS:
        raise ValueError(f"program must be one of {', '.join(COMPILERS)}, got {name!r}")
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 1000:
        raise ValueError(f"size must be an integer from 1 to 1000, got {size!r}")
    m = Assembler(base, n_values)
    return m.build(*COMPILERS[name].build(m, size, straight))


def _named(name: str, n: int) -> list[str]:
    return [f"{name}[{i}]" for i in range(n)]


def _step_and_loop(m: Assembler, pointer: str) -> None:
    """Move a pointer on, and go back to `loop` while it has not come to the end."""
    m.op(Kind.STEP, f"*{pointer}", to=pointer)
    m.op(Kind.ORDER, pointer, "end", "flag")
    m.op(Kind.JUMP, "flag", "one", "loop")


def _keyed(m: Assembler, n: int) -> None:
    m.data("found")
    m.data("key")
    m.array("v", n)


def _middles(low: int, high: int) -> dict[int, tuple[int | None, int | None]]:
    """Of every place, the middles of what is left of it and right of it, by halving [low, high)."""
    if low >= high:
        return {}
    middle = (low + high) // 2
    halves = tuple((a + b) // 2 if a < b else None for a, b in ((low, middle), (middle + 1, high)))
    return {middle: (halves[0], halves[1]), **_middles(low, middle), **_middles(middle + 1, high)}


def _looped_only(name: str, straight: bool) -> None:
    if straight:
        raise ValueError(f"the program {name} has a looped plan alone; got form 'straight'")
