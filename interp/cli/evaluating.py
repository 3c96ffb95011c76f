"""What a model gets right: eval, card, model-page, curves, lengths, thinking."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import console, say, show_scores, stage_display
from interp.evaluation.tables import denoising_tables
from interp.files import copy_file, require_file, write_json, write_text
from interp.results import Aggregation, records, select
from interp.runs import Run, load
from interp.stage_options import EvaluationOptions


def evaluate(
    run: RunPath,
    *,
    asked: Annotated[EvaluationOptions, tyro.conf.arg(name="")] = EvaluationOptions(),  # noqa: B008 (frozen)
    archive: Path | None = None,
    denoising_steps: tuple[int, ...] = (),
    n_steps: tuple[int, ...] = (),
    save: bool = False,
    loop_steps: tuple[str, ...] = (),
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    threads: int = 2,
) -> None:
    """Held-out exact match by op, outcome and block; partial credit, reliability, and rollout of whole programs.

    Args:
        run: the run folder.
        asked: on what, and how much of it.
        archive: run as many evolved programs too, of this file that tapelens evolve wrote.
        denoising_steps: of a model that fills in answers: exact match when it does so in as many passes, in each order
            (say 1 2 4 8); --save keeps these rows in RUN/denoising.parquet.
        n_steps: of a task that tells runs: exact match on held-out runs of as many executed instructions, longer than
            those trained on (say 96 128), on a world with room for them; --save keeps these rows in RUN/beyond.parquet.
        save: add the result to RUN/metrics.parquet as the run's final evaluation.
        loop_steps: of a looped model: how many steps to run, such as 1 2 4 8, or halt; exact match alone, for each.
        json_file: write every row to this file.
        threads: PyTorch threads.
    """
    from interp.evaluation.measure import measure
    from interp.studies.evaluation_stage import evaluate_stage

    if save and (archive is not None or asked != EvaluationOptions(n=asked.n, programs=asked.programs)):
        raise ValueError("--save keeps the final evaluation; leave --seed, --balance, --archive and --max-steps out")
    if save and loop_steps:
        raise ValueError("--save keeps the final evaluation, of the model as it is: leave --loop-steps out")
    opened = load(run)
    if denoising_steps:
        _denoised(opened, denoising_steps, asked, save=save, json_file=json_file, threads=threads)
        return
    if n_steps:
        _beyond(opened, n_steps, asked, save=save, json_file=json_file, threads=threads)
        return
    if save:
        writes(opened.path, "metrics.parquet")
    if json_file is not None:
        require_file(json_file)
    use_threads(threads)
    evolved = opened.config.world.open_archive(archive) if archive is not None else None
    failures = ()
    with stage_display("evaluating") as progress:
        if loop_steps:
            from interp.studies.thinking import by_loop_steps

            scores = by_loop_steps(opened, loop_steps, n=asked.n, seed=asked.seed, progress=progress)
        elif save:
            scores = evaluate_stage(opened, asked, progress=progress)
        else:
            found = measure(opened, **vars(asked), archive=evolved, progress=progress)
            scores, failures = found.rows, found.failures
    for failure in failures[:10]:
        say(f"wrong: {failure.words()}")
    if loop_steps:
        for asked_for, row in zip(loop_steps, records(select(scores, aggregation=Aggregation.MACRO)), strict=True):
            what = "as it halts" if asked_for == "halt" else f"{asked_for} loop steps"
            low, high = (f"{100 * row[end]:.2f}" for end in ("ci_low", "ci_high"))
            say(f"{what}: macro average {100 * row['estimate']:.2f} % [{low}, {high}] of {row['n']:,}")
    else:
        show_scores(scores, title=f"{opened.name}: exact match on held-out programs")
    if json_file is not None:
        write_json(json_file, records(opened.identified(scores)))


def _denoised(
    run: Run, steps: tuple[int, ...], asked: EvaluationOptions, *, save: bool, json_file: Path | None, threads: int
) -> None:
    from interp.evaluation.denoising import denoising_curve

    if save:
        writes(run.path, "denoising.parquet")
    if json_file is not None:
        require_file(json_file)
    use_threads(threads)
    n, seed = asked.n, asked.seed
    with stage_display("filling in") as progress:
        rows = denoising_curve(run.model, run.task, steps=steps, n=n, seed=seed, progress=progress)
    for part in denoising_tables(rows, title=f"{run.name}: exact match by passes and order, held-out examples"):
        if isinstance(part, str):
            say(part)
        else:
            console.print(part)
    if save:
        run.write_frame("denoising", rows, settings={"n": n, "seed": seed, "steps": list(steps)})
    if json_file is not None:
        write_json(json_file, records(run.identified(rows)))


def _beyond(
    run: Run, n_steps: tuple[int, ...], asked: EvaluationOptions, *, save: bool, json_file: Path | None, threads: int
) -> None:
    from interp.evaluation.tables import beyond_table
    from interp.stage_options import BeyondOptions
    from interp.studies.beyond import beyond_curve, beyond_stage

    options = BeyondOptions(n_steps, n=asked.n, seed=asked.seed)
    if save:
        writes(run.path, "beyond.parquet")
    if json_file is not None:
        require_file(json_file)
    use_threads(threads)
    with stage_display("longer runs") as progress:
        if save:
            rows = beyond_stage(run, options, progress=progress)
        else:
            rows = beyond_curve(run, options.n_steps, n=options.n, seed=options.seed, progress=progress)
    console.print(beyond_table(rows, title=f"{run.name}: exact match by executed instructions, held-out runs"))
    if json_file is not None:
        write_json(json_file, records(run.identified(rows)))


def card(
    run: RunPath,
    *,
    n: int = 100_000,
    seed: int = 7,
    programs: int = 500,
    overlap: bool = False,
    threads: int = 2,
) -> None:
    """Measure a run and write its card: RUN/card.json and RUN/card.md, from measured rows alone.

    Args:
        run: the run folder.
        n: how many held-out states, spread evenly over op x outcome.
        seed: of the states.
        programs: how many long-running held-out programs to run on the model's own predictions (0: none).
        overlap: keep the card that is there, and add to it how many of its held-out examples training had shown.
        threads: PyTorch threads.
    """
    from interp.pages.cards import add_overlap, make_card

    at_least("--n", n, 1)
    at_least("--programs", programs, 0)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, "card.json", "card.md")
    with stage_display("measuring") as progress:
        if overlap:
            values = add_overlap(opened, progress=progress)
        else:
            values = make_card(opened, n=n, seed=seed, programs=programs, progress=progress)
    wrong = (
        "" if values["n_wrong"] is None else f"{values['n_wrong']:,} of {values['evaluation']['n']:,} answers wrong; "
    )
    say(f"{wrong}the card is in {opened.path / 'card.md'}")


def model_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write models.md about RUNS: what each can do, side by side, from their cards.

    Args:
        runs: run folders, each with its card.
        out: the folder.
    """
    writes(out, "models.md")
    from interp.pages.models import write_models_page

    say(f"page in {write_models_page(runs, out)}")


def curves(runs: Annotated[tuple[Path, ...], tyro.conf.Positional], *, out: Path = Path("learning_curves.svg")) -> None:
    """Draw learning curves of runs, beside the original project's published points: records against exact match.

    Args:
        runs: the run folders.
        out: the drawing, an .svg file.
    """
    from interp.pages.curves import learning_curve_of, learning_curves_drawing

    if out.suffix != ".svg":
        raise ValueError(f"--out must end in .svg, got {out}")
    require_file(out)
    opened = [load(run) for run in runs]
    alike = len({run.name for run in opened}) < len(opened)  # then say where each is
    named = [learning_curve_of(run, name=str(run.path) if alike else None) for run in opened]
    write_text(out, learning_curves_drawing(named))
    say(f"{len(runs)} learning curves in {out}")


def thinking(
    run: RunPath,
    *,
    n: int = 4096,
    n_longer: int = 1000,
    seed: int = 2,
    out: Path = Path("docs"),
    threads: int = 1,
) -> None:
    """How a looped model thinks: right by loop step and steps run, halting against fixed steps, chance and an oracle,
    which executed step each loop step holds, what follows from edits of its carry, the fixed point, and runs longer
    than in training; rows in RUN/thinking.parquet, the page OUT/thinking.md.

    Args:
        run: the run folder of a looped model about runs (the task output).
        n: held-out examples of each split.
        n_longer: programs of each bin of longer runs, 0: none.
        seed: of the examples.
        out: where the page goes.
        threads: PyTorch threads.
    """
    from interp.pages.thinking import write_thinking_page
    from interp.studies.thinking import measure_thinking

    at_least("--n", n, 1)
    at_least("--n-longer", n_longer, 0)
    opened = load(run)
    writes(opened.path, "thinking.parquet")
    writes(out, "thinking.md")
    use_threads(threads)
    with stage_display("thinking") as progress:
        rows = measure_thinking(opened, n=n, n_longer=n_longer, seed=seed, progress=progress)
    opened.write_frame("thinking", rows, settings={"n": n, "n_longer": n_longer, "seed": seed})
    page = write_thinking_page(opened, rows, out)
    say(f"{len(rows):,} rows in {opened.path / 'thinking.parquet'}; the page is {page}")


def lengths(
    *,
    out: Path = Path("runs/lengths"),
    encodings: tuple[str, ...] = (),
    steps: int = 5000,
    n: int = 2000,
    seed: int = 0,
    publish: bool = False,
    fresh: bool = False,
    threads: int = 1,
) -> None:
    """Length generalisation: train each positional scheme on a small machine, test it on longer ones, into OUT.

    A scheme that OUT holds already is kept, one that was interrupted goes on: the same command continues.

    Args:
        out: a run folder a scheme, the rows, and the page length_generalisation.md.
        encodings: some of learned, sinusoidal, rotary, none, block, block_shifted, block_rotary, block_turned, alibi,
            randomised and path (default: all).
        steps: optimizer steps of each training.
        n: held-out states of each test.
        seed: of weights and records.
        publish: also write the page and its rows into docs.
        fresh: start over.
        threads: PyTorch threads.
    """
    from interp.pages.lengths import write_lengths_page
    from interp.studies.lengths import ENCODINGS, LengthsConfig, measure_lengths

    at_least("--steps", steps, 1)
    at_least("--n", n, 1)
    writes(out, "lengths.parquet", "length_generalisation.md", "length_generalisation.svg")
    if publish:
        writes(Path("docs"), *(f"length_generalisation.{kind}" for kind in ("md", "svg", "parquet")))
    use_threads(threads)
    config = LengthsConfig(encodings=encodings or tuple(ENCODINGS), steps=steps, n_states=n, seed=seed, threads=threads)
    with stage_display("training and testing") as progress:
        rows = measure_lengths(out, config, fresh=fresh, progress=progress)
    page = write_lengths_page(out, rows, config)
    if publish:
        page = write_lengths_page(Path("docs"), rows, config)
        copy_file(out / "lengths.parquet", Path("docs/length_generalisation.parquet"))
    say(f"{len(rows):,} rows in {out / 'lengths.parquet'}; the table is in {page}")
