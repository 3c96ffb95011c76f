# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Many steps of each row, until it halts, freezes or reaches a limit."""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int16_t, int64_t, uint8_t
from libc.string cimport memcpy, memmove

from cython_vm._isa cimport *
from cython_vm._machine cimport match_brackets


cdef enum:
    SPAN = 1 << 26  # steps of a row between two looks at the keyboard: about half a second


cdef inline int64_t run_row(
    const Geometry* g, uint8_t* t, int64_t limit, uint8_t* record, uint8_t* outcome
) noexcept nogil:
    """Run the state in `t` where it is, at most `limit` steps; returns how many ran, and what the next one would do.

    With `record`, every state from the first to the last is copied there, one row after the other.
    """
    cdef int16_t match[256]
    cdef const uint8_t* program = t + <int>PROGRAM
    cdef uint8_t* cells = t + g.cells
    cdef int ip = t[<int>INSTRUCTION_PTR], ap = t[<int>ARRAY_PTR], op, left, blocked = RAN
    cdef int64_t steps = 0
    cdef bint matched = False
    while True:
        if record != NULL:
            t[<int>INSTRUCTION_PTR] = <uint8_t>ip
            t[<int>ARRAY_PTR] = <uint8_t>ap
            memcpy(record, t, g.stride)
            record += g.stride
        op = program[ip]
        if op == NEXT:
            if ap == g.n_cells - 1:
                blocked = ARRAY_OVERFLOW
                break
            if steps == limit:
                break
            ap += 1
        elif op == PREV:
            if ap == 0:
                blocked = ARRAY_UNDERFLOW
                break
            if steps == limit:
                break
            ap -= 1
        elif op == INC:
            if cells[ap] == g.max_value:
                blocked = VALUE_OVERFLOW
                break
            if steps == limit:
                break
            cells[ap] += 1
        elif op == DEC:
            if cells[ap] == 0:
                blocked = VALUE_UNDERFLOW
                break
            if steps == limit:
                break
            cells[ap] -= 1
        elif op == PUT:
            if t[<int>OUTPUT_LENGTH] == g.n_output:
                blocked = OUTPUT_FULL
                break
            if steps == limit:
                break
            t[g.output + t[<int>OUTPUT_LENGTH]] = cells[ap]
            t[<int>OUTPUT_LENGTH] += 1
        elif op == GET:
            if t[<int>INPUT_LENGTH] == 0:
                blocked = INPUT_EMPTY
                break
            if steps == limit:
                break
            left = t[<int>INPUT_LENGTH] - 1
            cells[ap] = t[g.input]
            memmove(t + g.input, t + g.input + 1, left)
            t[g.input + left] = 0
            t[<int>INPUT_LENGTH] = <uint8_t>left
        elif op == STOP:
            blocked = HALTED
            break
        else:
            if steps == limit:
                break
            if (cells[ap] == 0) == (op == WHILE):
                if not matched:
                    match_brackets(program, g.n_instructions, match)
                    matched = True
                ip = match[ip]
        ip += 1
        steps += 1
    t[<int>INSTRUCTION_PTR] = <uint8_t>ip
    t[<int>ARRAY_PTR] = <uint8_t>ap
    outcome[0] = <uint8_t>blocked
    return steps


def run_rows(object spec, uint8_t[:, ::1] rows, int64_t limit, int64_t[::1] n_steps, uint8_t[::1] outcome):
    """Run every row where it is. `outcome` is that of the step after the last. Ctrl-C ends it between two spans."""
    cdef Geometry g = geometry(spec)
    cdef Py_ssize_t i
    cdef int64_t ran, most
    with nogil:
        for i in range(rows.shape[0]):
            fit(&g, &rows[i, 0])
            n_steps[i] = 0
            while True:
                most = min(limit - n_steps[i], SPAN)
                ran = run_row(&g, &rows[i, 0], most, NULL, &outcome[i])
                n_steps[i] += ran
                if ran < SPAN or n_steps[i] == limit:
                    break
                with gil:
                    PyErr_CheckSignals()


def record_rows(
    object spec, uint8_t[:, ::1] rows, const int64_t[::1] n_steps, const int64_t[::1] offsets, uint8_t[:, ::1] states
):
    """Run every row n_steps and write its states to rows offsets[i] … offsets[i + 1] − 1 of `states`."""
    cdef Geometry g = geometry(spec)
    cdef uint8_t outcome
    cdef Py_ssize_t i
    with nogil:
        for i in range(rows.shape[0]):
            fit(&g, &rows[i, 0])
            run_row(&g, &rows[i, 0], n_steps[i], &states[offsets[i], 0], &outcome)


def count_iterations(object spec, const uint8_t[:, ::1] states, const int64_t[::1] offsets, int64_t[::1] iteration):
    """For every recorded state, how often the innermost loop around instruction_ptr has jumped back; -1 in no loop."""
    cdef Geometry g = geometry(spec)
    cdef int16_t match[256]
    cdef int64_t rounds[256]
    cdef int loop_of[256]
    cdef int ip, slot, loop, at
    cdef Py_ssize_t i
    cdef int64_t k
    cdef const uint8_t* program
    with nogil:
        for i in range(offsets.shape[0] - 1):
            program = &states[offsets[i], 0] + <int>PROGRAM
            match_brackets(program, g.n_instructions, match)
            loop = -1
            for slot in range(g.n_instructions):
                loop_of[slot] = loop
                rounds[slot] = 0
                if program[slot] == WHILE:
                    loop = slot
                elif program[slot] == ENDW:
                    loop = loop_of[match[slot]]
            for k in range(offsets[i], offsets[i + 1]):
                ip = states[k, <int>INSTRUCTION_PTR]
                if k > offsets[i]:
                    at = states[k - 1, <int>INSTRUCTION_PTR]
                    if program[at] == WHILE:
                        rounds[at] = 0
                    elif program[at] == ENDW and ip <= at:
                        rounds[match[at]] += 1
                iteration[k] = rounds[loop_of[ip]] if loop_of[ip] >= 0 else -1
