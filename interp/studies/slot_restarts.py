"""Can a program be found by gradients from final answers alone? Many restarts at once, on a memory of eight slots.

As in TerpreT (Gaunt et al. 2016), where few restarts in many succeeded:

1. The operators, the data slots and the inputs are given. The instructions are not: the kind, the three pointers and
   the content of each instruction slot begin as random logits, anew in each restart.
2. Every restart runs softly on every input of the domain; the loss is the negative log-probability of the right
   contents in the answer's slots, and nothing else is told. Adam.
3. Ablations: Gaussian noise on gradients whose variance falls as (1 + t)^-0.55 (Neelakantan et al. 2015), and a bonus
   for the entropy of the logits' distributions that falls to zero.
4. A restart has succeeded if the likeliest program, run hard by the symbolic machine, answers every input right. Two
   programs are the same if the steps that they execute are, written with the names of the slots.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.slot_memory import N_KINDS, State, TableALU, modes, step
from interp.ranges import require_count
from interp.results import Aggregation, Method, Metric, rows_frame
from interp.studies.holding import Progress, quiet
from interp.studies.slot_runs import share
from interp.worlds.rows import Rows
from interp.worlds.slots import SlotWorld
from interp.worlds.slots_words import answers_after, executed_words

N_VALUES = 8
PROGRAM = "a program"
_SHOWN = 3  # programs
CASES: dict[str, dict[str, Any]] = {  # at most eight slots each
    "copy one value": {"program": "copy", "size": 1, "base": 4},
    "add one digit, base 2": {"program": "add", "size": 1, "base": 2},
    "add one digit, base 4": {"program": "add", "size": 1, "base": 4},
}
WAYS: dict[str, tuple[float, float]] = {  # how much noise, and how much entropy is worth at first
    "plain": (0.0, 0.0),
    "gradient noise": (0.03, 0.0),
    "entropy bonus": (0.0, 0.02),
    "both": (0.03, 0.02),
}
RESTARTS, STEPS = 64, 300
_RATE, _DECAY, _LEAST = 0.1, 0.55, 1e-6
_FIELDS = ("kind", "next", "left", "right", "content")  # of an instruction, as logits


def measure_restarts(
    *, n_restarts: int = RESTARTS, n_steps: int = STEPS, seed: int = 0, progress: Progress = quiet
) -> pd.DataFrame:
    """Success rates of every case and way, and the programs that were found.

    Args:
        n_restarts: of each case and way, optimised together.
        n_steps: of Adam.
        seed: of the logits that restarts begin from, and of the noise.
        progress: told how far it is.

    Raises:
        ValueError: a count below 1.
    """
    require_count("n_restarts", n_restarts)
    require_count("n_steps", n_steps)
    rows: list[dict[str, Any]] = []
    asked = list(product(CASES, WAYS))
    for number, (case, way) in enumerate(asked):
        progress(number, len(asked), f"{case}, {way}")
        rows += restart_rows(case, way, n_restarts=n_restarts, n_steps=n_steps, seed=seed)
    progress(len(asked), len(asked), "")
    return rows_frame(rows)


def restart_rows(case: str, way: str, *, n_restarts: int, n_steps: int, seed: int) -> Iterator[dict[str, Any]]:
    """The success rate of one case and way, how many of the programs found are distinct, and the commonest ones."""
    world = SlotWorld(form="straight", n_values=N_VALUES, **CASES[case])
    logits = searched(world, way, n_restarts=n_restarts, n_steps=n_steps, seed=seed)
    found = programs(world, logits)
    right, told = solved(world, found)
    key = {"world": world.name, "method": Method.GREEDY, "map": way, "stratum": case, "seed": seed, "steps": n_steps}
    yield {**key, "metric": Metric.EXACT_MATCH, **share(right)}
    counted = Counter(text for text, works in zip(told, right, strict=True) if works)
    if counted:
        distinct = {"estimate": len(counted) / int(right.sum()), "aggregation": Aggregation.MEAN, "n": int(right.sum())}
        yield {**key, "metric": Metric.UNIQUENESS, **distinct}
    for text, _ in counted.most_common(_SHOWN):
        yield {**key, "metric": Metric.EXACT_MATCH, "part": PROGRAM, "position": text,
               **share(right & (np.array(told) == text))}  # fmt: skip


def domain(world: SlotWorld) -> Rows:
    """Every input there is."""
    return Rows(np.array(list(product(range(world.base), repeat=len(world.input_names))), dtype=np.int64))


def instruction_slots(world: SlotWorld) -> list[int]:
    """The addresses of the slots that hold instructions, behind slot 0 and before the data."""
    return [at for at, name in enumerate(world.program.names) if name.startswith("step[")]


def searched(world: SlotWorld, way: str, *, n_restarts: int, n_steps: int, seed: int) -> list[Tensor]:
    """The logits of every restart's instructions in the end, by field, [restart, instruction, value]."""
    noise, bonus = WAYS[way]
    spec, generator = world.spec, torch.Generator().manual_seed(seed)
    n = len(instruction_slots(world))
    sizes = (N_KINDS, spec.n_slots, spec.n_slots, spec.n_slots, spec.n_values)
    logits = [torch.randn(n_restarts, n, size, generator=generator).requires_grad_() for size in sizes]
    optimizer = torch.optim.Adam(logits, lr=_RATE)
    inputs = domain(world)
    true = torch.from_numpy(world.answer(inputs).values)
    memories = torch.from_numpy(world.memories(inputs).astype(np.int64))
    alu, bits = TableALU(spec.base, spec.n_values), modes(spec.n_values)
    for t in range(n_steps):
        with torch.enable_grad():
            final = _ran(_state(world, logits, memories), alu, bits, n)
            says = final.contents[:, list(world.program.answers)].unflatten(0, (n_restarts, -1))
            says = says.gather(-1, true.expand(n_restarts, -1, -1)[..., None])[..., 0]
            loss = -says.clamp(min=_LEAST).log().mean(dim=(1, 2)).sum()
            if bonus:
                loss = loss - bonus * (1 - t / n_steps) * sum(_entropy(each) for each in logits)
            optimizer.zero_grad()
            loss.backward()
        for each in logits if noise else ():
            assert each.grad is not None
            each.grad += noise * (1 + t) ** (-_DECAY / 2) * torch.randn(each.shape, generator=generator)
        optimizer.step()
    return [each.detach() for each in logits]


def _entropy(logits: Tensor) -> Tensor:
    logs = F.log_softmax(logits, dim=-1)
    return -(logs.exp() * logs).sum()


def _state(world: SlotWorld, logits: list[Tensor], memories: Tensor) -> State:
    """Every restart's instructions in every input's memory, [restart * input, …], before the first step."""
    spec, places = world.spec, instruction_slots(world)
    s, n_restarts = spec.n_slots, len(logits[0])
    kinds, following, left, right, contents, registers = memories.split([s, s, s, s, s, 3], dim=1)
    fields = []
    for each, known, size in zip(
        logits, (kinds, following, left, right, contents), (N_KINDS, s, s, s, spec.n_values), strict=True
    ):
        given = F.one_hot(known, size).float().expand(n_restarts, -1, -1, -1)  # [restart, input, slot, value]
        learned = F.softmax(each, dim=-1)[:, None].expand(-1, len(memories), -1, -1)
        first, last = places[0], places[-1] + 1
        fields.append(torch.cat([given[:, :, :first], learned, given[:, :, last:]], dim=2).flatten(0, 1))
    pc, carry, free = (
        F.one_hot(each, size).float().repeat(n_restarts, 1)
        for each, size in zip(registers.unbind(1), (s, 2, s), strict=True)
    )
    return State(fields[0], torch.stack(fields[1:4], dim=1), fields[4], pc, carry, free)


def _ran(state: State, alu: TableALU, bits: Tensor, n_steps: int) -> State:
    for _ in range(n_steps):
        state = step(state, alu, bits, hard=False, temperature=1.0, seen=lambda _, value: value)
    return state


def programs(world: SlotWorld, logits: list[Tensor]) -> np.ndarray:
    """The likeliest instructions of every restart, integers [restart, instruction, kind and pointers and content]."""
    return torch.stack([each.argmax(-1) for each in logits], dim=-1).numpy()


def solved(world: SlotWorld, found: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Whether each program answers every input right within as many steps as there are instructions, bool [restart],
    and what it executes on the last input, in words."""
    spec, places, inputs = world.spec, instruction_slots(world), domain(world)
    true = world.answer(inputs).values
    right, told = np.zeros(len(found), dtype=bool), []
    for number, program in enumerate(found):
        rows = world.memories(inputs).copy()
        for field, values in zip(_FIELDS, program.T, strict=True):
            rows[:, [spec.column(field, at) for at in places]] = values
        right[number] = (answers_after(world, rows, len(places)) == true).all()
        told.append(executed_words(world, rows[-1:], len(places)))
    return right, told
