# cython: language_level=3
"""Operation and outcome codes as Python enums; the numbers themselves stand once, in `_isa.pxd`."""

from enum import IntEnum


class Op(IntEnum):
    """The nine operations, in the order of the vocabulary."""

    NEXT = OpCode.NEXT
    PREV = OpCode.PREV
    INC = OpCode.INC
    DEC = OpCode.DEC
    PUT = OpCode.PUT
    GET = OpCode.GET
    WHILE = OpCode.WHILE
    ENDW = OpCode.ENDW
    STOP = OpCode.STOP


class Outcome(IntEnum):
    """What a step did: RAN, or why the state stays as it is."""

    RAN = OutcomeCode.RAN
    HALTED = OutcomeCode.HALTED
    ARRAY_OVERFLOW = OutcomeCode.ARRAY_OVERFLOW
    ARRAY_UNDERFLOW = OutcomeCode.ARRAY_UNDERFLOW
    VALUE_OVERFLOW = OutcomeCode.VALUE_OVERFLOW
    VALUE_UNDERFLOW = OutcomeCode.VALUE_UNDERFLOW
    OUTPUT_FULL = OutcomeCode.OUTPUT_FULL
    INPUT_EMPTY = OutcomeCode.INPUT_EMPTY


cdef Geometry geometry(object spec):
    cdef Geometry g
    g.n_instructions = spec.n_instructions
    g.n_cells = spec.n_cells
    g.n_input = spec.n_input
    g.n_output = spec.n_output
    g.max_value = spec.max_value
    g.cells = PROGRAM + g.n_instructions
    g.input = g.cells + g.n_cells
    g.output = g.input + g.n_input
    g.sizes = g.output + g.n_output if spec.padded else 0
    g.stride = row_stride(g.n_instructions, g.n_cells, g.n_input, g.n_output, spec.padded)
    return g


def row_stride(int n_instructions, int n_cells, int n_input, int n_output, bint padded):
    """Bytes of one packed row: four counters, the slots, the row's own sizes if padded; whole 8-byte words."""
    return (PROGRAM + n_instructions + n_cells + n_input + n_output + 4 * padded + 7) // 8 * 8
