"""How much is measured in a calibration."""

from __future__ import annotations

from dataclasses import dataclass

from interp.ranges import require_fields
from interp.training.presets import SMALL_MACHINE
from interp.worlds.machine import MachineSpec, Op


@dataclass(frozen=True)
class CalibrationSettings:
    """The defaults take about ten minutes on two cores."""

    spec: MachineSpec = SMALL_MACHINE
    subjects: tuple[str, ...] = ()  # all of SETTINGS where empty
    ops: tuple[str, ...] = ()  # opcodes that circuits are found for; all of the machine's where empty
    n_states: int = 1200  # that probes are fitted and scored on, half each
    n_swaps: int = 96  # pairs of an interchange, a variable
    n_edits: int = 48  # pairs that a probe's directions are edited on, a cell
    n_pairs: int = 12  # clean and corrupted states, an opcode
    n_mutants: int = 16  # false circuits that the true one is held against, an opcode
    das_steps: int = 300
    seed: int = 7

    def __post_init__(self) -> None:
        require_fields(self, n_states=1, n_swaps=1, n_edits=1, n_pairs=1, n_mutants=1, das_steps=1, seed=0)

    def opcodes(self) -> tuple[Op, ...]:
        """The opcodes asked for, in the machine's order."""
        return tuple(op for op in self.spec.ops if not self.ops or op.name in self.ops)


QUICK = CalibrationSettings(
    spec=MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1),
    subjects=("rotated", "distracted", "redundant"),
    n_states=600,
    n_swaps=32,
    n_edits=16,
    n_pairs=6,
    n_mutants=10,
    das_steps=20,
)
