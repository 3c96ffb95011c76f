"""The machine: a small tape language, executed exactly and in batches. Needs NumPy alone."""

from cython_vm._isa import Op, Outcome
from cython_vm.codec import decode, decode_outcome, encode
from cython_vm.evolution import EvolutionConfig, ProgramArchive, evolve, sample_evolved
from cython_vm.fate import Fate, Fates, run_fate
from cython_vm.labelling import labelled_records, record_dtype, sample_records
from cython_vm.machine import Transition, step
from cython_vm.original import read_original, sample_original, write_original
from cython_vm.programs import format_program, parse_program, program_hash
from cython_vm.reachable import advance, sample_reachable, start_states
from cython_vm.records import Records
from cython_vm.running import Trace, run
from cython_vm.sampling import count_programs, sample, strata_weights
from cython_vm.shards import write_shards
from cython_vm.spec import Layout, MachineSpec
from cython_vm.splits import SPLITS, in_split
from cython_vm.states import States
from cython_vm.units import reachable_hash, stream_hash
from cython_vm.variables import VARIABLES, Variable, ancestors, variable

__all__ = [
    "SPLITS",
    "VARIABLES",
    "EvolutionConfig",
    "Fate",
    "Fates",
    "Layout",
    "MachineSpec",
    "Op",
    "Outcome",
    "ProgramArchive",
    "Records",
    "States",
    "Trace",
    "Transition",
    "Variable",
    "advance",
    "ancestors",
    "count_programs",
    "decode",
    "decode_outcome",
    "encode",
    "evolve",
    "format_program",
    "in_split",
    "labelled_records",
    "parse_program",
    "program_hash",
    "reachable_hash",
    "read_original",
    "record_dtype",
    "run",
    "run_fate",
    "sample",
    "sample_evolved",
    "sample_original",
    "sample_reachable",
    "sample_records",
    "start_states",
    "step",
    "strata_weights",
    "stream_hash",
    "variable",
    "write_original",
    "write_shards",
]
