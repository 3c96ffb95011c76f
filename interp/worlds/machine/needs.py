"""Which instructions cannot be answered without knowing a variable."""

from __future__ import annotations

NEEDED_BY: dict[str, tuple[str, ...]] = {
    "array_ptr": ("PUT", "WHILE", "ENDW"),
    "operand": ("PUT", "WHILE", "ENDW", "INC", "DEC"),
    "cell": ("PUT", "WHILE", "ENDW"),
    "cells": ("PUT", "WHILE", "ENDW"),  # the tape as a whole
    "loop_depth": ("WHILE", "ENDW"),
    "jump_target": ("WHILE", "ENDW"),
    "branch_taken": ("WHILE", "ENDW"),
    "next_array_ptr": ("NEXT", "PREV"),
    "result": ("INC", "DEC", "GET"),
    "input_head": ("GET",),
    "output_length": ("PUT",),
    "emitted": ("PUT",),
}
