"""Where every variable of the machine is in a program: the half of the answer key that declarations alone decide."""

from __future__ import annotations

from collections.abc import Iterable

from cython_vm import Variable, variable
from interp.compiled.components import Feature, Gate, Head, Program
from interp.compiled.form import Form
from interp.compiled.key import Carrier, Place, Swap, VariableKey, stream_hooks
from interp.compiled.liveness import Read, live_reads, written_at

_BLOCK_OF = {"instruction": "instructions", "cell": "cells", "next_cell": "cells"}


def locate(program: Program, form: Form) -> dict[str, VariableKey]:
    """The key of every variable that the program represents, in causal order."""
    reads = live_reads(program, form)
    keys = {}
    for name in form.spec.variables():
        each = variable(form.spec, name)
        carriers = [*_stored(program, form, each, reads), *_written(program, form, each, reads)]
        if carriers:
            swaps = tuple(_swaps(program, form, each, carriers, reads)) if each.settable else ()
            keys[name] = VariableKey(name, tuple(carriers), swaps)
    return keys


def slot_tokens(form: Form, each: Variable) -> list[int]:
    """The tokens that a slot which holds the variable can hold; those of `input_length` are empty slots."""
    family = each.name.split("[")[0]
    if family in ("instruction_ptr", "array_ptr", "next_instruction_ptr", "next_array_ptr"):
        return [form.spec.token_id("0"), form.spec.token_id("1")]
    if family in ("instruction", "op"):
        return [form.spec.op_id(op) for op in form.spec.ops]
    return [form.spec.token_id("EOI")] if family == "input_length" else form.number_ids()


def _stored(program: Program, form: Form, each: Variable, reads: list[Read]) -> list[Carrier]:
    """The slots of S_t that are the variable (roots), or that it is fetched from (by a head that looks one slot up)."""
    if each.kind == "root":
        family = each.name.split("[")[0]
        block = "input" if family == "input_length" else _BLOCK_OF.get(family, family)
        positions = block if each.index is None else f"{block}[{each.index}]"
        held = frozenset(form.positions(block) if each.index is None else [form.positions(block)[each.index]])
    else:
        fetchers = [head for head in program.heads if head.variable == each.name and "[" in head.keys]
        if not fetchers or "+" in fetchers[0].keys:
            return []
        positions = fetchers[0].keys
        held = frozenset(form.positions(positions.split("[@")[0]))
    features = [("token", token) for token in slot_tokens(form, each)]
    mine = [read for read in reads if read.feature in features and read.positions & held]
    if each.kind != "root":  # the slot is the variable as long as that head is to read it; then it is a cell again
        mine = [read for read in mine if read.variable == each.name]
    place = _place(program, positions, "token", features)
    return [_carrier(place, "stored", ("input",), mine, first=0)] if held else []


def _written(program: Program, form: Form, each: Variable, reads: list[Read]) -> list[Carrier]:
    """What components write of the variable: a subspace of its own, or the next token of its slot."""
    family = each.name.split("[")[0]
    if each.kind == "result":
        return _answered(program, form, each)
    writers: dict[str, list[Head | Gate]] = {}
    for component in (*program.heads, *program.gates):
        if component.variable == family:
            for space in dict.fromkeys(space for space, _ in component.writes):
                writers.setdefault(space, []).append(component)
    carriers = []
    for space, components in writers.items():
        features = [(space, index) for index in range(program.spaces[space])]
        first = min(written_at(component) for component in components)
        mine = [read for read in reads if read.feature in features and read.point >= first]
        head = components[0]
        positions = head.holds_at if isinstance(head, Head) and head.holds_at else _union(form, mine)
        nodes = tuple(dict.fromkeys(program.node(component) for component in components))
        carriers.append(_carrier(_place(program, positions, space, features), "written", nodes, mine, first=first))
    return carriers


def _answered(program: Program, form: Form, each: Variable) -> list[Carrier]:
    """A result is the next token of its slot. In `step` a slot that is pointed to has no name at its answer."""
    slot = each.slot or ""
    if form.causal:
        if "[@" in slot:
            return []
        block, _, index = slot.removesuffix("]").partition("[")
        positions = form.answers(block)
        slot = form.name_of(positions if not index else [positions[int(index)]])
    elif not form.positions(slot.split("[")[0]):
        return []
    features = [(program.answer, token) for token in slot_tokens(form, each)]
    if each.name == "emitted":
        features.append((program.answer, form.spec.token_id("EOO")))
    last = 2 * program.n_layers
    gates = [gate for gate in program.gates if gate.variable == (each.name if "[" not in each.name else "result")]
    keepers = tuple(program.node(head) for head in program.heads if any(f in features for f in head.writes))
    nodes = tuple(dict.fromkeys([*(keepers or ("input",)), *(program.node(gate) for gate in gates)]))
    place = _place(program, slot, program.answer, features)
    return [Carrier(place, "written", nodes, ("logits",), first=last, last=last)]


def _swaps(program: Program, form: Form, each: Variable, carriers: list[Carrier], reads: list[Read]) -> Iterable[Swap]:
    """The points at which all that holds the variable can be replaced before any other variable is made from it."""
    if each.name == "input_length":  # its new value leaves the tokens of longer inputs behind
        return
    own = [carrier for carrier in carriers if carrier.kind == "written" or each.kind == "root"]
    foreign = [
        read.point
        for carrier in own
        for read in reads
        if read.variable != each.name
        and read.point >= carrier.first
        and program.index(read.feature) in carrier.place.features
        and read.reader != "logits"
        and _meets(form, carrier.place.positions, read.positions)
    ]
    hooks = stream_hooks(program.n_layers)
    start = min((carrier.first for carrier in own), default=len(hooks))
    for point in range(start, min([*foreign, len(hooks) - 1]) + 1):
        standing = [carrier.place for carrier in own if carrier.first <= point <= carrier.last]
        if standing:
            yield Swap(hooks[point], tuple(standing))


def _meets(form: Form, positions: str, others: frozenset[int]) -> bool:
    """Whether a named set has any of these token positions; a pointed slot may be any of its block."""
    names = form.task.position_names
    for part in positions.split("+"):
        block = part.split("[@")[0]
        held = [i for i, name in enumerate(names) if name == block or name.startswith(f"{block}[")]
        if part == "all" or others & frozenset(held):
            return True
    return False


def _place(program: Program, positions: str, space: str, features: list[Feature]) -> Place:
    return Place(positions, space, tuple(program.index(feature) for feature in features))


def _carrier(place: Place, kind: str, writers: tuple[str, ...], reads: list[Read], *, first: int) -> Carrier:
    readers = tuple(dict.fromkeys(read.reader for read in sorted(reads, key=lambda read: read.point)))
    last = max((read.point for read in reads), default=first - 1)
    return Carrier(place, kind, writers, readers, first=first, last=last)  # type: ignore[arg-type]


def _union(form: Form, reads: list[Read]) -> str:
    """The positions of all these reads, by name; "all" where there are none."""
    positions = frozenset().union(*(read.positions for read in reads))
    return form.name_of(sorted(positions)) if positions else "all"
