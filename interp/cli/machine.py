"""Records of the machine: sample, evolve."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cython_vm import MachineSpec
from interp.cli.arguments import RunPath, at_least, writes
from interp.console import console, say, stage_display
from interp.files import require_file


def sample(
    out: RunPath,
    *,
    n: int = 10_000,
    seed: int = 0,
    start: int = 0,
    split: Literal["all", "train", "fit", "validation", "evaluation"] = "all",
    balance: Literal["natural", "op_outcome", "branches"] = "natural",
    weights: dict[str, float] = {},  # noqa: B006 (never changed)
    format: Literal["shards", "original"] = "shards",
    shard_rows: int = 1_000_000,
    threads: int = 1,
    verify: bool = False,
    spec: MachineSpec = MachineSpec(),  # noqa: B008 (frozen)
) -> None:
    """Write labelled records (S_t, S_{t+1}, every variable of the step) into the folder OUT; docs/data.md says how.

    The same command continues an interrupted writing and keeps the shards that are whole.

    Args:
        out: the folder to write; with --format original the file, with or without .npy.
        n: how many records.
        seed: of the stream of records.
        start: the first row of the stream to write.
        split: which programs to draw from, by their hash modulo 20: 0 is evaluation, 1 validation; fit is neither,
            train all but evaluation.
        balance: which strata are drawn equally often: none, op x outcome, or these with loops split by branch.
        weights: with balance, factors of strata, such as WHILE 3 PUT:OUTPUT_FULL 0.5.
        format: folders of shards, or the original project's NAME.npy with NAME.meta.json.
        shard_rows: records a shard.
        threads: draw with so many; the bytes are the same.
        verify: write nothing; check what OUT holds, checksums included.
        spec: the machine.
    """
    from cython_vm import sample_original, write_shards
    from interp.worlds.machine.named_strata import named_weights

    if verify:
        _verify(out)
        return
    at_least("--n", n, 1)
    if format == "shards" and out.suffix == ".npy":
        raise ValueError(f"shards go into a folder, got {out}; for one .npy file use --format original")
    if format == "original":
        written = out.with_name(out.name.removesuffix(".npy") + ".npy")
        writes(written.parent, written.name, f"{written.name.removesuffix('.npy')}.meta.json")
        written.parent.mkdir(parents=True, exist_ok=True)
    else:
        written = out
        writes(out, "index.json")
    drawn = named_weights(spec, balance, weights)
    with stage_display("writing records") as progress:

        def report(done: int, total: int) -> None:
            progress(done, total, f"{done:,} of {total:,}")

        if format == "original":
            sample_original(written, spec, n, seed=seed, start=start, split=split, weights=drawn, progress=report)
            size = 2 * spec.state_length * 4
        else:
            records = write_shards(
                out,
                spec,
                n,
                seed=seed,
                start=start,
                split=split,
                weights=drawn,
                shard_rows=shard_rows,
                threads=threads,
                progress=report,
            )
            size = records.dtype.itemsize
    say(f"{n:,} records of {size} bytes in {written}")


def _verify(out: Path) -> None:
    """Check records on the disk: checksums of shards; of the original's files, every step against the machine."""
    from cython_vm import Records, read_original, step

    if out.suffix == ".npy":
        before, after = read_original(out)
        wrong = int((~step(before).next.equal(after)).sum())
        if wrong:
            raise ValueError(f"{out}: {wrong:,} of {len(before):,} records are not what the machine does")
        say(f"{len(before):,} records in {out}, all as the machine steps")
        return
    with stage_display("verifying") as progress:
        records = Records(out, progress=lambda done, total: progress(done, total, ""))
    say(f"{len(records):,} records in {len(records.index['shards'])} shards of {out}, all whole")


def evolve(
    *,
    out: Path = Path("runs/evolved.npz"),
    generations: int = 300,
    seed: int = 0,
    batch_size: int = 4096,
    n_inputs: int = 16,
    max_steps: int = 500,
    compare: int = 2000,
    fresh: bool = False,
    spec: MachineSpec = MachineSpec(),  # noqa: B008 (frozen)
) -> None:
    """Evolve programs that halt, read, print and loop, into the archive OUT; show how they differ from uniform ones.

    The same command continues a search that was interrupted; with more generations it goes on.

    Args:
        out: the archive, an .npz file.
        generations: how many in all; the result depends on the settings and this number alone.
        seed: of the search.
        batch_size: programs a generation.
        n_inputs: inputs that every program is run on.
        max_steps: of one run.
        compare: how many programs of each kind the table is about (0: no table).
        fresh: start over.
        spec: the machine.
    """
    from cython_vm.comparison import compare_with_uniform
    from cython_vm.evolution import EvolutionConfig
    from interp.cli.evolving import comparison_table, evolve_into

    at_least("--generations", generations, 1)
    if out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {out}")
    require_file(out)
    config = EvolutionConfig(seed=seed, batch_size=batch_size, n_inputs=n_inputs, max_steps=max_steps)
    with stage_display("evolving") as progress:
        archive, rate = evolve_into(out, spec, generations, config=config, fresh=fresh, progress=progress)
    speed = f", {rate / 1e6:.1f} million a minute now" if rate else ""
    say(
        f"{len(archive):,} programs in {out}: {archive.generation:,} generations, {archive.evaluations:,} runs "
        f"(one program on one input){speed}"
    )
    if compare and len(archive):
        console.print(comparison_table(compare_with_uniform(archive, n_programs=compare, seed=seed)))
