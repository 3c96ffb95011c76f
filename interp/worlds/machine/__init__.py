"""The tape machine as a world: everything of the house that knows the machine asks it here."""

from cython_vm import MachineSpec, Op, Outcome, States, Transition
from cython_vm import Trace as MachineRun
from interp.worlds.machine.answers import MachineAnswer
from interp.worlds.machine.contrasts import FREEZES, MachineContrast, compared_slots
from interp.worlds.machine.world import MachineWorld

__all__ = [
    "FREEZES",
    "MachineAnswer",
    "MachineContrast",
    "MachineRun",
    "MachineSpec",
    "MachineWorld",
    "Op",
    "Outcome",
    "States",
    "Transition",
    "compared_slots",
]
