"""Nothing depends on how a batch is cut or on who else reads it: batch sizes, thread counts, shared States."""

import itertools
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cython_vm import (
    MachineSpec,
    States,
    decode,
    encode,
    program_hash,
    run,
    sample,
    step,
    strata_weights,
    variable,
)

SPECS = {
    "default": MachineSpec(),
    "smallest": MachineSpec(1, 1, 0, 0, bits=1),
    "wide": MachineSpec(40, 70, 9, 0, bits=8),  # more than 256 token ids
    "no io": MachineSpec(9, 3, 0, 3, bits=3, io=False),
}


def batch(spec, n):
    return sample(spec, n, seed=5, weights=strata_weights(spec, branches=True))


def work_step(states, rows):
    transition = step(states)
    return [encode(transition.next), transition.outcome, *transition.latents.values()]


def work_do(states, rows):
    names = ("operand", "cell[0]", "next_array_ptr")
    do = {name: rows % variable(states.spec, name).n_values(states.spec) for name in names}
    transition = step(states, do)
    return [encode(transition.next), transition.valid, transition.outcome, *transition.latents.values()]


def work_encode(states, rows):
    tokens = encode(states)
    return [tokens, encode(decode(states.spec, tokens))]


def work_run(states, rows):
    trace = run(states, 40)
    assert trace.states is not None
    last = run(states, 40, keep="last")
    assert last.final == trace.final
    return [encode(trace.final), trace.n_steps, trace.outcome]


def work_record(states, rows):
    """One array a row of the trace, so that parts join."""
    trace = run(states, 40)
    assert trace.states is not None
    return [encode(trace.states), trace.time, trace.loop_depth(), trace.loop_iteration(), trace.steps_to_halt()]


def work_read(states, rows):
    arrays = [variable(states.spec, name).read(states) for name in ("op", "cell[0]", "loop_depth", "steps_to_halt")]
    return [program_hash(states), *arrays, states.cells, states.input, states.output_length]


def work_edit(states, rows):
    """Slices, integer and boolean indices, replacement, copies."""
    turned = states[::-1][np.arange(len(states))[::-1]]
    edited = turned.replace("array_ptr", rows % states.spec.n_cells)
    copied = pickle.loads(pickle.dumps(edited))
    return [encode(States.concatenate([copied[:1], copied[1:]])), states.equal(edited)]


WORK = (work_step, work_do, work_encode, work_run, work_record, work_read, work_edit)


def joined(parts):
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def assert_same(got, expected, what):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other), what


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_batch_size_changes_nothing(spec, work):
    """Cut into ones, twos and threes (the kernels treat the last rows on their own), and into unequal parts."""
    states, rows = batch(spec, 100), np.arange(100)
    expected = work(states, rows)
    for cuts in (range(1, 100), range(2, 100, 2), range(3, 100, 3), [0, 1, 3, 6, 50, 50, 99]):
        edges = [0, *cuts, 100]
        parts = [work(states[a:b], rows[a:b]) for a, b in itertools.pairwise(edges)]
        assert_same(joined(parts), expected, list(cuts))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_batch_size_changes_no_sample(spec):
    for weights in (None, strata_weights(spec, branches=True)):
        whole = sample(spec, 100, seed=9, weights=weights)
        cuts = ((0, 1), (1, 2), (3, 60), (63, 37))
        parts = [sample(spec, n, seed=9, start=start, weights=weights) for start, n in cuts]
        assert States.concatenate(parts) == whole
        assert sample(spec, 1, seed=9, start=99, weights=weights) == whole[99]


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_thread_count_changes_nothing(n_threads):
    spec = MachineSpec()
    states, rows = batch(spec, 4000), np.arange(4000)
    edges = np.linspace(0, 4000, n_threads + 1).astype(int)
    with ThreadPoolExecutor(n_threads) as pool:
        for work in WORK:
            parts = list(pool.map(lambda a, b, work=work: work(states[a:b], rows[a:b]), edges[:-1], edges[1:]))
            assert_same(joined(parts), work(states, rows), work.__name__)
        parts = list(pool.map(lambda a, b: sample(spec, b - a, seed=3, start=int(a)), edges[:-1], edges[1:]))
        assert States.concatenate(parts) == sample(spec, 4000, seed=3)


@pytest.fixture
def quick_switches():
    """Python gives the lock away as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def in_threads(n_threads, call):
    """What each of n threads gets from call(number), all let go at the same moment."""
    barrier = threading.Barrier(n_threads)

    def wait_and_call(number):
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(wait_and_call, range(n_threads)))


@pytest.mark.usefixtures("quick_switches")
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_threads_read_the_same_states(spec):
    """Eight threads, each doing everything to the same States in an order of its own."""
    states, rows = batch(spec, 6000), np.arange(6000)
    before = encode(states).copy()
    expected = [work(states, rows) for work in WORK]

    def call(number):
        order = [(number + k) % len(WORK) for k in range(len(WORK))]
        done = {k: WORK[k](states, rows) for k in order}
        return [done[k] for k in range(len(WORK))]

    for results in in_threads(8, call):
        for got, wanted, work in zip(results, expected, WORK, strict=True):
            assert_same(got, wanted, work.__name__)
    assert np.array_equal(encode(states), before)


@pytest.mark.usefixtures("quick_switches")
def test_threads_meet_a_machine_for_the_first_time():
    """Tables and names are computed on first use; eight threads ask for those of a new machine at once."""
    for k in range(12):
        spec, again = (MachineSpec(n_instructions=40 + k, n_cells=11 + k, bits=1 + k % 8) for _ in range(2))

        def call(number, spec=spec):
            states = sample(spec, 20, seed=1, weights=strata_weights(spec, branches=True))
            target = variable(spec, "cell[3]")
            return encode(step(states, {"cell[3]": 1}).next), spec.variables(), spec.layout.names, target.name

        results = in_threads(8, call)
        fresh = call(0, again)
        for tokens, *facts in results:
            assert np.array_equal(tokens, fresh[0])
            assert facts == list(fresh[1:])
