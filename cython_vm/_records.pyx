# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Labelled records in one pass: draw S_t, take the step, write everything down, a block of rows at a time.

All of it stays in the first-level cache until it is a record. The step is that of `_machine.pxd`, written so that no
branch depends on the row but where a few rows of a block need more: loops, GET and PUT.
"""

from libc.stdint cimport int16_t, uint8_t, uint64_t
from libc.string cimport memcpy, memmove

from cython_vm._codec cimport *
from cython_vm._isa cimport *
from cython_vm._machine cimport *
from cython_vm._sampler cimport BLOCK_BYTES, LANES, PITCH_MORE, Plan, Stream, draw_block


cdef enum:
    HASH = 0                # first bytes of a record's fields: see `record_dtype` in records.py
    LABELS = 8
    TOKENS = 34


cdef enum Quantity:         # what an op may fail at
    Q_ARRAY_PTR = 0
    Q_OPERAND = 1
    Q_OUTPUT_LENGTH = 2
    Q_INPUT_LENGTH = 3
    Q_NOTHING = 4           # always 0


cdef struct Rule:
    # One op: it stays where `quantity` is `limit`, with `outcome`; else it adds to the pointer and the cell.
    int quantity
    int limit
    int outcome
    int moves
    int adds
    int loops               # 1: WHILE, 2: ENDW
    int puts
    int gets


cdef struct Format:
    Geometry g
    Rule rules[9]
    uint8_t op_ids[9]
    uint8_t number
    uint8_t eoi
    uint8_t eoo
    Py_ssize_t state_length
    Py_ssize_t record_bytes
    # First positions of the slots.
    Py_ssize_t instruction_ptr
    Py_ssize_t array_ptr
    Py_ssize_t cells
    Py_ssize_t input
    Py_ssize_t output


cdef Rule rule(int quantity, int limit, int outcome) noexcept:
    cdef Rule r
    r.quantity, r.limit, r.outcome = quantity, limit, outcome
    r.moves = r.adds = r.loops = r.puts = r.gets = 0
    return r


cdef class RecordFormat:
    """Where things stand in the records of a machine: only for the default layout, tokens of one byte and rows of one
    size, where numbers are stored lowest byte first. `op_ids` [9] maps opcodes to token ids."""

    cdef Format f

    def __init__(self, object spec, const uint8_t[::1] op_ids):
        cdef Geometry g = geometry(spec)
        cdef Format* f = &self.f
        cdef int op
        f.g = g
        f.rules[<int>NEXT] = rule(Q_ARRAY_PTR, g.n_cells - 1, ARRAY_OVERFLOW)
        f.rules[<int>PREV] = rule(Q_ARRAY_PTR, 0, ARRAY_UNDERFLOW)
        f.rules[<int>INC] = rule(Q_OPERAND, g.max_value, VALUE_OVERFLOW)
        f.rules[<int>DEC] = rule(Q_OPERAND, 0, VALUE_UNDERFLOW)
        f.rules[<int>PUT] = rule(Q_OUTPUT_LENGTH, g.n_output, OUTPUT_FULL)
        f.rules[<int>GET] = rule(Q_INPUT_LENGTH, 0, INPUT_EMPTY)
        f.rules[<int>WHILE] = rule(Q_NOTHING, -1, RAN)
        f.rules[<int>ENDW] = rule(Q_NOTHING, -1, RAN)
        f.rules[<int>STOP] = rule(Q_NOTHING, 0, HALTED)
        f.rules[<int>NEXT].moves, f.rules[<int>PREV].moves = 1, -1
        f.rules[<int>INC].adds, f.rules[<int>DEC].adds = 1, -1
        f.rules[<int>WHILE].loops, f.rules[<int>ENDW].loops = 1, 2
        f.rules[<int>PUT].puts = f.rules[<int>GET].gets = 1
        for op in range(N_OPS):
            f.op_ids[op] = op_ids[op]
        f.number, f.eoi, f.eoo = spec.token_id("NUM_0"), spec.token_id("EOI"), spec.token_id("EOO")
        f.state_length = spec.state_length
        f.record_bytes = TOKENS + 2 * f.state_length
        f.instruction_ptr = spec.layout.slice("instruction_ptr").start
        f.array_ptr = spec.layout.slice("array_ptr").start
        f.cells = spec.layout.slice("cells").start
        f.input = spec.layout.slice("input").start
        f.output = spec.layout.slice("output").start

    def draw(self, Stream stream, uint64_t start, uint8_t[:, ::1] records):
        """The records of rows start, start + 1, … of the stream. Returns the first row given up and its stratum, or
        (-1, -1)."""
        cdef uint8_t block[BLOCK_BYTES]
        cdef Plan plan = stream.plan
        cdef Py_ssize_t i = 0, n = records.shape[0], failed = -1, pitch = plan.g.stride + PITCH_MORE
        cdef int stratum = -1, size
        with nogil:
            while i < n and failed < 0:
                size = <int>(n - i if n - i < LANES else LANES)
                failed = draw_block(&plan, start + <uint64_t>i, NULL, size, block, &stratum)
                if failed >= 0:
                    failed += i
                else:
                    record_block(&self.f, block, pitch, size, &records[i, 0])
                i += size
        return failed, stratum

    def label(self, const uint8_t[:, ::1] rows, uint8_t[:, ::1] records):
        """The records of states."""
        cdef uint8_t block[BLOCK_BYTES]
        cdef Py_ssize_t i = 0, k, n = rows.shape[0], pitch = self.f.g.stride + PITCH_MORE
        cdef int size
        with nogil:
            while i < n:
                size = <int>(n - i if n - i < LANES else LANES)
                for k in range(size):
                    memcpy(block + k * pitch, &rows[i + k, 0], self.f.g.stride)
                record_block(&self.f, block, pitch, size, &records[i, 0])
                i += size


cdef void record_block(const Format* f, const uint8_t* block, Py_ssize_t pitch, int n, uint8_t* records) noexcept nogil:
    """The records of up to 32 rows."""
    cdef const Geometry* g = &f.g
    cdef const Rule* r
    cdef const uint8_t* s
    cdef uint8_t* record
    cdef uint8_t* x
    cdef uint64_t hashes[LANES + 3]
    cdef int quantities[5]
    cdef int loops[33]
    cdef int gets[33]
    cdef int puts[33]
    cdef int n_loops = 0, n_gets = 0, n_puts = 0
    cdef int i, k, op, ip, ap, operand, head, ran, branch, result, next_ap, held, target
    quantities[<int>Q_NOTHING] = 0
    for i in range(n):
        s = block + i * pitch
        record = records + i * f.record_bytes
        ip, ap = s[<int>INSTRUCTION_PTR], s[<int>ARRAY_PTR]
        op, operand = s[PROGRAM + ip], s[g.cells + ap]
        held = -<int>(s[<int>INPUT_LENGTH] > 0)
        head = (s[g.input] & held) | ~held
        r = &f.rules[op]
        quantities[<int>Q_ARRAY_PTR] = ap
        quantities[<int>Q_OPERAND] = operand
        quantities[<int>Q_OUTPUT_LENGTH] = s[<int>OUTPUT_LENGTH]
        quantities[<int>Q_INPUT_LENGTH] = s[<int>INPUT_LENGTH]
        ran = quantities[r.quantity] != r.limit
        result = operand + (r.adds & -ran)
        result += (head - operand) & -(r.gets & ran)
        next_ap = ap + (r.moves & -ran)
        branch = (((operand == 0) ^ (r.loops == 2)) & -(r.loops > 0)) - (r.loops == 0)
        put_label(record, V_INSTRUCTION_PTR, ip)
        put_label(record, V_OP, op)
        put_label(record, V_ARRAY_PTR, ap)
        put_label(record, V_OPERAND, operand)
        put_label(record, V_JUMP_TARGET, -1)
        put_label(record, V_INPUT_HEAD, head)
        put_label(record, V_OUTPUT_LENGTH, s[<int>OUTPUT_LENGTH])
        put_label(record, V_OUTCOME, r.outcome & (ran - 1))
        put_label(record, V_BRANCH_TAKEN, branch)
        put_label(record, V_RESULT, result)
        put_label(record, V_EMITTED, operand | ((r.puts & ran) - 1))
        put_label(record, V_NEXT_INSTRUCTION_PTR, ip + ran)
        put_label(record, V_NEXT_ARRAY_PTR, next_ap)
        loops[n_loops] = gets[n_gets] = puts[n_puts] = i
        n_loops += r.loops > 0
        n_gets += r.gets & ran
        n_puts += r.puts & ran

        x = record + TOKENS
        state_tokens(x, s, g, f.op_ids, f.number, f.eoi, f.eoo)
        memcpy(x + f.state_length, x, f.state_length)
        x += f.state_length
        x[f.instruction_ptr + ip] = BIT_0
        x[f.instruction_ptr + ip + ran] = BIT_1
        x[f.array_ptr + ap] = BIT_0
        x[f.array_ptr + next_ap] = BIT_1
        x[f.cells + ap] = <uint8_t>(f.number + result)
    hash_programs(block + <int>PROGRAM, pitch, g.n_instructions, n, hashes)
    for i in range(n):
        store(records + i * f.record_bytes + HASH, hashes[i])
    for k in range(n_loops):
        s = block + loops[k] * pitch
        record = records + loops[k] * f.record_bytes
        ip = s[<int>INSTRUCTION_PTR]
        target = partner(s + <int>PROGRAM, g.n_instructions, ip) + 1
        put_label(record, V_JUMP_TARGET, target)
        branch = record[LABELS + 2 * <int>V_BRANCH_TAKEN]
        target = target if branch else ip + 1
        put_label(record, V_NEXT_INSTRUCTION_PTR, target)
        x = record + TOKENS + f.state_length + f.instruction_ptr
        x[ip + 1] = BIT_0
        x[target] = BIT_1
    for k in range(n_gets):
        x = records + gets[k] * f.record_bytes + TOKENS + f.state_length + f.input
        memmove(x, x + 1, g.n_input - 1)
        x[g.n_input - 1] = f.eoi
    for k in range(n_puts):
        s = block + puts[k] * pitch
        x = records + puts[k] * f.record_bytes + TOKENS + f.state_length + f.output
        x[s[<int>OUTPUT_LENGTH]] = <uint8_t>(f.number + s[g.cells + s[<int>ARRAY_PTR]])


cdef inline void put_label(uint8_t* record, Name name, int value) noexcept nogil:
    cdef int16_t label = <int16_t>value
    memcpy(record + LABELS + 2 * <int>name, &label, 2)
