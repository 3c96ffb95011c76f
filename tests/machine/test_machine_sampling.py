"""Sampling: programs exactly uniform, the stated distributions, streams by row, splits, and strata."""

import hashlib
import itertools
import threading
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare, kstest

from cython_vm import (
    SPLITS,
    MachineSpec,
    Op,
    Outcome,
    States,
    count_programs,
    encode,
    program_hash,
    reference,
    sample,
    step,
    strata_weights,
)

SPEC = MachineSpec()
RARE = 1e-4  # a correct sampler fails one of these fixed seeds with this probability


def p_independent(table):
    """The chi-square p-value of rows and columns being independent."""
    return float(np.asarray(chi2_contingency(table)[1]))


SWITCHES = [
    {"io": io, "loops": loops, "stops": stops} for io, loops, stops in itertools.product([True, False], repeat=3)
]


def small_spec(n_instructions, switches):
    return MachineSpec(n_instructions, n_cells=1, n_input=0, n_output=0, bits=1, **switches)


def every_program(spec):
    """Every valid program, [count, n_instructions], slot by slot; dead ends go as soon as the loops cannot close."""
    choices = np.array([op for op in spec.ops if spec.stops or op != Op.STOP], dtype=np.uint8)
    change = (choices == Op.WHILE).astype(int) - (choices == Op.ENDW)
    programs, depth = np.zeros((1, 0), dtype=np.uint8), np.zeros(1, dtype=int)
    for left in range(spec.n_instructions - 2, -1, -1):
        longer = np.repeat(programs, len(choices), axis=0)
        programs = np.column_stack([longer, np.tile(choices, len(programs))])
        depth = np.add.outer(depth, change).ravel()
        alive = (depth >= 0) & (depth <= left)
        programs, depth = programs[alive], depth[alive]
    return np.column_stack([programs, np.full(len(programs), Op.STOP, dtype=np.uint8)])


def p_uniform(spec, every, programs):
    """The chi-square p-value of each of `every` being as likely; no other program may occur."""
    place = 9 ** np.arange(spec.n_instructions)
    cell = np.full(9**spec.n_instructions, len(every))
    cell[every @ place] = np.arange(len(every))
    counts = np.bincount(cell[programs @ place], minlength=len(every) + 1)
    assert counts[-1] == 0, "a program that is not among the valid ones"
    return float(chisquare(counts[:-1]).pvalue)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("n_instructions", range(1, 8))
def test_every_program_is_enumerated_and_counted(n_instructions, switches):
    spec = small_spec(n_instructions, switches)
    every = every_program(spec)
    assert len(every) == count_programs(spec) == len(np.unique(every, axis=0))
    if n_instructions <= 4:
        assert sorted(map(tuple, every.tolist())) == sorted(reference.all_programs(spec))


def test_programs_are_uniform_over_all_valid_ones():
    """Every size to 7 with every switch: the smallest of the p-values, times their number (Bonferroni), is no rarity.

    At least 10 rows for each program, so that the statistic is close to its limit. Nor are the p-values too good.
    """
    p_values = []
    for seed, (n_instructions, switches) in enumerate(itertools.product(range(1, 8), SWITCHES)):
        spec = small_spec(n_instructions, switches)
        every = every_program(spec)
        rows = sample(spec, 2000 + 10 * len(every), seed=seed)
        p_value = p_uniform(spec, every, rows.program.astype(np.int64))
        if len(every) > 1:
            p_values.append(p_value)
    assert len(p_values) == 6 * 8  # a machine of one instruction has one program
    assert min(p_values) * len(p_values) > RARE
    assert kstest(p_values, "uniform").pvalue > RARE


def test_the_uniformity_test_can_fail():
    """Each slot uniform among the ops that still let the loops close: valid programs, but not uniform ones."""
    spec = small_spec(4, {"stops": False})
    every = every_program(spec)
    shares = np.ones(len(every))
    for row, slot in itertools.product(range(len(every)), range(3)):
        same_start = (every[:, :slot] == every[row, :slot]).all(axis=1)
        shares[row] /= len(np.unique(every[same_start, slot]))
    assert np.isclose(shares.sum(), 1)
    naive = every[np.random.default_rng(0).choice(len(every), 5000, p=shares)]
    assert p_uniform(spec, every, naive.astype(np.int64)) < 1e-12
    assert p_uniform(spec, every, sample(spec, 5000, seed=0).program.astype(np.int64)) > RARE


def plain_ops(spec):
    return len(spec.ops) - 2 * spec.loops - (not spec.stops)


def ways(spec):
    """forward[k][d]: how many beginnings of k slots leave d loops open, in exact integers."""
    plain, table = plain_ops(spec), [[1]]
    for _ in range(spec.n_instructions - 1):
        last = [0, *table[-1], 0, 0]
        steps = range(1, len(last) - 1)
        table.append([plain * last[d] + spec.loops * (last[d - 1] + last[d + 1]) for d in steps])
    return table


def entry(counts, d):
    return counts[d] if 0 <= d < len(counts) else 0


def p_fits(values, exact, total):
    """The chi-square p-value of integers against exact numbers of cases; cells that expect under 10 are pooled."""
    n = len(values)
    assert sum(exact) == total
    expected = np.array([float(Fraction(n * cases, total)) for cases in exact])
    counts = np.bincount(values, minlength=len(exact)).astype(float)
    assert len(counts) == len(exact)
    assert not counts[[cases == 0 for cases in exact]].any()
    small = expected < 10
    counts, expected = (np.append(x[~small], x[small].sum()) for x in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    return float(chisquare(counts, expected).pvalue) if len(counts) > 1 else None


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_long_programs_follow_the_exact_counts(switches):
    """To 256 slots, where nothing can be enumerated: marginals against exact fractions of big integers.

    The number of loops j has count C(m, 2j) Catalan(j) plain^(m − 2j) of m free slots, known without any recursion;
    depths and ops of the first, a middle and the last free slot come from counts of beginnings and ends.
    """
    p_values = []
    for n_instructions in (2, 3, 15, 64, 129, 255, 256):
        spec = small_spec(n_instructions, switches)
        m, plain, total = n_instructions - 1, plain_ops(spec), count_programs(spec)
        program = sample(spec, 20000, seed=1000 * SWITCHES.index(switches) + n_instructions).program
        depth = np.cumsum((program == Op.WHILE).astype(int) - (program == Op.ENDW), axis=1)
        assert depth.min() == 0
        assert not depth[:, -1].any()
        most = m // 2 if spec.loops else 0
        catalan = [comb(2 * j, j) // (j + 1) for j in range(most + 1)]
        loops = [comb(m, 2 * j) * catalan[j] * plain ** (m - 2 * j) for j in range(most + 1)]
        p_values.append(p_fits((program == Op.WHILE).sum(axis=1), loops, total))
        table = ways(spec)
        for slot in {0, m // 2, m - 1}:
            before, after = table[slot], table[m - 1 - slot]  # an end is a beginning read backwards
            closes, each, opens = (sum(n * entry(after, d + k) for d, n in enumerate(before)) for k in (-1, 0, 1))
            exact = [each * (op in spec.ops and (spec.stops or op != Op.STOP)) for op in Op]
            exact[Op.WHILE], exact[Op.ENDW] = opens * spec.loops, closes * spec.loops
            p_values.append(p_fits(program[:, slot], exact, total))
            if slot:
                exact = [n * entry(table[m - slot], d) for d, n in enumerate(before)]
                p_values.append(p_fits(depth[:, slot - 1], exact, total))
    p_values = np.array([p for p in p_values if p is not None])
    assert len(p_values) >= 18
    assert p_values.min() * len(p_values) > RARE
    assert kstest(p_values, "uniform").pvalue > RARE


def test_pointers_are_uniform():
    states = sample(SPEC, 60000, seed=1)
    for pointer, size in ((states.instruction_ptr, 15), (states.array_ptr, 10)):
        assert chisquare(np.bincount(pointer, minlength=size)).pvalue > RARE


def test_values_are_the_stated_mixture():
    """One value a row: a quarter uniform, a quarter the smaller of two, the larger of two, the mean of two."""
    spec = MachineSpec(n_cells=1, bits=3, n_input=0)
    a, b = np.meshgrid(np.arange(8), np.arange(8))
    shares = np.bincount(a.ravel(), minlength=8) / 64
    shares = shares + np.bincount(np.minimum(a, b).ravel(), minlength=8) / 64
    shares = shares + np.bincount(np.maximum(a, b).ravel(), minlength=8) / 64
    for rounding in (0, 1):
        shares = shares + np.bincount(((a + b + rounding) // 2).ravel(), minlength=8) / 128
    states = sample(spec, 60000, seed=2)
    assert chisquare(np.bincount(states.cells[:, 0], minlength=8), 60000 * shares / 4).pvalue > RARE
    held = states[states.output_length == 5]
    assert chisquare(np.bincount(held.output[:, 4], minlength=8), len(held) * shares / 4).pvalue > RARE


def test_buffer_lengths_are_the_stated_mixture():
    states = sample(SPEC, 60000, seed=3)
    geometric = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 32]
    shares = np.array([np.full(6, 1 / 6), geometric, [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]).sum(axis=0)
    for length in (states.input_length, states.output_length):
        assert chisquare(np.bincount(length, minlength=6), 60000 * shares / 4).pvalue > RARE
    beyond = np.arange(5) >= states.input_length[:, None]
    assert not states.input[beyond].any()


def test_parts_of_a_row_are_independent():
    """And neighbouring rows too: no stream is a shifted copy of the next."""
    states = sample(MachineSpec(bits=2), 40000, seed=4)
    parts = {
        "instruction_ptr": states.instruction_ptr,
        "array_ptr": states.array_ptr,
        "op of slot 3": states.program[:, 3],
        "cell 0": states.cells[:, 0],
        "input_length": states.input_length,
        "output_length": states.output_length,
        "array_ptr of the next row": np.roll(states.array_ptr, 1),
        "cell 0 of the next row": np.roll(states.cells[:, 0], 1),
    }
    for (one, x), (other, y) in itertools.combinations(parts.items(), 2):
        table = np.zeros((x.max() + 1, y.max() + 1), dtype=int)
        np.add.at(table, (x, y), 1)
        assert p_independent(table) > RARE, (one, other)


def test_no_two_rows_are_equal():
    encoded = encode(sample(SPEC, 50000, seed=5))
    assert len(np.unique(encoded, axis=0)) == 50000
    assert not sample(SPEC, 1000, seed=5).equal(sample(SPEC, 1000, seed=6)).any()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_do_not_depend_on_batches_or_threads(split, weighted):
    weights = strata_weights(SPEC) if weighted else None
    whole = sample(SPEC, 300, seed=7, start=1000, split=split, weights=weights)
    parts: dict[int, States] = {}

    def work(offset):
        parts[offset] = sample(SPEC, 75, seed=7, start=1000 + offset, split=split, weights=weights)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in (0, 75, 150, 225)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert States.concatenate([parts[offset] for offset in sorted(parts)]) == whole


GOLDEN = {
    "default": (MachineSpec(), "all", False, "40e48bfa28f501ae"),
    "evaluation": (MachineSpec(), "evaluation", True, "90f1c253dfa6a3eb"),
    "large": (MachineSpec(n_instructions=64, n_cells=64, bits=8), "train", False, "d8ed2da307258bbf"),
    "small": (
        MachineSpec(n_instructions=3, n_cells=1, n_input=0, n_output=1, bits=1, io=False),
        "all",
        True,
        "5a2c338658c4825f",
    ),
}


@pytest.mark.parametrize(("spec", "split", "weighted", "digest"), GOLDEN.values(), ids=GOLDEN)
def test_rows_are_the_same_for_ever(spec, split, weighted, digest):
    """Runs and checkpoints name states by (seed, row): a change here is a change of every published number."""
    weights = strata_weights(spec, branches=True) if weighted else None
    states = sample(spec, 500, seed=2026, start=3, split=split, weights=weights)
    assert hashlib.sha256(states.rows.tobytes()).hexdigest()[:16] == digest


def test_the_split_is_by_program():
    natural = sample(SPEC, 40000, seed=8)
    share = (program_hash(natural) % 20 == 0).mean()
    assert abs(share - 0.05) < 0.005
    assert (program_hash(sample(SPEC, 3000, seed=8, split="evaluation")) % 20 == 0).all()
    assert (program_hash(sample(SPEC, 3000, seed=8, split="train")) % 20 != 0).all()
    weighted = sample(SPEC, 2000, seed=8, split="evaluation", weights=strata_weights(SPEC))
    assert (program_hash(weighted) % 20 == 0).all()
    assert int(program_hash(States.build(SPEC, program="+[-]"))[0]) == 1765032343365493041


def test_the_split_looks_like_the_whole():
    """The hash tells nothing about the program: ops are as frequent in both splits."""
    counts = [
        np.bincount(sample(SPEC, 20000, seed=9, split=split).program[:, :-1].ravel(), minlength=9)
        for split in ("train", "evaluation")
    ]
    assert p_independent(counts) > RARE


def test_a_split_without_programs_is_refused():
    spec = MachineSpec(n_instructions=1)  # STOP is its only program
    assert (program_hash(sample(spec, 100, seed=0)) % 20 != 0).all()
    with pytest.raises(ValueError, match="no program in the 'evaluation' split of this small machine"):
        sample(spec, 1, seed=0, split="evaluation")


def strata_of(states):
    transition = step(states)
    branch = np.maximum(transition.latents["branch_taken"], 0)
    table = np.zeros((9, 8, 2), dtype=int)
    np.add.at(table, (transition.latents["op"], transition.outcome, branch), 1)
    return table


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        MachineSpec(bits=8, n_cells=1),
        MachineSpec(n_input=0, n_output=0),
        MachineSpec(3, 2, stops=False, io=False),
    ],
)
def test_weights_set_the_shares_of_strata(spec):
    for branches in (True, False):
        weights = strata_weights(spec, branches=branches)
        counts = strata_of(sample(spec, 6000, seed=10, weights=weights))
        if not branches:
            counts = counts.sum(axis=2)
        assert not counts[weights == 0].any()
        assert chisquare(counts[weights > 0]).pvalue > RARE


def test_weights_of_any_size():
    weights = np.zeros((9, 8))
    weights[Op.INC, Outcome.VALUE_OVERFLOW], weights[Op.WHILE, Outcome.RAN] = 3, 1
    counts = strata_of(sample(SPEC, 8000, seed=11, weights=weights)).sum(axis=2)
    assert chisquare(counts[weights > 0], [6000, 2000]).pvalue > RARE


@pytest.mark.parametrize(
    ("op", "outcome"),
    [
        (Op.NEXT, Outcome.ARRAY_OVERFLOW),
        (Op.INC, Outcome.VALUE_OVERFLOW),
        (Op.PUT, Outcome.RAN),
        (Op.GET, Outcome.RAN),
        (Op.WHILE, Outcome.RAN),
        (Op.STOP, Outcome.HALTED),
    ],
)
def test_inside_a_stratum_rows_keep_the_natural_distribution(op, outcome):
    spec = MachineSpec(n_instructions=5, n_cells=3, n_input=2, n_output=2, bits=2)
    natural = sample(spec, 300000, seed=12)
    transition = step(natural)
    natural = natural[(transition.latents["op"] == op) & (transition.outcome == outcome)]
    weights = np.zeros((9, 8))
    weights[op, outcome] = 1
    drawn = sample(spec, len(natural), seed=13, weights=weights)
    for read in (
        lambda s: s.instruction_ptr,
        lambda s: s.array_ptr,
        lambda s: (s.program == Op.WHILE).sum(axis=1),
        lambda s: (s.program == op).sum(axis=1),
        lambda s: s.cells[:, 0],
        lambda s: s.cells.sum(axis=1),
        lambda s: s.input_length,
        lambda s: s.output_length,
        lambda s: s.output[:, 0] + 4 * s.input[:, 0],
    ):
        table = np.array([np.bincount(read(s), minlength=20) for s in (natural, drawn)])
        table = table[:, table.sum(axis=0) > 0]
        assert table.shape[1] == 1 or p_independent(table) > RARE


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ((Op.INC, Outcome.HALTED), "INC × HALTED, which cannot occur"),
        ((Op.PUT, Outcome.OUTPUT_FULL), "PUT × OUTPUT_FULL, which cannot occur"),
        ((Op.INC, Outcome.RAN, 1), "INC × RAN, branch taken, which cannot occur"),
        ((Op.WHILE, Outcome.RAN, 0), "WHILE × RAN, branch not taken, which cannot occur"),
    ],
)
def test_strata_that_cannot_occur_are_named(cell, message):
    spec = MachineSpec(io=False, loops=False)
    weights = np.zeros((9, 8, 2)[: len(cell)])
    weights[cell] = 1
    with pytest.raises(ValueError, match=message):
        sample(spec, 1, seed=0, weights=weights)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"split": "test"}, ValueError, "split must be one of all, train, evaluation, validation, fit, got 'test'"),
        ({"seed": -1}, ValueError, "seed must be from 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"weights": np.ones((8, 9))}, ValueError, r"weights must be \[9, 8\] or \[9, 8, 2\], got \[8, 9\]"),
        ({"weights": np.zeros((9, 8))}, ValueError, "not all 0"),
        ({"weights": np.full((9, 8), np.nan)}, ValueError, "finite"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        sample(SPEC, 1, **({"seed": 0} | arguments))
