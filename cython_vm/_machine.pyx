# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Batched kernels of the machine: step, run, hash. Shapes and dtypes are checked by the Python that calls them.

All functions release the GIL and write only to the arrays they are given, so that threads may share the input.
"""

from libc.stdint cimport int16_t, uint8_t, uint64_t

from cython_vm._isa cimport *
from cython_vm._machine cimport *

STEP_NAMES = (
    "instruction_ptr", "op", "array_ptr", "operand", "jump_target", "input_head", "output_length",
    "outcome", "branch_taken", "result", "emitted", "next_instruction_ptr", "next_array_ptr",
)
NO_OUTCOME = 255  # where no step was possible


def step_rows(
    object spec,
    const uint8_t[:, ::1] rows,
    uint8_t[:, ::1] next_rows,
    uint8_t[::1] outcome,
    int16_t[:, ::1] latents,
):
    """One step of every row. `latents` is [13, at least n], in the order of STEP_NAMES."""
    cdef Geometry g = geometry(spec)
    cdef Py_ssize_t n = rows.shape[0], width = latents.shape[1], i
    cdef int16_t* out
    cdef int v[13]
    cdef int name
    if n == 0:
        return
    out = &latents[0, 0]
    with nogil:
        for i in range(n):
            fit(&g, &rows[i, 0])
            transition(&g, &rows[i, 0], &next_rows[i, 0], v, NULL, i)
            outcome[i] = <uint8_t>v[<int>V_OUTCOME]
            for name in range(N_VARIABLES):
                out[name * width + i] = <int16_t>v[name]


def step_rows_do(
    object spec,
    const uint8_t[:, ::1] rows,
    uint8_t[:, ::1] next_rows,
    uint8_t[::1] outcome,
    int16_t[:, ::1] latents,
    uint8_t[::1] valid,
    const int16_t[:, ::1] values,
    tuple names,
):
    """One step of every row under `do`: values[k] replaces the equation of variable number names[k].

    Rows that are not `valid` when they come, or where no value exists, get valid = 0, outcome NO_OUTCOME and
    latents -1; their next state is the row itself.
    """
    cdef Geometry g = geometry(spec)
    cdef Py_ssize_t n = rows.shape[0], width = latents.shape[1], i
    cdef int16_t* out
    cdef int v[13]
    cdef int name, k
    cdef Do do
    cdef uint8_t no_outcome = NO_OUTCOME
    if n == 0:
        return
    for name in range(N_VARIABLES):
        do.values[name] = NULL
    for k in range(len(names)):
        name = names[k]
        do.values[name] = &values[k, 0]
    out = &latents[0, 0]
    with nogil:
        for i in range(n):
            fit(&g, &rows[i, 0])
            if valid[i] and transition(&g, &rows[i, 0], &next_rows[i, 0], v, &do, i):
                outcome[i] = <uint8_t>v[<int>V_OUTCOME]
            else:
                valid[i] = 0
                outcome[i] = no_outcome
                memcpy(&next_rows[i, 0], &rows[i, 0], g.stride)
                for name in range(N_VARIABLES):
                    v[name] = -1
            for name in range(N_VARIABLES):
                out[name * width + i] = <int16_t>v[name]


def hash_rows(object spec, const uint8_t[:, ::1] rows, uint64_t[::1] hashes):
    """The program hash of every row."""
    cdef Geometry g = geometry(spec)
    cdef Py_ssize_t i
    with nogil:
        for i in range(rows.shape[0]):
            hashes[i] = hash_program(&rows[i, 0] + <int>PROGRAM, g.n_instructions)
