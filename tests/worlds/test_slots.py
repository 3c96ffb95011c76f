"""The slot machine: its kernel against the reference on any memory, and every compiler against Python's own."""

from __future__ import annotations

from itertools import groupby, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import slots, slots_reference
from cython_vm._slots import Fate, Kind
from cython_vm.slots import SEEN, SlotSpec
from interp.worlds.slots import SlotWorld
from interp.worlds.slots_assembler import Assembler
from interp.worlds.slots_programs import COMPILERS, compile_program
from interp.worlds.slots_tables import KINDS

SPEC = SlotSpec(n_slots=6, base=3, n_values=8)
FORMS = [(name, straight) for name, each in COMPILERS.items() for straight in (False, True)[: 1 + each.has_straight]]


def test_kinds_are_the_kernels() -> None:
    assert {each.name: int(each) for each in Kind} == KINDS


def unpacked(spec: SlotSpec, row: np.ndarray) -> slots_reference.Memory:
    kinds, following, left, right, contents = (each.tolist() for each in row[:-3].reshape(5, spec.n_slots))
    return slots_reference.Memory(kinds, (following, left, right), contents, *row[-3:].tolist())


def packed(memory: slots_reference.Memory) -> list[int]:
    following, left, right = memory.pointers
    registers = (memory.pc, memory.carry, memory.free)
    return [*memory.kinds, *following, *left, *right, *memory.contents, *registers]


@st.composite
def memories(draw: Any) -> np.ndarray:
    return np.array([draw(st.integers(0, int(top) - 1)) for top in SPEC.limits()], dtype=np.int32)


@st.composite
def settings_of_a_step(draw: Any) -> dict[str, int]:
    names = draw(st.lists(st.sampled_from(SEEN[:-1]), unique=True, max_size=3))
    return {name: draw(st.integers(0, slots.n_values_of(SPEC, name) - 1)) for name in names}


@given(memories(), settings_of_a_step())
@settings(max_examples=400, deadline=None)
def test_the_kernel_is_the_reference_on_any_memory(row: np.ndarray, do: dict[str, int]) -> None:
    expected, quantities = slots_reference.step(SPEC, unpacked(SPEC, row), do)
    after, seen = slots.step(SPEC, row[None], {name: np.array([value]) for name, value in do.items()})
    assert after[0].tolist() == packed(expected)
    assert {name: int(values[0]) for name, values in seen.items()} == quantities


@given(memories())
@settings(max_examples=60, deadline=None)
def test_runs_and_records_are_steps_of_the_reference(row: np.ndarray) -> None:
    memory, states, fates = unpacked(SPEC, row), [row.tolist()], []
    for _ in range(12):
        memory, seen = slots_reference.step(SPEC, memory)
        states.append(packed(memory))
        fates.append(seen["outcome"])
    assert slots.record(SPEC, row[None], 12)[0].tolist() == states
    run = slots.run(SPEC, row[None], 12)
    ran = next((at for at, fate in enumerate(fates) if fate), 12)
    assert run.final[0].tolist() == states[12] and run.n_steps[0] == ran
    assert run.outcome[0] == (fates[ran] if ran < 12 else Fate.RAN)


def test_every_operator_by_hand() -> None:
    """One instruction at slot 1; x = 2 at slot 2, y = 1 at slot 3, carry 1, slot 4 free."""
    m = Assembler(base=3, n_values=8)
    m.op(Kind.HALT)
    m.data("x", 2, "y")
    m.data("y", 1, "x", left="x", right="y")
    m.heap(2)
    start = m.build([], []).row.copy()
    spec = SlotSpec(6, 3, 8)
    start[spec.column("carry")] = 1
    cases: dict[Kind, tuple[tuple[int, int, int], dict[tuple[str, int], int]]] = {
        Kind.ADC: ((2, 3, 0), {("content", 0): 1, ("carry", 0): 1}),  # 2 + 1 + 1 = 1 · 3 + 1
        Kind.SBB: ((3, 2, 0), {("content", 0): 1, ("carry", 0): 1}),  # 1 - 2 - 1 = -1 · 3 + 1
        Kind.ADD: ((2, 3, 0), {("content", 0): 3}),
        Kind.DIV: ((2, 0, 3), {("content", 3): 0}),
        Kind.MOD: ((2, 0, 3), {("content", 3): 2}),
        Kind.CMP: ((2, 3, 0), {("content", 0): 2}),
        Kind.COPY: ((2, 0, 3), {("content", 3): 2}),
        Kind.ORDER: ((3, 2, 0), {("content", 0): 1}),  # slot 3 points to 2, slot 2 to 3
        Kind.POINT: ((4, 0, 2), {("next", 2): 4}),
        Kind.STEP: ((2, 0, 3), {("next", 3): 3}),
        Kind.NEXT: ((3, 0, 0), {("next", 0): 2}),
        Kind.LEFT: ((3, 0, 0), {("next", 0): 2}),
        Kind.RIGHT: ((3, 0, 0), {("next", 0): 3}),
        Kind.JUMP: ((2, 2, 4), {("pc", 0): 4}),
        Kind.NEW: ((0, 0, 2), {("kind", 4): Kind.DATA, ("next", 4): 0, ("next", 2): 4, ("free", 0): 5}),
        Kind.DROP: ((3, 0, 0), {("kind", 3): Kind.FREE, ("next", 3): 4, ("free", 0): 3}),
    }
    assert set(cases) == set(Kind) - {Kind.FREE, Kind.DATA, Kind.HALT}
    for kind, (address, changes) in cases.items():
        row = start.copy()
        row[spec.column("kind", 1)] = kind
        for field, at in zip(("next", "left", "right"), address, strict=True):
            row[spec.column(field, 1)] = at
        expected = row.copy()
        expected[spec.column("pc")] = 2
        for (field, slot), value in changes.items():
            expected[spec.column(field, slot)] = value
        if kind == Kind.ADC:
            assert expected[spec.column("carry")] == 1
        after, seen = slots.step(spec, row[None])
        assert after[0].tolist() == expected.tolist(), kind.name
        assert seen["outcome"][0] == Fate.RAN


def outputs(name: str, size: int, inputs: np.ndarray, straight: bool) -> np.ndarray:
    program = compile_program(name, size, straight=straight)
    run = slots.run(program.spec, program.memories(inputs), 20_000)
    assert (run.outcome == Fate.HALTED).all(), f"{name} of size {size}"
    return program.contents(run.final)


def every(values: int, n: int) -> np.ndarray:
    return np.array(list(product(range(values), repeat=n)))


def run_lengths(row: list[int]) -> list[int]:
    found = [(value, len(list(members))) for value, members in groupby(row)]
    found += [(0, 0)] * (len(row) - len(found))
    return [value for value, _ in found] + [n for _, n in found]


def expected(name: str, size: int, row: list[int]) -> list[int]:
    """What Python says."""
    first, second = row[:size], row[size:]
    if name in ("add", "compare"):
        a, b = (int("".join(map(str, each[::-1]))) for each in (first, second))
        if name == "add":
            return [int(digit) for digit in f"{a + b:0{size + 1}d}"[::-1]]
        return [0 if a == b else 1 if a < b else 2]
    if name in ("search", "binary_search"):
        return [int(row[0] in row[1:])]
    if name == "substring":
        return [int("".join(map(str, second)) in "".join(map(str, first)))]
    own = {"sort": sorted, "copy": list, "runs": run_lengths, "reverse": lambda v: v[::-1], "list": lambda v: v[::-1]}
    return own[name](row)


@pytest.mark.parametrize(("name", "straight"), FORMS)
def test_compiled_programs_do_what_python_does_on_all_small_inputs(name: str, straight: bool) -> None:
    largest, values = (2, 10) if name in ("add", "compare") else (4, 4)
    for size in range(1, largest + 1):
        inputs = every(values, len(compile_program(name, size, straight=straight).inputs))
        if name == "binary_search":
            inputs = inputs[(np.diff(inputs[:, 1:], axis=1) >= 0).all(axis=1)]
        found = outputs(name, size, inputs, straight)
        assert found.tolist() == [expected(name, size, row) for row in inputs.tolist()]


@pytest.mark.parametrize(("name", "straight"), FORMS)
def test_large_inputs_too(name: str, straight: bool) -> None:
    world = SlotWorld(program=name, size=17, form="straight" if straight else "looped")
    examples = world.draw(40, seed=1)
    answer = world.answer(examples)
    assert answer.valid.all(), "every run ends within the limit"
    assert answer.values.tolist() == [expected(name, 17, row) for row in examples.values.tolist()]


def test_looped_plans_have_one_size_and_straight_ones_grow() -> None:
    def instructions(straight: bool, size: int) -> int:
        program = compile_program("add", size, straight=straight)
        return int((program.row[: program.spec.n_slots] >= Kind.HALT).sum())

    assert instructions(False, 3) == instructions(False, 22) == 8
    assert [instructions(True, size) for size in (3, 22)] == [5, 24]


def test_lists_are_built_and_freed_a_thousand_times_without_a_leak() -> None:
    program = compile_program("list", 5)
    spec, row = program.spec, program.memories(np.array([[1, 2, 3, 4, 5]]))
    reused = set()
    for _ in range(1000):
        row[:, spec.column("pc")] = 1
        run = slots.run(spec, row, 200)
        assert run.outcome[0] == Fate.HALTED and program.contents(run.final).tolist() == [[5, 4, 3, 2, 1]]
        row = run.final
        chain, at = [], int(row[0, spec.column("free")])
        while at:
            chain.append(at)
            at = int(row[0, spec.column("next", at)])
        assert len(chain) == 5 and all(row[0, each] == Kind.FREE for each in chain)
        reused.add(tuple(sorted(chain)))
    assert len(reused) == 1, "the same five slots every time"


def test_a_variable_set_at_a_step_is_the_reference_edited_on_the_way() -> None:
    world = SlotWorld(size=3)
    examples, spec = world.draw(30, seed=1), world.spec
    n_steps = world.n_steps(examples)
    at = np.arange(30) % n_steps
    donor = world.draw(30, seed=2)
    for name in ("carry", "x", "result", "content[15]", "next[10]", "pc", "op", "branch"):
        values = world.read(donor, name, at)
        answer = world.answer(examples, do={name: values}, at=at)
        for row in range(30):
            memory = unpacked(spec, world.memories(examples)[row])
            for _ in range(at[row]):
                memory, _ = slots_reference.step(spec, memory)
            defined = values[row] >= 0
            if name in SEEN:
                defined &= slots_reference.step(spec, memory)[1][name] >= 0
            elif defined:
                flat = packed(memory)
                flat[world._column(name)] = int(values[row])
                memory = unpacked(spec, np.array(flat))
            if not defined:
                assert not answer.valid[row]
                continue
            memory, seen = slots_reference.step(spec, memory, {name: int(values[row])} if name in SEEN else None)
            for _ in range(world.limit):
                memory, seen = slots_reference.step(spec, memory)
            assert answer.valid[row] == (seen["outcome"] == Fate.HALTED)
            assert [memory.contents[slot] for slot in world.program.answers] == answer.values[row].tolist()


def test_setting_the_carry_carries() -> None:
    """9 + 0 with a carry set before the first place: 10."""
    world = SlotWorld(size=2)
    examples = world.draw(1, seed=0).with_column(0, np.array([9])).with_column(1, np.array([0]))
    examples = examples.with_column(2, np.array([0])).with_column(3, np.array([0]))
    assert world.answer(examples).values.tolist() == [[9, 0, 0]]
    assert world.answer(examples, do={"carry": np.array([1])}).values.tolist() == [[0, 1, 0]]
    assert world.answer(examples, do={"carry": np.array([1])}, at=1).values.tolist() == [[9, 1, 0]]


def test_a_pair_of_numbers_is_one_unit_at_every_size_and_in_both_orders() -> None:
    small, large = SlotWorld(size=3), SlotWorld(size=6)
    examples = small.draw(50, seed=0)
    wide = np.zeros((50, 2, 6), dtype=np.int64)
    wide[:, :, :3] = examples.values.reshape(50, 2, 3)[:, ::-1]
    assert (small.groups(examples) == large.groups(type(examples)(wide.reshape(50, -1)))).all()


def test_what_is_wrong_is_said() -> None:
    for settings_, message in (
        ({"program": "divide"}, "program must be one of add"),
        ({"size": 0, "least": 1}, "least must be an integer from 1 to size = 0, got 1"),
        ({"size": 1001}, "size must be an integer from 1 to 1000, got 1001"),
        ({"program": "runs", "form": "straight"}, "runs has a looped plan alone"),
        ({"form": "round"}, "form must be 'looped' or 'straight', got 'round'"),
        ({"n_values": 7, "base": 3}, "n_values must be an integer from 8"),
    ):
        with pytest.raises(ValueError, match=message):
            SlotWorld(**settings_)
    with pytest.raises(ValueError, match="memories must be integers"):
        slots.run(SPEC, np.zeros((1, 4), dtype=np.int32), 3)
    with pytest.raises(ValueError, match="row 0 of a memory has 99 in column 0, which is out of range"):
        slots.run(SPEC, np.full((1, SPEC.width), 99), 3)
    with pytest.raises(ValueError, match="do takes op"):
        slots.step(SPEC, np.zeros((1, SPEC.width), dtype=np.int32), {"outcome": np.array([0])})
    m = Assembler()
    m.jump("nowhere")
    with pytest.raises(ValueError, match="points to 'nowhere', which is not there"):
        m.build([], [])
