"""Records made in one pass are what sampling, stepping, encoding and hashing give one by one, byte for byte."""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cython_vm import (
    MachineSpec,
    States,
    encode,
    labelled_records,
    program_hash,
    record_dtype,
    reference,
    sample,
    sample_records,
    step,
    strata_weights,
)

SPECS = {
    "default": MachineSpec(),
    "smallest": MachineSpec(1, 1, 0, 0, bits=1),
    "two slots, no buffers": MachineSpec(2, 2, 0, 0, bits=2),
    "words exactly": MachineSpec(n_instructions=16, n_cells=8, n_input=8, n_output=8, bits=3),
    "a word and one": MachineSpec(n_instructions=9, n_cells=17, n_input=1, n_output=9, bits=7),
    "no io": MachineSpec(7, 3, 2, 2, bits=2, io=False),
    "no loops": MachineSpec(33, 17, 9, 6, bits=5, loops=False),
    "no io, no loops": MachineSpec(12, 5, 0, 4, io=False, loops=False),
    "no stops": MachineSpec(64, 10, 0, 12, bits=7, stops=False),
    "largest in bytes": MachineSpec(256, 256, 255, 255, bits=7),
    "two bytes a token": MachineSpec(20, 9, 3, 3, bits=8),
    "padded": MachineSpec(padded=True),
    "index pointers": MachineSpec(pointers="index"),
    "bare": MachineSpec(punctuation="none"),
    "spaced, with outcomes": MachineSpec(punctuation="spaced", outcome_token=True),
}


def put_together(states: States) -> np.ndarray:
    """The same records from the public parts."""
    after = step(states)
    records = np.zeros(len(states), record_dtype(states.spec))
    records["program_hash"], records["state"], records["next_state"] = (
        program_hash(states),
        encode(states),
        after.tokens(),
    )
    for name, values in after.latents.items():
        records[name] = values
    return records


def options(spec: MachineSpec) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{}, {"weights": strata_weights(spec, branches=True)}]
    if spec.n_instructions > 2:
        found += [{"split": "train"}, {"split": "evaluation"}, {"split": "validation"}, {"split": "fit"}]
    if 2 < spec.n_instructions < 20 and not spec.padded:
        found.append({"weights": strata_weights(spec, by="loop_depth"), "by": "loop_depth", "split": "train"})
    return found


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_records_are_those_of_the_states_drawn(spec: MachineSpec) -> None:
    for chosen in options(spec):
        states = sample(spec, 70, seed=11, start=5, **chosen)
        expected = put_together(states)
        assert sample_records(spec, 70, seed=11, start=5, **chosen).tobytes() == expected.tobytes(), chosen
        assert labelled_records(states).tobytes() == expected.tobytes()


def test_records_of_any_machine() -> None:
    """Sizes that end words of eight at every place, each with its own lengths of a batch."""
    for k in range(100):
        rng = np.random.default_rng([3, k])
        low, high = (1, 1, 0, 0), (20, 20, 18, 18)
        sizes = [int(rng.integers(a, b)) for a, b in zip(low, high, strict=True)]
        io, loops, stops = (bool(rng.integers(2)) for _ in range(3))
        spec = MachineSpec(*sizes, bits=int(rng.integers(1, 8)), io=io, loops=loops, stops=stops)
        n = int(rng.integers(0, 70))
        split = "train" if spec.n_instructions > 6 and k % 2 else "all"
        expected = put_together(sample(spec, n, seed=k, split=split))
        assert sample_records(spec, n, seed=k, split=split).tobytes() == expected.tobytes(), spec


def test_states_drawn_side_by_side_are_those_drawn_alone() -> None:
    """A single row is drawn by itself, a batch slot by slot over many rows: two programs, one stream."""
    for spec in SPECS.values():
        drawn: list[dict[str, Any]] = [{}, {"split": "train"}]
        for chosen in drawn if spec.n_instructions > 2 else drawn[:1]:
            n = 12 if spec.n_instructions > 100 else 50
            alone = States.concatenate([sample(spec, 1, seed=2**63 + 5, start=row, **chosen) for row in range(n)])
            assert sample(spec, n, seed=2**63 + 5, **chosen) == alone


def test_records_are_those_of_the_reference() -> None:
    spec = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2)
    states = sample(spec, 1_000, seed=1, weights=strata_weights(spec, branches=True))
    records = labelled_records(states)
    names = list(step(states).latents)
    for row, record in enumerate(records):
        _, variables = reference.step(spec, reference.to_state(states, row), {})
        assert [int(record[name]) for name in names] == [-1 if variables[n] is None else variables[n] for n in names]


@pytest.mark.parametrize("name", ["default", "padded", "a word and one"])
def test_batches_and_threads_change_nothing(name: str) -> None:
    spec = SPECS[name]
    whole = sample_records(spec, 3_000, seed=4)
    out = np.zeros(3_000, record_dtype(spec))
    edges = [0, 1, 8, 39, 71, 1_000, 2_999, 3_000]

    def fill(part: tuple[int, int]) -> None:
        start, end = part
        sample_records(spec, end - start, seed=4, start=start, out=out[start:end])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fill, reversed(list(itertools.pairwise(edges)))))
    assert out.tobytes() == whole.tobytes()


def test_nothing_beside_the_destination_is_written() -> None:
    for spec in (MachineSpec(), SPECS["words exactly"], SPECS["smallest"], SPECS["padded"]):
        for n in (0, 1, 31, 32, 33, 70):
            room = np.full((n + 2) * record_dtype(spec).itemsize, 0xA5, np.uint8).view(record_dtype(spec))
            assert sample_records(spec, n, seed=0, out=room[1 : n + 1]) is not None
            assert (room[[0, -1]].view(np.uint8) == 0xA5).all()
            assert room[1 : n + 1].tobytes() == sample_records(spec, n, seed=0).tobytes()


def test_a_destination_that_does_not_fit_is_refused() -> None:
    spec = MachineSpec()
    out = np.empty(5, record_dtype(spec))
    assert sample_records(spec, 5, seed=0, out=out) is out
    fixed = out.copy()
    fixed.flags.writeable = False
    wrong = [
        (out[:4], ValueError, r"n = 5 records, got \[4\]"),
        (out.reshape(5, 1), ValueError, r"got \[5, 1\]"),
        (np.empty(10, out.dtype)[::2], ValueError, "not contiguous"),
        (fixed, ValueError, "read-only"),
        (np.empty(5, record_dtype(MachineSpec(n_cells=11))), TypeError, "out must have dtype"),
        (np.empty((5, out.itemsize), np.uint8), TypeError, "out must have dtype"),
    ]
    for given, error, message in wrong:
        with pytest.raises(error, match=message):
            sample_records(spec, 5, seed=0, out=given)
        with pytest.raises(error, match=message):
            labelled_records(sample(spec, 5, seed=0), out=given)


def test_a_split_without_programs_is_refused() -> None:
    with pytest.raises(ValueError, match="found no program in the 'evaluation' split"):
        sample_records(MachineSpec(1, 2, 1, 1), 3, seed=0, split="evaluation")
