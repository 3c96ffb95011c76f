"""Models whose mechanism is known: compile, calibrate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from cython_vm import MachineSpec
from interp.cli.arguments import at_least, use_threads, writes
from interp.commands import this_command
from interp.compiled.config import NoiseConfig
from interp.console import say, stage_display
from interp.files import copy_file


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
    from interp.calibration import with_circuits
    from interp.compiled import compile_model, tightest
    from interp.runs.compiled_run import compile_run, require_place

    if n_circuit_pairs < 0:
        raise ValueError(f"--n-circuit-pairs must be at least 0, got {n_circuit_pairs}")
    writes(out, "config.json", "model.safetensors")
    require_place(out, fresh=fresh)
    use_threads(threads)
    if margin is not None:
        noise = tightest(spec, task=task, noise=noise, least=margin, sharpness=sharpness, gain=gain)
        say(f"squeezed by {noise.squeeze} dimensions")
    compiled = compile_model(spec, task=task, noise=noise, sharpness=sharpness, gain=gain, d_model=d_model)
    if n_circuit_pairs:
        with stage_display("deriving circuits") as progress:
            compiled = with_circuits(compiled, n_pairs=n_circuit_pairs, progress=lambda share: progress(share, 1.0, ""))
    compile_run(compiled, out, fresh=fresh, command=this_command())
    cfg = compiled.model.cfg
    say(
        f"{cfg.n_layers} layers of {cfg.n_heads} heads, d_model {cfg.d_model}, "
        f"{sum(p.numel() for p in compiled.model.parameters()):,} parameters, and their answer key in {out}"
    )


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
        publish: also write docs/calibration.md, its figure and rows, and the summary that is shown beside results.
        fresh: measure again what is there.
        workers: processes, each with one thread.
    """
    from interp.calibration.run import calibrate as run_calibration
    from interp.calibration.run import publish_summary
    from interp.calibration.settings import QUICK, CalibrationSettings
    from interp.pages.calibration import write_page

    at_least("--workers", workers, 1)
    writes(out, "rows/", "calibration.parquet", "calibration.md")
    if publish:
        writes(Path("docs"), "calibration.md", "calibration.svg", "calibration.parquet")
        writes(Path("interp/calibration"), "summary.json")
    use_threads(1)
    settings = QUICK if quick else CalibrationSettings()
    settings = replace(settings, subjects=models or settings.subjects)
    with stage_display("calibrating") as progress:
        rows = run_calibration(out, settings=settings, only=methods, fresh=fresh, workers=workers, progress=progress)
    page = write_page(out, rows, settings)
    publish_summary(out, rows, settings)
    if publish:
        write_page(Path("docs"), rows, settings)
        copy_file(out / "calibration.parquet", Path("docs/calibration.parquet"))
        publish_summary(Path("interp/calibration"), rows, settings)
    say(f"{len(rows):,} rows in {out / 'calibration.parquet'}; the table in words in {page}")
