# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Batched kernels of the machine: step, run, hash. Shapes and dtypes are checked by the Python that calls them.

All functions release the GIL and write only to the arrays they are given, so that threads may share the input.
"""

from libc.stdint cimport int16_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cython_vm._isa cimport *
from cython_vm._machine cimport *

STEP_NAMES = (
    "instruction_ptr", "op", "array_ptr", "operand", "jump_target", "input_head", "output_length",
    "outcome", "branch_taken", "result", "emitted", "next_instruction_ptr", "next_array_ptr",
)
NO_OUTCOME = 255  # where no step was possible

cdef enum:
    MAX_ROW = 2048  # above the longest packed row


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


cdef inline bint is_program(const Geometry* g, const uint8_t* program, const uint8_t* forbidden) noexcept nogil:
    """Whether the machine may hold this program, without a branch that depends on it."""
    cdef int k, op, depth = 0, fault = 0, last = g.n_instructions - 1
    for k in range(last):
        op = program[k]
        depth += (op == WHILE) - (op == ENDW)
        fault |= depth | -<int>forbidden[op]  # negative where ENDW closes nothing, and at a forbidden op
    return fault >= 0 and depth == 0 and program[last] == STOP


cdef inline bint keeps_balance(int old, int new, bint last, const uint8_t* forbidden) noexcept nogil:
    """Whether a program stays one when this op takes the place of that: brackets balance only if neither or both are
    WHILE, and neither or both ENDW."""
    if last:
        return new == STOP
    return ((old == WHILE) == (new == WHILE)) & ((old == ENDW) == (new == ENDW)) & (not forbidden[new])


cdef struct Edits:
    # Roots to set: stored columns, and one value a row for each.
    const Py_ssize_t* columns
    const int16_t* values       # [columns, rows]
    Py_ssize_t n_columns
    Py_ssize_t n_rows
    int n_instructions          # how many of the columns are of the program
    const uint8_t* forbidden    # [9], ops that this machine's programs do not hold before their last slot


cdef inline bint edit(
    const Geometry* g, const Edits* edits, const uint8_t* s, uint8_t* t, Py_ssize_t row
) noexcept nogil:
    """Copy `s` to `t` with its roots set. False, and a plain copy, where a buffer's slot is empty, the input is made
    longer, or the program is none."""
    cdef Py_ssize_t k, column
    cdef int value
    cdef bint ok = True
    memcpy(t, s, g.stride)
    for k in range(edits.n_columns):
        column = edits.columns[k]
        value = edits.values[k * edits.n_rows + row]
        if column == INPUT_LENGTH:
            ok &= value <= s[<int>INPUT_LENGTH]
        elif column >= g.output:
            ok &= column - g.output < s[<int>OUTPUT_LENGTH]
        elif column >= g.input:
            ok &= column - g.input < s[<int>INPUT_LENGTH]
        elif PROGRAM <= column < g.cells and edits.n_instructions == 1:
            ok &= keeps_balance(s[column], value, column == PROGRAM + g.n_instructions - 1, edits.forbidden)
        t[column] = <uint8_t>value
    if edits.n_instructions > 1:
        ok &= is_program(g, t + <int>PROGRAM, edits.forbidden)
    for k in range(edits.n_columns):  # no branch: whether a program is one cannot be predicted
        column = edits.columns[k]
        t[column] = t[column] if ok else s[column]
    if t[<int>INPUT_LENGTH] < s[<int>INPUT_LENGTH]:
        memset(t + g.input + t[<int>INPUT_LENGTH], 0, s[<int>INPUT_LENGTH] - t[<int>INPUT_LENGTH])
    return ok


def step_rows_do(
    object spec,
    const uint8_t[:, ::1] rows,
    uint8_t[:, ::1] next_rows,
    uint8_t[::1] outcome,
    int16_t[:, ::1] latents,
    uint8_t[::1] valid,
    const Py_ssize_t[::1] columns,
    const int16_t[:, ::1] roots,
    const uint8_t[::1] forbidden,
    tuple names,
    const int16_t[:, ::1] values,
):
    """One step of every row under `do`: roots[k] is put into column columns[k] of the row, values[k] replaces the
    equation of variable number names[k]. `forbidden` [9] marks the ops that no slot but the last may hold.

    Rows that are not `valid` when they come, or where no value exists, get valid = 0, outcome NO_OUTCOME and
    latents -1; their next state is the row itself.
    """
    cdef Geometry g = geometry(spec)
    cdef Py_ssize_t n = rows.shape[0], width = latents.shape[1], i, at
    cdef int16_t* out
    cdef int v[13]
    cdef uint8_t t[MAX_ROW]
    cdef uint8_t after[MAX_ROW]
    cdef const uint8_t* s
    cdef const uint8_t* edited
    cdef const uint8_t* after_or_s
    cdef const uint8_t* result = after
    cdef int name, k, mask
    cdef bint ok
    cdef Do do
    cdef Edits edits
    cdef uint8_t no_outcome = NO_OUTCOME
    if n == 0:
        return
    for name in range(N_VARIABLES):
        do.values[name] = NULL
    for k in range(len(names)):
        name = names[k]
        do.values[name] = &values[k, 0]
    edits.n_columns, edits.n_rows, edits.n_instructions = columns.shape[0], n, 0
    edits.forbidden = &forbidden[0]
    if edits.n_columns:
        edits.columns, edits.values = &columns[0], &roots[0, 0]
        for at in range(edits.n_columns):
            edits.n_instructions += PROGRAM <= columns[at] < g.cells
    out = &latents[0, 0]
    if len(names) == 0:
        with nogil:  # plain steps; what is not valid is masked, as it cannot be predicted
            for i in range(n):
                s = &rows[i, 0]
                fit(&g, s)
                edited = s
                ok = valid[i]
                if ok:
                    ok = edit(&g, &edits, s, t, i)
                    edited = t
                mask = <int>ok - 1
                transition(&g, edited, after, v, NULL, i)
                valid[i] = ok
                outcome[i] = <uint8_t>(v[<int>V_OUTCOME] | mask)
                after_or_s = s if mask else result
                memcpy(&next_rows[i, 0], after_or_s, g.stride)
                for name in range(N_VARIABLES):
                    out[name * width + i] = <int16_t>(v[name] | mask)
        return
    with nogil:
        for i in range(n):
            s = &rows[i, 0]
            fit(&g, s)
            ok = valid[i]
            if ok and edits.n_columns:
                ok = edit(&g, &edits, s, t, i)
                s = t
            if ok and transition(&g, s, &next_rows[i, 0], v, &do, i):
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
    cdef uint64_t block[64]
    cdef Py_ssize_t i, n = rows.shape[0]
    cdef int size
    with nogil:
        for i in range(0, n, 60):
            size = <int>(n - i if n - i < 60 else 60)
            hash_programs(&rows[i, 0] + <int>PROGRAM, g.stride, g.n_instructions, size, block)
            memcpy(&hashes[i], block, size * sizeof(uint64_t))
