"""Evolve programs that halt, read, print and loop, then draw training states from them.

python examples/evolve_programs.py evolved.npz
"""

from pathlib import Path

import numpy as np
import tyro

from cython_vm import MachineSpec, ProgramArchive, evolve, format_program, sample_evolved, step
from cython_vm.comparison import compare_with_uniform


def main(out: tyro.conf.Positional[Path], /, *, generations: int = 50, seed: int = 0) -> ProgramArchive:
    """Search, compare with uniform programs, show those whose loops vary most, and save the archive.

    Args:
        out: the archive, an .npz file.
        generations: of 4,096 programs, each run on 16 inputs.
        seed: of what is drawn after the search.
    """
    archive = evolve(MachineSpec(), generations)
    archive.save(out)
    print(f"{len(archive):,} programs from {archive.evaluations:,} runs, in {out}")

    table = compare_with_uniform(archive, n_programs=1000, seed=seed)
    for metric in ("halts", "steps", "loop_iterations", "functions"):
        evolved, uniform = table[table["metric"] == metric]["estimate"]
        print(f"  {metric:16} {evolved:8.3f} evolved {uniform:8.3f} uniform")

    print("loops that run a different number of times for different inputs:")
    for member in np.argsort(-archive.behaviour["distinct_iterations"], kind="stable")[:5]:
        print(f"  {format_program(archive.programs[member], classic=True)}")

    states = sample_evolved(archive, 10_000, seed=seed, split="train", exclude=("frozen",))
    print(f"of {len(states):,} states on their runs, {(step(states).outcome == 0).mean():.1%} take another step")
    return archive


if __name__ == "__main__":
    tyro.cli(main)
