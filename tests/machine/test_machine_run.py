"""Runs: against repeated steps, worked by hand, and the quantities that only a run has."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from cython_vm import MachineSpec, Outcome, States, run, sample, step, variable

SPEC = MachineSpec(n_instructions=12, n_cells=4, n_input=3, n_output=3, bits=3)


def test_run_is_repeated_step():
    states = sample(SPEC, 400, seed=0)
    trace, now = run(states, 60), states
    for t in range(61):
        assert trace.at(t) == now
        now = step(now).next
    assert trace.final == trace.at(60) == run(states, 60, keep="last").final
    assert np.array_equal(trace.outcome, step(trace.final).outcome)
    assert (trace.outcome == Outcome.RAN).any()  # some spin for ever
    assert (trace.n_steps[trace.outcome == Outcome.RAN] == 60).all()


def test_a_product_by_hand():
    """2 × 3 by a loop: cell 1 gains 3 for every 1 taken from cell 0, then it is printed."""
    states = States.build(SPEC, program="[->+++<]>.", cells=[2])
    trace = run(states, 100)
    assert trace.final.cells.tolist() == [[0, 6, 0, 0]]
    assert trace.final.output[0, : trace.final.output_length[0]].tolist() == [6]
    assert Outcome(trace.outcome[0]) is Outcome.HALTED
    assert trace.n_steps.tolist() == [1 + 2 * 7 + 2]
    assert trace.row(0).instruction_ptr.tolist() == [0, *[1, 2, 3, 4, 5, 6, 7] * 2, 8, 9, 10]
    assert trace.loop_depth().tolist() == [0, *[1] * 14, 0, 0, 0]
    assert trace.loop_iteration().tolist() == [-1, *[0] * 7, *[1] * 7, -1, -1, -1]
    assert trace.steps_to_halt().tolist() == list(range(17, -1, -1))


def test_iterations_of_nested_loops_by_hand():
    """The inner loop runs twice in each round of the outer one, and counts anew each time."""
    states = States.build(SPEC, program="[>++[-]<-]", cells=[2])
    trace = run(states, 100)
    at = trace.row(0).instruction_ptr
    iteration, depth = trace.loop_iteration(), trace.loop_depth()
    assert iteration[at == 5].tolist() == [0, 1, 0, 1]  # DEC of the inner loop
    assert depth[at == 5].tolist() == [2, 2, 2, 2]
    assert iteration[at == 4].tolist() == [0, 1]  # the inner WHILE belongs to the outer loop
    assert iteration[at == 7].tolist() == [0, 1]
    assert iteration[at == 9].tolist() == [0, 1]  # the outer ENDW is inside it


def test_ends_and_limits():
    spins = States.build(SPEC, program="[]", cells=[1])
    assert (run(spins, 1000).n_steps[0], run(spins, 1000).stopped[0]) == (1000, False)
    assert variable(SPEC, "steps_to_halt").read(spins).tolist() == [-1]
    assert (run(spins, 5).steps_to_halt() == -1).all()
    exact = States.build(SPEC, program="++")
    for limit, n_steps, outcome in ((1, 1, "RAN"), (2, 2, "HALTED"), (9, 2, "HALTED"), (0, 0, "RAN")):
        trace = run(exact, limit)
        assert (trace.n_steps[0], Outcome(trace.outcome[0]).name) == (n_steps, outcome)
    frozen = run(States.build(SPEC, program="<"), 7)
    assert len(frozen.row(0)) == 1
    assert Outcome(frozen.outcome[0]) is Outcome.ARRAY_UNDERFLOW


def test_times_and_rows_of_a_trace():
    states = States.build(SPEC, program=["++", "+", "<"])
    trace = run(states, 10)
    assert trace.row_index.tolist() == [0, 0, 0, 1, 1, 2]
    assert trace.time.tolist() == [0, 1, 2, 0, 1, 0]
    assert trace.offsets is not None
    assert trace.offsets.tolist() == [0, 3, 5, 6]
    assert np.array_equal(variable(SPEC, "steps_to_halt").read(states), [2, 1, 0])


def test_bad_arguments():
    states = sample(SPEC, 2, seed=0)
    with pytest.raises(ValueError, match="negative"):
        run(states, -1)
    with pytest.raises(TypeError, match="n_steps must be an integer"):
        run(states, 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match='"all" or "last"'):
        run(states, 1, keep="some")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="kept only the last states"):
        run(states, 1, keep="last").row(0)
    with pytest.raises(IndexError, match="row 2 of a trace of 2"):
        run(states, 1).row(2)


def test_threads_may_share_states():
    spec = MachineSpec()
    states = sample(spec, 20000, seed=0)
    expected = (step(states).next, run(states, 50).final)
    results: list[tuple[States, States]] = []

    def work():
        results.append((step(states).next, run(states, 50).final))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_ctrl_c_ends_a_run_that_never_stops():
    code = (
        "import signal\n"
        "from cython_vm import MachineSpec, States, run\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job's children ignore it
        "states = States.build(MachineSpec(), program='+[]')\n"
        "print('running', flush=True)\n"
        "run(states, 2**62, keep='last')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
        assert "KeyboardInterrupt" in process.stderr.read()
    finally:
        process.kill()


def test_a_run_across_spans_is_one_run():
    """The kernel looks at the keyboard every 2^26 steps; the result must not show it."""
    spin = States.build(MachineSpec(), program="+[><]")  # slots 2, 3, 4 for ever
    n_steps = 2**26 + 5
    trace = run(spin, n_steps, keep="last")
    assert (int(trace.n_steps[0]), int(trace.outcome[0])) == (n_steps, Outcome.RAN)
    assert int(trace.final.instruction_ptr[0]) == 2 + (n_steps - 2) % 3
    assert run(spin, 2**26, keep="last").n_steps.tolist() == [2**26]
