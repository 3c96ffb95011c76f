"""The interpreter, pass by pass: what each layer computes, in the order of the machine's own step.

layer   attention                                           MLP
0       addresses: both pointers, length of the output      brackets: the level of every bracket
        brackets: depth of every instruction
1       fetch: op, operand, head of input, current level    decide: outcome, branch, which slots are written
2       brackets: the partner; fetch: the next input,       write: the next token of every slot
        and in `step` the slot's old content
"""

from interp.compiled.passes.addresses import addresses
from interp.compiled.passes.brackets import depth, level, partner
from interp.compiled.passes.decide import branch, outcome, written_slots
from interp.compiled.passes.fetch import fetch, keep, next_input
from interp.compiled.passes.write import write

__all__ = [
    "addresses",
    "branch",
    "depth",
    "fetch",
    "keep",
    "level",
    "next_input",
    "outcome",
    "partner",
    "write",
    "written_slots",
]
