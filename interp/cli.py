"""The command line: every verb of the project, each a thin layer over a library function.

Heavy imports (torch, transformer_lens: seconds) happen inside the verbs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro

from cython_vm import MachineSpec
from interp.compiled.config import NoiseConfig
from interp.console import console, stage_display, training_display
from interp.evaluation.verbs import card, curves, evaluate, lengths
from interp.runs import RunError, load, require_next_state
from interp.training.logs import LogTo
from interp.training.overrides import (
    ModelOverrides,
    OptionsOverrides,
    TrainingOverrides,
    given,
    machine_from,
    overridden,
)

if TYPE_CHECKING:
    from interp.training.records import TrainingRecords

RunPath = Annotated[Path, tyro.conf.Positional]


def demo(
    *,
    out: Path = Path("runs/quickstart"),
    preset: str = "quickstart",
    fresh: bool = False,
    app: bool = True,
    port: int = 8501,
) -> None:
    """Machine to app in one command: train, evaluate, probe, intervene, find circuits, report, serve.

    Args:
        out: the run folder; what it already holds is reused.
        preset: which named run to train.
        fresh: start over.
        app: serve the app at the end (--no-app: stop before).
        port: where to serve it, on 127.0.0.1.
    """
    from interp.demo import run_demo

    run_demo(out, preset=preset, fresh=fresh)
    if app:
        serve(out, port=port)


def sample(
    out: RunPath,
    *,
    n: int = 10_000,
    seed: int = 0,
    start: int = 0,
    split: Literal["all", "train", "evaluation"] = "all",
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
        split: which programs to draw from; a program belongs to evaluation when its hash modulo 20 is 0.
        balance: which strata are drawn equally often: none, op x outcome, or these with loops split by branch.
        weights: with balance, factors of strata, such as WHILE 3 PUT:OUTPUT_FULL 0.5.
        format: folders of shards, or the original project's NAME.npy with NAME.meta.json.
        shard_rows: records a shard.
        threads: draw with so many; the bytes are the same.
        verify: write nothing; check what OUT holds, checksums included.
        spec: the machine.
    """
    from cython_vm import sample_original, write_shards
    from interp.strata import named_weights

    if verify:
        _verify(out)
        return
    _positive("--n", n)
    if format == "shards" and out.suffix == ".npy":
        raise ValueError(f"shards go into a folder, got {out}; for one .npy file use --format original")
    drawn = named_weights(spec, balance, weights)
    with stage_display("writing records") as progress:

        def report(done: int, total: int) -> None:
            progress(done, total, f"{done:,} of {total:,}")

        if format == "original":
            written = out.with_name(out.name.removesuffix(".npy") + ".npy")
            sample_original(written, spec, n, seed=seed, start=start, split=split, weights=drawn, progress=report)
            size = 2 * spec.state_length * 4
        else:
            written = out
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
    console.print(f"{n:,} records of {size} bytes in {written}")


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
    from interp.evolving import comparison_table, evolve_into

    _positive("--generations", generations)
    if out.suffix != ".npz":
        raise ValueError(f"--out must end in .npz, got {out}")
    config = EvolutionConfig(seed=seed, batch_size=batch_size, n_inputs=n_inputs, max_steps=max_steps)
    with stage_display("evolving") as progress:
        archive, rate = evolve_into(out, spec, generations, config=config, fresh=fresh, progress=progress)
    speed = f", {rate / 1e6:.1f} million a minute now" if rate else ""
    console.print(
        f"{len(archive):,} programs in {out}: {archive.generation:,} generations, {archive.evaluations:,} runs "
        f"(one program on one input){speed}"
    )
    if compare and len(archive):
        console.print(comparison_table(compare_with_uniform(archive, n_programs=compare, seed=seed)))


def train(
    *,
    preset: str = "quickstart",
    out: Path | None = None,
    data: Path | None = None,
    machine: tuple[str, ...] = (),
    resume: bool = False,
    fresh: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    log: LogTo | None = None,
    training: TrainingOverrides = TrainingOverrides(),  # noqa: B008 (frozen)
    model: ModelOverrides = ModelOverrides(),  # noqa: B008 (frozen)
    options: OptionsOverrides = OptionsOverrides(),  # noqa: B008 (frozen)
) -> None:
    """Train a model into a run folder. A second call continues where the first stopped.

    On several devices: torchrun --nproc_per_node=N -m interp train … gives the same run as one process.

    Args:
        preset: a named run; a name that does not exist lists them.
        out: the run folder (default: runs/PRESET).
        data: train on these records: a folder that tapelens sample wrote, or NAME.npy of the original project. The
            machine is theirs; records of held-out programs are left out.
        machine: fields of the machine instead of the preset's, such as n_cells=4 outcome_token=true pointers=index.
        resume: continue what --out holds, with the settings it was begun with.
        fresh: start over.
        steps: optimizer steps; short for --training.steps, and so on.
        batch_size: records a step.
        seed: of weights and records.
        threads: PyTorch threads.
        log: where scalars go besides RUN/metrics.parquet: RUN/tensorboard, or Weights & Biases.
        training: fields of the training instead of the preset's.
        model: fields of the model instead of the preset's.
        options: of the task, such as how many steps a chain or a stream has.
    """
    from interp.runs import read_config
    from interp.training import PRESETS
    from interp.training import train as run_training
    from interp.training.devices import is_main_process

    if preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    if machine and (resume or data is not None):
        raise ValueError("--machine needs a new run that draws its own records: leave --resume and --data out")
    short = {"steps": steps, "batch_size": batch_size, "seed": seed, "threads": threads}
    changes = given(training) | {name: value for name, value in short.items() if value is not None}
    folder = out if out is not None else Path("runs") / preset
    records = None
    if resume:
        if others := {**changes, **given(model), **given(options)}:
            named = next(iter(others))
            raise ValueError(f"--resume goes on with the settings of {folder}; leave {named} out")
        config = read_config(folder)
        if config.data is not None:
            records = _training_records(data or Path(config.data.path))
    else:
        records = _training_records(data) if data is not None else None
        config = PRESETS[preset]
        spec = machine_from(config.spec, machine) if records is None else records.spec
        config = overridden(config, spec, training=changes, model=given(model), options=given(options))
        config = replace(config, data=None if records is None else records.source)
    command = "tapelens " + " ".join(sys.argv[1:])
    with training_display() if is_main_process() else contextlib.nullcontext() as report:
        run = run_training(config, folder, fresh=fresh, command=command, records=records, log=log, on_progress=report)
    if is_main_process():
        console.print(f"trained to step {run.step:,} in {folder}")


def _training_records(path: Path) -> TrainingRecords:
    """Open records to train on, and say how many of them are left out."""
    from interp.training.records import TrainingRecords

    with stage_display("checking the records") as progress:
        records = TrainingRecords(path, progress=lambda done, total: progress(done, total, ""))
    console.print(f"{records.n:,} records in {path}; {records.n_held_out:,} of held-out programs are left out")
    return records


def probe(
    run: RunPath,
    *,
    variables: tuple[str, ...] = (),
    positions: tuple[str, ...] = (),
    sites: tuple[str, ...] = (),
    methods: tuple[str, ...] = ("logistic",),
    n: int | None = None,
    edits: int | None = None,
    along: bool = False,
    seed: int = 3,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Probe variables x layers x positions, with controls, into RUN/probes.parquet.

    Runs of trace are probed on their streams, hook by hook: the same command continues where it stopped.

    Args:
        run: the run folder.
        variables: names such as op, operand, cell[0] (default: the machine's derived variables; of streams, the
            pointer, every cell and loop state).
        positions: names such as cells[0] or instructions[@instruction_ptr] (default: the telling ones); of streams
            stream (all tokens pooled), ops, answers, asked, or a token such as stream[7].
        sites: hooks, such as blocks.0.hook_mlp_out (default: the residual stream before and after every layer).
        methods: logistic, ridge, mean_difference or mlp (one hidden layer), several if you like.
        n: states, or tokens of streams, split by program into fit and held-out halves.
        edits: pairs on which writing along each probe is judged by the machine (default: 64 on streams, else 0: none).
        along: at every checkpoint that the run kept instead, into RUN/steps/STEP/.
        seed: of the states.
        fresh: measure again what the file already holds.
        threads: PyTorch threads.
    """
    from interp.probing.stage import probe_along
    from interp.stages import probe_stage

    if n is not None:
        _positive("--n", n)
    _threads(threads)
    opened = load(run)
    stage = functools.partial(
        probe_stage,
        variables=variables,
        positions=positions,
        hooks=sites,
        methods=methods,
        n=n,
        n_edits=edits,
        seed=seed,
        fresh=fresh,
    )
    with stage_display("probing") as progress:
        if along:
            rows = probe_along(opened, lambda then, report: stage(then, progress=report), progress=progress)
        else:
            rows = stage(opened, progress=progress)
    where = opened.path / "steps" if along else opened.path / "probes.parquet"
    console.print(f"{len(rows):,} rows in {where}")


def probing_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write probing.md and its figures about RUNS, from what tapelens probe measured on them.

    Args:
        runs: run folders.
        out: the folder to write to.
    """
    from interp.probing.page import write_probing_page

    console.print(f"page in {write_probing_page([load(run) for run in runs], out)}")


def patch(
    run: RunPath,
    *,
    variables: tuple[str, ...] = (),
    designs: tuple[Literal["independent", "minimal"], ...] = ("independent",),
    methods: tuple[Literal["mean_difference", "das", "position_search"], ...] = (),
    pairs_of: tuple[str, ...] = (),
    rank: int = 4,
    n_pairs: int = 256,
    seed: int = 4,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Interchange interventions, judged by the machine, into RUN/interventions.parquet.

    Args:
        run: the run folder.
        variables: which to swap (default: the machine's variables that one step depends on).
        designs: independent draws base and source apart; minimal makes source from base by one edit.
        methods: further questions at each variable's best place: swap within the differences of class means
            (mean_difference) or a fitted subspace (das), and find the smallest set of positions (position_search).
        pairs_of: variables to swap together, from sources of their own, such as op+operand.
        rank: dimensions of das.
        n_pairs: base and source pairs a variable.
        seed: of the pairs.
        fresh: measure again what the file already holds.
        threads: PyTorch threads.
    """
    from interp.stages import patch_stage

    _positive("--n-pairs", n_pairs)
    _positive("--rank", rank)
    _threads(threads)
    opened = load(run)
    with stage_display("intervening") as progress:
        rows = patch_stage(
            opened,
            variables=variables,
            designs=designs,
            methods=methods,
            pairs_of=pairs_of,
            rank=rank,
            n_pairs=n_pairs,
            seed=seed,
            fresh=fresh,
            progress=progress,
        )
    console.print(f"{len(rows):,} rows in {opened.path / 'interventions.parquet'}")


def circuit(
    run: RunPath,
    *,
    ops: tuple[str, ...] = (),
    freezes: bool = False,
    measure: tuple[Literal["roles", "dissociation", "evidence", "approximations", "positions"], ...] = (
        "roles",
        "dissociation",
    ),
    levels: tuple[Literal["node", "neuron", "subspace"], ...] = ("node", "neuron", "subspace"),
    ablations: tuple[Literal["resample", "mean", "zero"], ...] = ("resample",),
    along: bool = False,
    paths: tuple[str, ...] = (),
    n_pairs: int = 128,
    seed: int = 5,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Find the circuit of each instruction, into RUN/circuits.parquet and RUN/circuits/.

    What is measured already, with the same settings, is kept: the same command continues.

    Args:
        run: the run folder.
        ops: opcodes and ways to freeze, such as INC VALUE_OVERFLOW (default: all opcodes of the machine).
        freezes: also every way to freeze.
        measure: beside the circuits: roles of their heads; dissociation of own and shared parts; evidence (hundreds of
            random circuits, spread over examples, completeness, minimality, stability); approximations against exact
            patching of every edge; positions that edges work at. Without a name after it: none.
        levels: of dissociation.
        ablations: of dissociation.
        along: also at every checkpoint that the run kept, beside the final circuits.
        paths: patch these paths, such as "input->a0.h1<v>->logits".
        n_pairs: clean and corrupted pairs an opcode.
        seed: of the pairs.
        fresh: measure again what the folder already holds.
        threads: PyTorch threads.
    """
    from interp.circuits.study import summary_of
    from interp.stages import circuit_stage

    _positive("--n-pairs", n_pairs)
    _threads(threads)
    opened = load(run)
    with stage_display("finding circuits") as progress:
        rows = circuit_stage(
            opened,
            ops=ops,
            freezes=freezes,
            measure=measure,
            levels=levels,
            ablations=ablations,
            along=along,
            paths=paths,
            n_pairs=n_pairs,
            seed=seed,
            fresh=fresh,
            progress=progress,
        )
    for sentence in summary_of(opened)["sentences"].values():
        console.print(sentence, markup=False)
    console.print(f"{len(rows):,} rows in {opened.path / 'circuits.parquet'}")


def circuit_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs"), n_null: int = 200) -> None:
    """Write circuits.md and its figures about RUNS, from what tapelens circuit measured on them.

    Args:
        runs: run folders; several of one machine and shape also get their agreement across seeds.
        out: the folder to write to.
        n_null: random pairings of heads.
    """
    from interp.circuits.page import write_circuit_page

    console.print(f"page in {write_circuit_page([load(run) for run in runs], out, n_null=n_null)}")


def calibrate(
    *,
    out: Path = Path("runs/calibration"),
    models: tuple[str, ...] = (),
    methods: tuple[str, ...] = (),
    quick: bool = False,
    publish: bool = False,
    fresh: bool = False,
    workers: int = 2,
) -> None:
    """Hold every method against compiled models, whose mechanism is known; write the table into OUT.

    What is in OUT already, measured with the same settings, is kept: the same command continues.

    Args:
        out: the folder.
        models: names of calibration models (default: all).
        methods: names of entries, such as eap_ig or logistic (default: all).
        quick: a tiny machine, two models, a minute; to see that it runs.
        publish: also write docs/calibration.md, its figure, and the summary that the package shows beside results.
        fresh: measure again what is there.
        workers: processes, each with one thread.
    """
    from interp.calibration.page import write_page
    from interp.calibration.run import calibrate as run_calibration
    from interp.calibration.run import publish_summary
    from interp.calibration.settings import QUICK, CalibrationSettings

    _positive("--workers", workers)
    _threads(1)
    settings = QUICK if quick else CalibrationSettings()
    settings = replace(settings, subjects=models or settings.subjects)
    with stage_display("calibrating") as progress:
        rows = run_calibration(out, settings=settings, only=methods, fresh=fresh, workers=workers, progress=progress)
    page = write_page(out, rows, settings)
    publish_summary(out, rows, settings)
    if publish:
        write_page(Path("docs"), rows, settings)
        publish_summary(Path("interp/calibration"), rows, settings)
    console.print(f"{len(rows):,} rows in {out / 'calibration.parquet'}; the table in words in {page}")


def report(run: RunPath) -> None:
    """Write RUN/report.html from the run's files."""
    from interp.report import write_report

    console.print(f"report in {write_report(load(run))}")


def app(run: RunPath = Path("checkpoints/quickstart"), *, port: int = 8501) -> None:
    """Serve the app for a run on 127.0.0.1.

    Args:
        run: the run folder.
        port: where to serve it.
    """
    require_next_state(load(run), "the app")
    serve(run, port=port)


def compile_interpreter(
    *,
    out: Path = Path("runs/compiled"),
    task: Literal["step_inplace", "step"] = "step_inplace",
    spec: MachineSpec = MachineSpec(),  # noqa: B008 (frozen)
    noise: NoiseConfig = NoiseConfig(),  # noqa: B008 (frozen)
    sharpness: float = 12.0,
    gain: float = 10.0,
    d_model: int | None = None,
    n_circuit_pairs: int = 12,
    margin: float | None = None,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Write the weights of a model that runs the machine exactly, and the answer key that tools are tested against.

    Args:
        out: the run folder.
        task: step_inplace (bidirectional) or step (causal).
        spec: the machine.
        noise: what is added that leaves the function alone.
        sharpness: by how many nats the key attended to outscores every other.
        gain: by how much the right token's logit exceeds the others.
        d_model: width of the residual stream (default: the least that holds the program).
        n_circuit_pairs: pairs that the key's circuits are derived on, for each op, outcome and branch; 0: no circuits.
        margin: squeeze as many dimensions away as still leave the right token this many logits ahead on 600 states.
        fresh: replace a compiled run that --out holds, with what was measured on it.
        threads: PyTorch threads.
    """
    from interp.compiled import compile_model, compile_run, tightest

    if n_circuit_pairs < 0:
        raise ValueError(f"--n-circuit-pairs must be at least 0, got {n_circuit_pairs}")
    _threads(threads)
    if margin is not None:
        noise = tightest(spec, task=task, noise=noise, least=margin, sharpness=sharpness, gain=gain)
        console.print(f"squeezed by {noise.squeeze} dimensions")
    with stage_display("deriving circuits") as progress:
        compiled = compile_model(
            spec,
            task=task,
            noise=noise,
            sharpness=sharpness,
            gain=gain,
            d_model=d_model,
            n_circuit_pairs=n_circuit_pairs,
            progress=lambda share: progress(share, 1.0, ""),
        )
    compile_run(compiled, out, fresh=fresh, command="tapelens " + " ".join(sys.argv[1:]))
    cfg = compiled.model.cfg
    console.print(
        f"{cfg.n_layers} layers of {cfg.n_heads} heads, d_model {cfg.d_model}, "
        f"{sum(p.numel() for p in compiled.model.parameters()):,} parameters, and their answer key in {out}"
    )


def bench(
    what: Annotated[Literal["machine", "training", "probes", "circuits"], tyro.conf.Positional],
    *,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Speed as ratios to a named peer, measured in the same run (above 1: ours is better).

    Args:
        what: which benchmark.
        json_output: print only a JSON list of rows on standard output.
    """
    from importlib import import_module

    logging.basicConfig(format="%(message)s")  # to standard error
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    rows = import_module(f"benchmarks.{what}").rows()
    if json_output:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        console.print(
            f"{row['name']}: {row['ratio']:.2f}x  (ours {row['ours']:.4g}, {row['peer_name']} {row['peer']:.4g} "
            f"{row['unit']})"
        )


def _verify(out: Path) -> None:
    """Check records on the disk: checksums of shards; of the original's files, every step against the machine."""
    from cython_vm import Records, read_original, step

    if out.suffix == ".npy":
        before, after = read_original(out)
        wrong = int((~step(before).next.equal(after)).sum())
        if wrong:
            raise ValueError(f"{out}: {wrong:,} of {len(before):,} records are not what the machine does")
        console.print(f"{len(before):,} records in {out}, all as the machine steps")
        return
    with stage_display("verifying") as progress:
        records = Records(out, progress=lambda done, total: progress(done, total, ""))
    console.print(f"{len(records):,} records in {len(records.index['shards'])} shards of {out}, all whole")


def serve(run: Path, *, port: int) -> None:
    """Replace this process by the Streamlit server."""
    os.environ["TAPELENS_RUN"] = str(Path(run).resolve())
    arguments = ["--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"]
    console.print(f"serving {run} on http://127.0.0.1:{port}")
    os.execv(sys.executable, [sys.executable, "-m", "app", *arguments])


COMMANDS = {
    "demo": demo,
    "sample": sample,
    "evolve": evolve,
    "train": train,
    "eval": evaluate,
    "card": card,
    "probe": probe,
    "probing-page": probing_page,
    "patch": patch,
    "circuit": circuit,
    "circuit-page": circuit_page,
    "compile": compile_interpreter,
    "calibrate": calibrate,
    "curves": curves,
    "lengths": lengths,
    "report": report,
    "app": app,
    "bench": bench,
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb; every mistake ends in one sentence on standard error and a non-zero exit."""
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues from the last checkpoint", code=130)
    except (RunError, ValueError) as error:
        _fail(str(error), code=1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename}" if error.filename else str(error), code=1)


def _run(arguments: list[str]) -> None:
    """Parse, then call. Tyro frames its complaints in a box of several lines; people get one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            call = tyro.extras.subcommand_cli_from_dict(
                {name: _deferred(verb) for name, verb in COMMANDS.items()},
                prog="tapelens",
                description="Mechanistic interpretability on models that learned to run programs.",
                args=arguments,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        verb = f" {arguments[0]}" if arguments and arguments[0] in COMMANDS else ""
        _fail(f"{_one_line(complaint.getvalue())}; see: tapelens{verb} --help", code=2)
    call()


def _deferred(verb: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """The same signature, but calling it only binds the arguments: parsing and running stay apart."""

    @functools.wraps(verb)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(verb, *args, **kwargs)

    return bind


def _one_line(box: str) -> str:
    """The sentences inside one of tyro's boxes."""
    lines = [line.strip(" │|") for line in box.splitlines()[1:]]
    kept = (line for line in lines if line.strip("─╭╮╰╯+-") and not line.startswith("For full helptext"))
    return " ".join(kept).replace("__tyro-dummy-inner__.", "--")


def _positive(option: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{option} must be at least 1, got {value}")


def _threads(count: int) -> None:
    import torch

    _positive("--threads", count)
    torch.set_num_threads(count)


def _fail(message: str, *, code: int) -> NoReturn:
    print(f"tapelens: {message}", file=sys.stderr)
    sys.exit(code)
