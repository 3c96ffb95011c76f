"""Programs that run for long, to be followed from their start."""

from __future__ import annotations

import numpy as np

from cython_vm import MachineSpec, ProgramArchive, States, program_hash, run_fate, sample, sample_evolved, start_states

_POOL = 2**18


def long_programs(spec: MachineSpec, n: int, *, seed: int, max_steps: int = 100, pool: int = _POOL) -> States:
    """The starts of the `n` programs that run longest of `pool` drawn uniformly from the evaluation split.

    A uniform program runs two steps; among so many there are long ones. Length is the number of different states
    within `max_steps`; the programs are all different. There are fewer than n where the machine has fewer that move.

    Raises:
        ValueError: n is below 1, or no held-out program of the machine makes a step.
    """
    if n < 1:
        raise ValueError(f"a rollout needs at least 1 program, got {n}")
    starts = start_states(sample(spec, pool, seed=seed, split="evaluation"))
    lengths = run_fate(starts, max_steps).n_states
    order = np.argsort(-lengths, kind="stable")
    _, firsts = np.unique(program_hash(starts)[order], return_index=True)
    chosen = order[np.sort(firsts)][:n]
    chosen = chosen[lengths[chosen] > 1]
    if not len(chosen):
        raise ValueError("no held-out program of this machine makes a step")
    return starts[chosen]


def evolved_programs(archive: ProgramArchive, spec: MachineSpec, n: int, *, seed: int) -> States:
    """The starts of `n` evolved programs of the evaluation split, each with a random input.

    Raises:
        ValueError: the archive belongs to another machine, or holds no program of the split.
    """
    if archive.spec != spec:
        raise ValueError(f"the archive's programs are for {archive.spec}, but the model was trained on {spec}")
    return sample_evolved(archive, n, seed=seed, split="evaluation", at="start")
