"""Variation, what programs do, the search, its files, and states of evolved programs."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import (
    EvolutionConfig,
    MachineSpec,
    Op,
    ProgramArchive,
    States,
    evolve,
    run,
    sample,
    sample_evolved,
    step,
)
from cython_vm.behaviour import begin, behaviour_of, draw_inputs, program_length, quality
from cython_vm.comparison import METRICS, compare_with_uniform
from cython_vm.evolution import generations
from cython_vm.fate import Fate, run_fate
from cython_vm.programs import parse_program, program_hash, valid_programs
from cython_vm.reachable import start_states
from cython_vm.variation import repair, vary

SPEC = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2)
CONFIG = EvolutionConfig(seed=1, batch_size=512, n_inputs=8, max_steps=100)


@pytest.fixture(scope="module")
def archive() -> ProgramArchive:
    return evolve(SPEC, 12, config=CONFIG)


specs = st.builds(
    MachineSpec,
    n_instructions=st.integers(1, 12),
    n_cells=st.just(2),
    n_input=st.integers(0, 2),
    n_output=st.integers(0, 2),
    bits=st.integers(1, 3),
    io=st.booleans(),
    loops=st.booleans(),
    stops=st.booleans(),
)


# Variation


@settings(max_examples=80, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_children_are_programs_of_the_machine(spec, seed):
    rng = np.random.default_rng(seed)
    programs = sample(spec, 60, seed=seed).program
    for _ in range(3):
        programs = vary(spec, programs, rng.permutation(programs), rng)
        assert valid_programs(spec, programs).all()


@settings(max_examples=80, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_repair_makes_programs_and_changes_only_what_is_wrong(spec, seed):
    rng = np.random.default_rng(seed)
    noise = rng.choice(np.array(spec.ops, dtype=np.uint8), size=(40, spec.n_instructions))
    repaired = repair(spec, noise, rng)
    assert valid_programs(spec, repaired).all()
    assert np.array_equal(repair(spec, repaired, rng), repaired)
    touched = noise[:, :-1] != repaired[:, :-1]
    assert np.isin(noise[:, :-1][touched], (Op.WHILE, Op.ENDW, Op.STOP)).all()
    for before, after in zip(noise, repaired, strict=True):
        opened = []  # the pairs by a stack: exactly what has a partner stays
        pairs = set()
        for slot, op in enumerate(before[:-1]):
            if op == Op.WHILE:
                opened.append(slot)
            elif op == Op.ENDW and opened:
                pairs |= {opened.pop(), slot}
        assert {s for s, op in enumerate(after) if op in (Op.WHILE, Op.ENDW)} == pairs


def test_variation_makes_and_removes_loops():
    rng = np.random.default_rng(0)
    flat = np.tile(States.build(SPEC, program="+>+").program, (4000, 1))
    looped = np.tile(States.build(SPEC, program="+[-]>").program, (4000, 1))
    children = vary(SPEC, flat, flat, rng)
    assert (children == Op.WHILE).any(axis=1).mean() > 0.1
    assert (vary(SPEC, looped, flat, rng) == Op.WHILE).any(axis=1).mean() < 0.9
    assert len(np.unique(children, axis=0)) > 100
    spliced = vary(SPEC, np.tile(States.build(SPEC, program="+++++++").program, (4000, 1)), looped, rng)
    assert (spliced[:, :4] == [Op.INC, Op.WHILE, Op.DEC, Op.ENDW]).all(axis=1).any()


# Behaviour


def test_behaviour_by_hand():
    inputs = np.array([[0, 3], [1, 3], [2, 3], [2, 0]], dtype=np.uint8)
    table = behaviour_of(
        SPEC, States.build(SPEC, program=[",.", ",[-].", "+[]", "<", "", ",[,]", "STOP +"]).program, inputs
    )
    echo, count, spin, freeze, empty, drain, dead = table
    assert (echo["halts"], echo["executed"], echo["steps"], echo["reads"], echo["prints"]) == (1, 1, 2, 1, 1)
    assert (echo["distinct_outputs"], echo["distinct_iterations"], echo["loop_iterations"]) == (3, 1, 0)
    # 0: GET WHILE PUT; n: GET WHILE (DEC ENDW) n times PUT, which jumps back n − 1 times.
    assert count["steps"] == pytest.approx((3 + 5 + 7 + 7) / 4)
    assert count["loop_iterations"] == pytest.approx((0 + 0 + 1 + 1) / 4)
    assert (count["distinct_iterations"], count["distinct_outputs"], count["executed"]) == (2, 1, 1)
    assert (spin["halts"], spin["loops_for_ever"], spin["distinct_outputs"], spin["steps"]) == (0, 1, 0, 0)
    assert (freeze["halts"], freeze["loops_for_ever"], freeze["executed"]) == (0, 0, 0)
    assert (empty["halts"], empty["executed"]) == (1, 0)
    assert drain["halts"] == 0.5 and drain["reads"] == 1.5  # inputs [0, …] and [2, 0] halt; 3 finds the input empty
    assert (dead["halts"], dead["executed"]) == (1, 0)
    assert quality(table).tolist() == [1, 1, 0, 0, 0, 0.5, 0]
    assert echo["function"] != count["function"]
    same = behaviour_of(SPEC, States.build(SPEC, program=[",>+<.", ",+-.."]).program, inputs[:3])
    assert (
        same[0]["function"] == behaviour_of(SPEC, States.build(SPEC, program=",.").program, inputs[:3])[0]["function"]
    )
    assert same[1]["function"] != same[0]["function"]


def test_program_length():
    programs = States.build(SPEC, program=["", "+", "STOP +", "+++++++"]).program
    assert program_length(programs).tolist() == [0, 1, 2, 7]


@settings(max_examples=25, deadline=None)
@given(spec=specs, seed=st.integers(0, 2**32))
def test_behaviour_equals_running_each_program_alone(spec, seed):
    programs = sample(spec, 6, seed=seed).program
    inputs = draw_inputs(spec, 3, seed=seed)
    table = behaviour_of(spec, programs, inputs, max_steps=50)
    for program, record in zip(programs, table, strict=True):
        halting, visited = [], set()
        for values in inputs:
            trace = run(States.build(spec, program=program, input=values), 50)
            visited |= set(trace.row(0).instruction_ptr[:-1].tolist())
            if trace.outcome[0] == 1:
                output = tuple(trace.final.output[0, : trace.final.output_length[0]].tolist())
                halting.append((int(trace.n_steps[0]), output, len(values) - int(trace.final.input_length[0])))
        assert record["halts"] == pytest.approx(len(halting) / 3)
        assert record["distinct_outputs"] == len({output for _, output, _ in halting})
        assert record["steps"] == pytest.approx(np.mean([n for n, _, _ in halting]) if halting else 0)
        assert record["reads"] == pytest.approx(np.mean([n for _, _, n in halting]) if halting else 0)
        assert record["prints"] == pytest.approx(np.mean([len(o) for _, o, _ in halting]) if halting else 0)
        if (record["loops_for_ever"] == 0) and len(halting) == 3:
            length = max([i + 1 for i, op in enumerate(program) if op != Op.STOP], default=0)
            assert record["executed"] == pytest.approx(len(visited) / max(length, 1))


def test_bad_panels():
    programs = States.build(SPEC, program="+").program
    for bad, message in (
        ((programs[:, :5], np.zeros((1, 2), np.uint8)), r"programs must be uint8 \[n, 8\], got uint8 \[1, 5\]"),
        ((programs, np.zeros((1, 3), np.uint8)), r"inputs must be uint8 \[n, 2\]"),
        ((programs, np.zeros((0, 2), np.uint8)), "at least one input"),
        ((programs, np.full((1, 2), 9, np.uint8)), "inputs must be from 0 to 3, got 9 at row 0, slot 0"),
        ((np.full((1, 8), Op.INC, np.uint8), np.zeros((1, 2), np.uint8)), "last instruction must be STOP"),
    ):
        with pytest.raises(ValueError, match=message):
            behaviour_of(SPEC, *bad)


# The search


def test_members_behave_as_recorded(archive):
    assert len(archive) > 100
    assert valid_programs(SPEC, archive.programs).all()
    again = behaviour_of(SPEC, archive.programs, archive.inputs, max_steps=CONFIG.max_steps)
    assert np.array_equal(again, archive.behaviour)
    assert (archive.quality >= CONFIG.min_quality).all()
    assert len(np.unique(archive.cells)) == len(archive)
    assert archive.evaluations == 12 * 512 * 8


def test_each_cell_keeps_the_best(archive):
    """Over a further generation no cell is lost and none gets worse."""
    later = next(generations(archive))
    before = dict(zip(archive.cells.tolist(), archive.quality.tolist(), strict=True))
    after = dict(zip(later.cells.tolist(), later.quality.tolist(), strict=True))
    assert set(before) <= set(after)
    assert all(after[cell] >= value for cell, value in before.items())
    assert later.generation == 13 and archive.generation == 12


def test_same_settings_same_archive_interrupted_or_not(archive, tmp_path):
    half = evolve(SPEC, 5, config=EvolutionConfig(np.int64(1), np.int32(512), 8, max_steps=100))  # type: ignore[arg-type]
    half.save(tmp_path / "half.npz")
    whole = evolve(SPEC, 12, archive=ProgramArchive.load(tmp_path / "half.npz"))
    for one, other in ((whole, archive), (evolve(SPEC, 12, config=CONFIG), archive)):
        assert np.array_equal(one.programs, other.programs)
        assert np.array_equal(one.cells, other.cells)
        assert np.array_equal(one.behaviour, other.behaviour)
    other_seed = evolve(SPEC, 5, config=EvolutionConfig(**{**CONFIG.__dict__, "seed": 2}))
    assert not np.array_equal(other_seed.programs, half.programs)
    with pytest.raises(ValueError, match="asked for"):
        evolve(SPEC, 12, archive=half, config=EvolutionConfig(seed=9))


@pytest.mark.parametrize(
    "spec",
    [
        MachineSpec(n_instructions=6, n_cells=2, n_input=0, n_output=0, bits=1),
        MachineSpec(n_instructions=6, n_cells=2, n_input=3, n_output=20, bits=2, loops=False, stops=False),
        MachineSpec(n_instructions=6, n_cells=1, n_input=1, n_output=1, bits=2, io=False),
        MachineSpec(n_instructions=6, n_cells=2, n_input=2, n_output=2, bits=1, stops=False, padded=True),
        MachineSpec(n_instructions=1),
    ],
    ids=["no buffers", "no loops", "no io", "padded", "no room"],
)
def test_small_machines(spec):
    found = evolve(spec, 3, config=EvolutionConfig(batch_size=128, n_inputs=3, max_steps=50))
    assert found.generation == 3
    assert valid_programs(spec, found.programs).all()
    assert (len(found) == 0) == (spec.n_instructions == 1)


def test_evolved_programs_differ_from_uniform_ones(archive):
    table = compare_with_uniform(archive, n_programs=400, n_inputs=8)
    rows = {(row["programs"], row["metric"]): row for row in table}
    assert set(rows) == {(programs, metric) for programs in ("evolved", "uniform") for metric in METRICS}
    for metric in (
        "halts",
        "steps",
        "loop_iterations",
        "executed",
        "reads",
        "prints",
        "varying_loops",
        "varying_output",
    ):
        assert rows["evolved", metric]["ci_low"] > rows["uniform", metric]["ci_high"], metric
    assert ((table["ci_low"] <= table["estimate"]) & (table["estimate"] <= table["ci_high"])).all()
    uniform = sample(SPEC, len(archive.members()[:400]), seed=0).program
    inputs = draw_inputs(SPEC, 8, seed=CONFIG.seed, start=2**40)
    behaviour = behaviour_of(SPEC, uniform, inputs)
    assert rows["uniform", "halts"]["estimate"] == pytest.approx(behaviour["halts"].mean())
    runs = run(begin(SPEC, np.repeat(uniform, 8, axis=0), np.tile(inputs, (len(uniform), 1))), 1000, keep="last")
    assert rows["uniform", "steps"]["estimate"] == pytest.approx(runs.n_steps[runs.outcome == 1].mean())
    assert rows["uniform", "functions"]["estimate"] == pytest.approx(len(set(behaviour["function"])) / len(uniform))


# Files


def test_a_file_is_read_back_whole_or_refused(archive, tmp_path):
    path = tmp_path / "deep" / "a.npz"
    archive.save(path)
    read = ProgramArchive.load(path)
    assert (read.spec, read.config, read.generation) == (archive.spec, archive.config, archive.generation)
    assert np.array_equal(read.programs, archive.programs) and np.array_equal(read.behaviour, archive.behaviour)
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]
    with np.load(path, allow_pickle=False) as file:  # plain NumPy reads it
        assert json.loads(str(file["about"]))["spec"]["n_cells"] == 3
    whole = path.read_bytes()
    for name, content in (("cut", whole[: len(whole) // 2]), ("foreign", b"hello"), ("empty", b"")):
        bad = tmp_path / f"{name}.npz"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.npz is not an archive of programs"):
            ProgramArchive.load(bad)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0x55
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(ValueError, match="flipped.npz"):
        ProgramArchive.load(tmp_path / "flipped.npz")
    with pytest.raises(FileNotFoundError):
        ProgramArchive.load(tmp_path / "none.npz")


# Sampling


def test_sampled_rows_are_states_of_members(archive):
    members = {program.tobytes() for program in archive.programs}
    begun = sample_evolved(archive, 500, seed=3, at="start")
    assert begun == start_states(begun)
    assert (begun.input_length == SPEC.n_input).all()
    assert {program.tobytes() for program in begun.program} <= members
    reached = sample_evolved(archive, 500, seed=3, exclude=("frozen", "halted", "stuck"), max_steps=100)
    assert {program.tobytes() for program in reached.program} <= members
    assert (step(reached).outcome == 0).all()
    assert not (run_fate(reached, 200).fate == Fate.LOOPS).any()
    assert (reached.instruction_ptr > 0).any()
    assert sample_evolved(archive, 40, seed=3, start=100, at="start") == begun[100:140]
    options = {"exclude": ("frozen", "halted", "stuck"), "max_steps": 100}
    assert sample_evolved(archive, 40, seed=3, start=100, **options) == reached[100:140]


def test_every_member_is_drawn_alike(archive):
    begun = sample_evolved(archive, 200 * len(archive), seed=4, at="start")
    _, counts = np.unique(begun.program, axis=0, return_counts=True)
    assert len(counts) == len(archive)  # one cell a program
    assert np.abs(counts - 200).max() < 6 * np.sqrt(200)


def test_members_keep_their_split(archive):
    evaluation, train = archive.members("evaluation"), archive.members("train")
    assert len(evaluation) and len(evaluation) + len(train) == len(archive)
    assert not set(evaluation) & set(train)
    assert set(archive.members("validation")) | set(archive.members("fit")) == set(train)
    assert (program_hash(sample_evolved(archive, 200, seed=5, split="fit")) % 20 > 1).all()
    assert (program_hash(sample_evolved(archive, 200, seed=5, split="evaluation")) % 20 == 0).all()
    assert (program_hash(sample_evolved(archive, 200, seed=5, split="train")) % 20 != 0).all()
    table = compare_with_uniform(archive, split="evaluation")
    assert (table["n"] == len(evaluation)).all()


def test_bad_arguments(archive):
    with pytest.raises(ValueError, match='at must be "start" or "reachable"'):
        sample_evolved(archive, 1, seed=0, at="end")
    with pytest.raises(ValueError, match="split must be one of"):
        sample_evolved(archive, 1, seed=0, split="test")
    with pytest.raises(ValueError, match="batch_size must be an integer from 16"):
        EvolutionConfig(batch_size=1)
    with pytest.raises(ValueError, match="min_quality"):
        EvolutionConfig(min_quality=1.0)
    with pytest.raises(ValueError, match="n_generations must be from 0"):
        evolve(SPEC, -1)
    with pytest.raises(ValueError, match="n_programs must be at least 1"):
        compare_with_uniform(archive, n_programs=0)
    empty = evolve(SPEC, 0)
    for call in (lambda: sample_evolved(empty, 1, seed=0), lambda: compare_with_uniform(empty)):
        with pytest.raises(ValueError, match="no program of the 'all' split"):
            call()


# Dependencies and the command


def test_reading_and_sampling_need_numpy_alone(archive, tmp_path):
    archive.save(tmp_path / "a.npz")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('ribs', 'torch', 'pandas', 'sklearn', 'numba')));"
        "from cython_vm import ProgramArchive, sample_evolved;"
        f"print(len(sample_evolved(ProgramArchive.load({str(tmp_path / 'a.npz')!r}), 7, seed=0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "7\n"


def test_an_interrupted_search_keeps_what_it_found(archive, tmp_path):
    from interp.cli.evolving import evolve_into

    out = tmp_path / "a.npz"

    def interrupt(done: float, total: float, at: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve_into(out, SPEC, 12, config=CONFIG, progress=interrupt)
    assert ProgramArchive.load(out).generation == 4
    finished, rate = evolve_into(out, SPEC, 12, config=CONFIG, progress=lambda *_: None)
    assert np.array_equal(finished.programs, archive.programs) and rate > 0
    with pytest.raises(ValueError, match="begun with"):
        evolve_into(out, SPEC, 12, config=EvolutionConfig(seed=9), progress=lambda *_: None)


def test_the_command(tmp_path, capsys):
    from interp.cli import main

    command = ["evolve", "--out", str(tmp_path / "a.npz"), "--generations", "3", "--batch-size", "256"]
    command += ["--compare", "100", "--spec.n-instructions", "8", "--spec.bits", "2"]
    main(command)
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 generations, 12,288 runs" in shown and "evolved" in shown and "uniform" in shown
    first = ProgramArchive.load(tmp_path / "a.npz")
    main(command)  # nothing left to do
    assert np.array_equal(ProgramArchive.load(tmp_path / "a.npz").programs, first.programs)
    with pytest.raises(SystemExit):
        main([*command, "--seed", "5"])
    assert "--fresh" in capsys.readouterr().err


def test_the_example(tmp_path, capsys):
    example = Path(__file__).resolve().parents[2] / "examples" / "evolve_programs.py"
    found = runpy.run_path(str(example))["main"](tmp_path / "a.npz", generations=2)
    out = capsys.readouterr().out
    assert f"{len(found):,} programs from 131,072 runs" in out
    listed = out.split("different inputs:\n")[1].splitlines()[:5]
    programs = np.array([parse_program(line.strip(), spec=found.spec) for line in listed], dtype=np.uint8)
    again = behaviour_of(found.spec, programs, found.inputs, max_steps=found.config.max_steps)
    assert again["distinct_iterations"].min() >= np.sort(found.behaviour["distinct_iterations"])[-5] > 1
