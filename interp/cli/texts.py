"""Texts that models write: sample-text, strings-page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import say, stage_display
from interp.files import require_file, write_json
from interp.results import records
from interp.runs import load


def sample_text(
    run: RunPath,
    *,
    n: int = 1000,
    from_file: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    show: int = 8,
    seed: int = 3,
    save: bool = False,
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    threads: int = 1,
) -> None:
    """Texts that a model writes by itself, judged by the rule: how many it allows, how many are new, how many differ.

    Beside them stand as many texts of the rule's own sampler and of uniformly drawn characters; and the KL to the exact
    distribution with the mass on forbidden characters, summed over every prefix where these can be listed.

    Args:
        run: the run folder.
        n: how many texts.
        from_file: judge the lines of this file instead, a text each: those of a prompted language model, say.
        show: how many of them to show.
        seed: of the samples.
        save: write the rows to RUN/texts.parquet.
        json_file: write every row to this file.
        threads: PyTorch threads.
    """
    from interp.studies.texts import judge_run

    at_least("--n", n, 1)
    at_least("--show", show, 0)
    use_threads(threads)
    opened, brought = load(run), None
    if from_file is not None:
        if save:
            raise ValueError("--save keeps what the run itself writes; leave --from out")
        brought = [line.rstrip("\r\n") for line in from_file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not brought:
            raise ValueError(f"{from_file} has no line to judge")
    if save:
        writes(opened.path, "texts.parquet")
    if json_file is not None:
        require_file(json_file)
    with stage_display("judging texts") as progress:
        found = judge_run(opened, n=n, brought=brought, seed=seed, save=save, progress=progress)
    faults = dict(found.judged.faults)
    for text in found.texts[:show]:
        fault = faults.get(text)
        say(f"{text}  {'ok' if fault is None else f'fault at {fault.position + 1}: {fault.reason}'}")
    for words, judged in (("texts", found.judged), ("drawn by the rule", found.sampler), ("random", found.random)):
        new = f"{judged.novelty:.1%} of these new, " if judged.allowed else ""
        say(f"{words}: {judged.in_distribution:.2%} of {judged.n:,} allowed, {new}{judged.uniqueness:.1%} different")
    if (gap := found.divergence) is not None:
        how = f"exact, over all {gap.n:,} prefixes" if gap.exact else f"over {gap.n:,} held-out strings"
        say(f"KL to the rule {gap.kl:.6f} nats a character, illegal mass {gap.illegal:.2e} ({how})")
    if json_file is not None:
        write_json(json_file, records(opened.identified(found.rows())))


def strings_page(
    runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs"), measure: bool = False, threads: int = 1
) -> None:
    """Write strings.md and its figures about RUNS, from what tapelens sample-text --save measured of them.

    Args:
        runs: run folders about rule strings.
        out: the folder to write to.
        measure: first measure the order of context and, of Markov chains, the phases, into RUN/language.parquet.
        threads: PyTorch threads.
    """
    from interp.pages.strings import write_strings_page
    from interp.studies.language import language_stage

    use_threads(threads)
    opened = [load(run) for run in runs]
    writes(out, "strings.md")
    if measure:
        with stage_display("measuring") as progress:
            for each in opened:
                language_stage(each, progress=progress)
    say(f"page in {write_strings_page(opened, out)}")


def text_page(rows: tyro.conf.Positional[Path] = Path("docs/text.json"), *, out: Path = Path("docs")) -> None:
    """Write text.md and its figure from the rows of tapelens bench text.

    Args:
        rows: the file that tapelens bench text --json was kept in.
        out: the folder to write to.
    """
    from interp.pages.text import write_text_page

    writes(out, "text.md")
    say(f"page in {write_text_page(rows, out)}")
