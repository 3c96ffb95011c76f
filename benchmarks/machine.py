"""The machine's speed at its default sizes: records, runs, interventions and threads, each against a named peer.

Both sides take turns, round by round and in random order. A ratio is the median over rounds of the two sides' rates,
one beside the other in time, so that a stretch in which neighbours slow the machine weighs on both. Rows on one core
measure the thread's CPU time; `two_threads` has only wall time. What explains the rows (best rounds, spread, what
bounds the records, every variable that was set) is logged.

Rows: `labelled_records` (what `sample_records` draws, steps and writes: the tokens of S_t and S_{t+1}, all variables of
the step, the program's hash; peer: vectorised NumPy, all but the hash), `run_last_state` and `run_all_states` (executed
steps; peer: reference.py), `step_do` (the slowest variable to set; peer: a plain step) and `two_threads` (labelled
records, batches of rows as each comes free; peer: one thread doing all of them).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cython_vm
from benchmarks.numpy_machine import NumpyMachine
from cython_vm import (
    MachineSpec,
    States,
    encode,
    record_dtype,
    reference,
    run,
    sample,
    sample_records,
    step,
    variable,
)

log = logging.getLogger(__name__)

BATCH = 2_048  # rows at a time, that arrays of them stay in the second-level cache
NUMPY_BATCH = 8_192  # NumPy: the fastest of 2^10 … 2^15, since every one of its operations has a price of its own
DO_BATCH = 8_192  # rows at a time under `do`, where checking the values has a fixed price a call
LONG, LIMIT = 32, 1_000  # long runs: at least so many steps within so many
LIMIT_RECORDED = 256  # of the runs whose every state is kept
INNER = (
    *("op", "operand", "jump_target", "input_head", "output_length", "outcome", "branch_taken"),
    *("result", "emitted", "next_instruction_ptr", "next_array_ptr", "next_cell[0]"),
)
ROOTS = ("instruction_ptr", "array_ptr", "instruction[0]", "cell[0]", "input_length", "input[0]", "output[0]")

Seconds = dict[str, NDArray[np.float64]]  # per round


def rows(*, spec: MachineSpec = MachineSpec(), size: float = 1.0, rounds: int = 21, seed: int = 0) -> list[dict]:  # noqa: B008
    """The benchmark's rows: name, ours, peer, peer_name, ratio (above 1 = ours is better), unit.

    Args:
        spec: the machine.
        size: the work of a round, as a share of the usual.
        rounds: turns of each side; three times as many for `step_do`, whose sides are close.
        seed: of the states.
    """
    batches = max(4, round(64 * size))
    return [
        labelled_records(spec, batches=batches, rounds=rounds, seed=seed),
        run_steps(spec, "last", n=max(20, round(10_000 * size)), rounds=rounds, seed=seed),
        run_steps(spec, "all", n=max(20, round(2_000 * size)), rounds=rounds, seed=seed),
        step_do(spec, batches=max(1, round(16 * size)), rounds=3 * rounds, seed=seed),
        two_threads(spec, batches=2 * batches, rounds=rounds, seed=seed),
    ]


def labelled_records(spec: MachineSpec, *, batches: int, rounds: int, seed: int) -> dict:
    """Records a second, and what a record's time is spent on."""
    peer, rng = NumpyMachine(spec), np.random.Generator(np.random.SFC64(seed))
    n, peer_n = batches * BATCH, max(1, batches * BATCH // NUMPY_BATCH // 2) * NUMPY_BATCH
    states = [sample(spec, BATCH, seed=seed, start=batch * BATCH) for batch in range(batches)]
    bits = np.random.SFC64(seed)
    out = np.empty(BATCH, record_dtype(spec))
    source, target = np.ones((2, out.nbytes), np.uint8)

    def of_numpy() -> None:
        for _ in range(peer_n // NUMPY_BATCH):
            peer.records(NUMPY_BATCH, rng)

    seconds = measure(
        {
            "ours": lambda: make_records(spec, range(batches), seed=seed),
            "numpy": of_numpy,
            "drawing": lambda: each(lambda b: sample(spec, BATCH, seed=seed, start=b * BATCH), range(batches)),
            "writing": lambda: each(lambda batch: cython_vm.labelled_records(batch, out=out), states),
            "apart": lambda: each(lambda b: step_by_step(spec, b, seed=seed), range(batches)),
            "random words": lambda: bits.random_raw(n * words_a_state(spec), output=False),
            "copy": lambda: each(lambda _: np.copyto(target, source), range(batches)),
        },
        rounds,
    )
    per_record = {name: np.median(times) / (peer_n if name == "numpy" else n) for name, times in seconds.items()}
    whole = per_record["ours"]
    log.info(
        "labelled_records: %.0f ns a record; drawing states alone takes %.0f%% of that, stepping and writing given "
        "ones %.0f%%; sample, step and encode, one after the other, take %.2f times as long. Its %d random words alone "
        "are at most %.0f%% (NumPy's SFC64, a call a word); copying its %d bytes takes %.0f%% (memcpy, %.1f GB/s).",
        1e9 * whole,
        100 * per_record["drawing"] / whole,
        100 * per_record["writing"] / whole,
        per_record["apart"] / whole,
        words_a_state(spec),
        100 * per_record["random words"] / whole,
        out.itemsize,
        100 * per_record["copy"] / whole,
        out.itemsize / per_record["copy"] / 1e9,
    )
    return rate_row(
        "labelled_records", (n, seconds["ours"]), (peer_n, seconds["numpy"]), "NumPy, vectorised", "records/s"
    )


def make_records(spec: MachineSpec, batches: range, *, seed: int) -> NDArray[np.void]:
    """Labelled records of some batches of rows of one stream, each written over the last."""
    out = np.empty(BATCH, record_dtype(spec))
    for batch in batches:
        sample_records(spec, BATCH, seed=seed, start=batch * BATCH, out=out)
    return out


def step_by_step(spec: MachineSpec, batch: int, *, seed: int) -> tuple:
    """The same but for the hash, in arrays of their own, from the calls that a record is put together of."""
    before = sample(spec, BATCH, seed=seed, start=batch * BATCH)
    after = step(before)
    return encode(before), encode(after.next), after.latents


def words_a_state(spec: MachineSpec) -> int:
    """Random 64-bit words that a state takes, its seeding included, as `_sampler.pyx` draws them."""
    values = spec.n_cells + spec.n_input + spec.n_output
    return 4 + spec.n_instructions + 1 + 2 + 1 + 3 * -(-values // 8)


def run_steps(spec: MachineSpec, keep: str, *, n: int, rounds: int, seed: int) -> dict:
    """Executed steps a second in long runs, keeping every state or the last one alone."""
    limit = LIMIT if keep == "last" else LIMIT_RECORDED
    states = long_runs(spec, n, seed=seed)
    few = states[: max(1, n // 1000)]
    plain = [reference.to_state(few, row) for row in range(len(few))]
    natural = sample(spec, NUMPY_BATCH, seed=seed)
    contenders = {
        "ours": lambda: run(states, limit, keep=keep),  # type: ignore[arg-type]
        "reference": lambda: [reference.run(spec, state, limit) for state in plain],
        "natural": lambda: run(natural, limit, keep=keep),  # type: ignore[arg-type]
    }
    steps = {
        "ours": int(run(states, limit, keep="last").n_steps.sum()),
        "reference": int(run(few, limit, keep="last").n_steps.sum()),
        "natural": int(run(natural, limit, keep="last").n_steps.sum()),
    }
    if keep == "last":
        stopped = sample(spec, 8 * NUMPY_BATCH, seed=seed)
        stopped = stopped[run(stopped, 0, keep="last").stopped]
        contenders |= {
            "stopped, limit 1": lambda: run(stopped, 1, keep="last"),
            "stopped, limit 10^12": lambda: run(stopped, 10**12, keep="last"),
        }
    seconds = measure(contenders, rounds)
    name = f"run_{keep}_state" + ("s" if keep == "all" else "")
    log.info(
        "%s: %d states that run %d steps or more, %.0f on average up to the limit of %d; %.1f million steps/s on "
        "states as `sample` draws them, of %.1f steps.",
        name,
        n,
        LONG,
        steps["ours"] / n,
        limit,
        steps["natural"] / np.median(seconds["natural"]) / 1e6,
        steps["natural"] / len(natural),
    )
    if keep == "last":
        one, many = (1e9 * np.median(seconds[f"stopped, limit {end}"]) / len(stopped) for end in ("1", "10^12"))
        log.info(
            "%s: a state that is halted or frozen takes %.1f ns, and %.1f ns with a limit of 10^12", name, one, many
        )
    ours, peer = (steps["ours"], seconds["ours"]), (steps["reference"], seconds["reference"])
    return rate_row(name, ours, peer, "reference.py, plain Python", "executed steps/s")


def long_runs(spec: MachineSpec, n: int, *, seed: int) -> States:
    """The first n states of a stream that run at least LONG of LIMIT steps: most of them loop for ever."""
    found: list[States] = []
    start = 0
    while sum(map(len, found)) < n:
        states = sample(spec, BATCH, seed=seed, start=start)
        found.append(states[run(states, LONG, keep="last").n_steps == LONG])
        start += BATCH
        if start == 64 * BATCH and not sum(map(len, found)):
            raise ValueError(f"spec must have programs that run {LONG} steps; found none in {start:,} states of {spec}")
    return States.concatenate(found)[:n]


def step_do(spec: MachineSpec, *, batches: int, rounds: int, seed: int) -> dict:
    """Steps a second under `do`, one variable at a time set to its value in other states; the slowest is the row."""
    n = batches * DO_BATCH
    base, source = sample(spec, n, seed=seed), sample(spec, n, seed=seed + 1)
    known = spec.variables()
    values = {name: variable(spec, name).read(source) for name in (*INNER, *ROOTS) if name in known}
    parts = [slice(start, start + DO_BATCH) for start in range(0, n, DO_BATCH)]
    bases = [base[part] for part in parts]
    contenders = {"plain": lambda: each(step, bases)}
    for name, given in values.items():
        settings = [{name: given[part]} for part in parts]
        contenders[name] = partial(each, lambda pair: step(*pair), list(zip(bases, settings, strict=True)))
    seconds = measure(contenders, rounds)
    slowness = {name: float(np.median(seconds[name] / seconds["plain"])) for name in values}
    for kind, names in (("inner variables", INNER), ("roots", ROOTS)):
        among = sorted((slowness[name], name) for name in names if name in slowness)
        log.info("step_do: times of a plain step, %s: %s", kind, ", ".join(f"{name} {x:.2f}" for x, name in among))
    worst = max(slowness, key=lambda name: slowness[name])
    peer_name = f"plain step; ours sets {worst}, the slowest of {len(values)} variables"
    return rate_row("step_do", (n, seconds[worst]), (n, seconds["plain"]), peer_name, "steps/s")


def two_threads(spec: MachineSpec, *, batches: int, rounds: int, seed: int) -> dict:
    """Labelled records a second of two Python threads, each with an array of its own, that take batches of rows.

    Rounds are long, since the two start and end apart by up to a batch; with halves, the slower core kept both waiting.
    """
    size = 8 * BATCH  # threads take turns between two calls: longer ones, fewer turns
    cpu = {"two": 0.0, "one": 0.0}
    mine = threading.local()

    def make_batch(batch: int) -> None:
        if not hasattr(mine, "out"):
            mine.out = np.empty(size, record_dtype(spec))
        sample_records(spec, size, seed=seed, start=batch * size, out=mine.out)

    def make(name: str, spread: Callable) -> None:
        start = time.process_time()
        list(spread(make_batch, range(batches)))
        cpu[name] += time.process_time() - start

    with ThreadPoolExecutor(2) as pool:
        contenders = {"two": lambda: make("two", pool.map), "one": lambda: make("one", map)}
        seconds = measure(contenders, rounds, clock=time.perf_counter)
    log.info(
        "two_threads: %.2f times one thread's CPU time for the same work: at best %.2f times as fast, on idle cores",
        cpu["two"] / cpu["one"],
        2 * cpu["one"] / cpu["two"],
    )
    n = batches * size
    return rate_row("two_threads", (n, seconds["two"]), (n, seconds["one"]), "one thread", "records/s")


def measure(
    contenders: Mapping[str, Callable[[], object]], rounds: int, *, clock: Callable[[], float] = time.thread_time
) -> Seconds:
    """Seconds of every contender [rounds], after one call each to warm up; each round has an order of its own."""
    for contender in contenders.values():
        contender()
    seconds = {name: np.empty(rounds) for name in contenders}
    order = np.random.default_rng(0)
    for turn in range(rounds):
        for name in order.permutation(list(contenders)).tolist():
            start = clock()
            contenders[name]()
            seconds[name][turn] = clock() - start
    return seconds


def each(call: Callable[[Any], object], things: Iterable) -> None:
    """Call with one thing after the other. They differ, or the processor learns their branches by heart."""
    for thing in things:
        call(thing)


def rate_row(
    name: str,
    ours: tuple[int, NDArray[np.float64]],
    peer: tuple[int, NDArray[np.float64]],
    peer_name: str,
    unit: str,
) -> dict:
    """One row from the work and the seconds a round of both sides [rounds]: median rates, median ratio of a round."""
    medians, bests, spread = [], [], []
    for work, seconds in (ours, peer):
        low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        medians.append(float(work / middle))
        bests.append(float(work / seconds.min()))
        spread.append(float((high - low) / middle))
    ratios = (ours[0] / ours[1]) / (peer[0] / peer[1])
    low, ratio, high = (float(x) for x in np.quantile(ratios, (0.25, 0.5, 0.75)))
    log.info(
        "%s: median %.3g %s, best round %.3g, quartiles %.0f%% apart; %s %.3g, best %.3g, %.0f%% apart; "
        "ratio of a round's sides: median %.2f, quartiles %.2f and %.2f; of the two medians %.2f, of best rounds %.2f",
        name, medians[0], unit, bests[0], 100 * spread[0], peer_name, medians[1], bests[1], 100 * spread[1],
        ratio, low, high, medians[0] / medians[1], bests[0] / bests[1],
    )  # fmt: skip
    return {
        "name": name,
        "ours": medians[0],
        "peer": medians[1],
        "peer_name": peer_name,
        "ratio": ratio,
        "unit": unit,
    }
