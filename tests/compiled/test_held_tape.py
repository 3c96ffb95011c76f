"""The two hand-set recurrent interpreters: right on every valid stream, each by its own addressing."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import MachineSpec, States
from interp.compiled import HeldTape, compile_held_tape
from interp.interventions import Carrier, Part
from interp.tasks import Trace
from interp.tasks.options import TaskOptions
from interp.worlds.machine.relative import relative_name

SPEC = MachineSpec(n_instructions=24, n_cells=4, n_input=6, n_output=24, bits=3)
TASK = Trace(SPEC, TaskOptions(n_steps=48))
ADDRESSINGS = ("absolute", "relative")


@cache
def held(addressing: str) -> HeldTape:
    return compile_held_tape(TASK, addressing)  # type: ignore[arg-type]


def errs(tape: HeldTape, batch) -> int:
    with torch.no_grad():
        said = tape.model(batch.tokens).argmax(-1)
    return int(((said != batch.targets) & batch.loss_mask).sum())


@pytest.mark.parametrize("addressing", ADDRESSINGS)
@settings(max_examples=25, deadline=None)
@given(
    body=st.lists(st.sampled_from([*"><+-.,", "[.", "[-", "[>", "[+<", "]"]), min_size=1, max_size=20),
    given_input=st.lists(st.integers(0, SPEC.max_value), max_size=6),
)
def test_every_valid_stream_is_answered(addressing: str, body: list[str], given_input: list[int]) -> None:
    program, depth = "", 0
    for part in body:
        if part == "]" and not depth:
            continue
        depth += part.count("[") - part.count("]")
        program += part
    program = (program[: SPEC.n_instructions - 1 - depth] if depth == 0 else program) + "]" * depth
    if len(program) > SPEC.n_instructions - 1 or program.count("[") != program.count("]"):
        return
    batch = TASK.render(States.build(SPEC, program=program, input=given_input))
    assert errs(held(addressing), batch) == 0


@pytest.mark.parametrize("addressing", ADDRESSINGS)
def test_long_runs_are_answered(addressing: str) -> None:
    batch = TASK.sample(400, seed=0)
    assert int(batch.loss_mask.sum()) > 2000
    assert errs(held(addressing), batch) == 0


@pytest.mark.parametrize("addressing", ADDRESSINGS)
def test_the_state_holds_the_tape_where_it_says(addressing: str) -> None:
    """What stands in the cells of a variable's part, in steps, is the variable."""
    from interp.compiled.held_tape import STEP

    tape, batch = held(addressing), TASK.render(TASK.draw(60, seed=1))
    carrier, at = Carrier.of(tape.model), torch.full((60,), 30)
    states = carrier.read(tape.model, batch.tokens, at)
    step = batch.step_of[:, 30]
    here = torch.from_numpy((step >= 0) & (batch.step_of[:, 31] > step))  # what stands there is done
    assert int(here.sum()) > 15
    width = carrier.size // len(tape.model.blocks) // 2
    for name, mask in tape.held.items():
        value = torch.from_numpy(TASK.world.read(batch.examples, name, step + 1))
        cells = (mask.view(-1, 2, width) * states.view(60, -1, 2, width))[:, :, 1].flatten(1).sum(-1) / STEP
        known = here & (value >= 0)
        torch.testing.assert_close(cells[known], value[known].float(), atol=0.05, rtol=0)


def iia(tape: HeldTape, variable: str, part: str, *, apart: bool = True) -> float:
    """Of pairs whose pointers differ, where the rival addressings disagree."""
    pairs, carrier = TASK.state_pairs(60, variable, seed=2), Carrier.of(tape.model)
    chosen = pairs.changes & (pairs.apart if apart else True)
    pairs = pairs.rows(chosen)
    base, source = (carrier.read(tape.model, tokens, pairs.at) for tokens in (pairs.base, pairs.source))
    put = Part(part, mask=tape.held[part]).exchanged(base, source)
    said = carrier.answers(tape.model, pairs.base, pairs.at, put, pairs.positions)
    return float((said.gather(1, pairs.positions[:, None])[:, 0] == pairs.expected).float().mean())


def test_a_part_carries_its_own_variable_and_not_its_rival() -> None:
    absolute, relative = held("absolute"), held("relative")
    for cell in range(SPEC.n_cells):
        assert iia(absolute, f"cell[{cell}]", f"cell[{cell}]") == 1
    assert iia(absolute, "array_ptr", "array_ptr") == 1
    for offset in (-1, 0, 1):
        name = relative_name(offset)
        assert iia(relative, name, name) == 1
        assert max(iia(absolute, name, f"cell[{cell}]") for cell in range(SPEC.n_cells)) < 0.7
    for cell in range(2):
        parts = [iia(relative, f"cell[{cell}]", name) for name in relative.held]
        assert max(parts) < 0.7


def test_another_addressing_is_refused() -> None:
    with pytest.raises(ValueError, match="absolute' or 'relative"):
        compile_held_tape(TASK, "both")  # type: ignore[arg-type]
