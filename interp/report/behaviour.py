"""The report's sections on the model from outside: what it is, how exact it is, how it learned."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

import pandas as pd

from interp.commands import command
from interp.figures import accuracy_by_block, accuracy_by_op, final_evaluation, learning_curve, op_words
from interp.figures.style import named_rows, present
from interp.report.circuits import circuit_finding
from interp.report.material import Material, Missing
from interp.report.page import Page, code, details, escape, facts, how_to_read, missing, table
from interp.report.rows import percent
from interp.report.swaps import swap_finding
from interp.results import Aggregation, Method, Metric, select
from interp.worlds import World


def overview(material: Material) -> str:
    """Title, one sentence on the run, tiles with the headline numbers, and what was found."""
    run, config = material.run, material.run.config
    world = config.world
    final = _final(material)
    tiles: list[tuple[str, str]] = []
    findings: list[str] = []
    if final is not None and len(macro := select(final, aggregation=Aggregation.MACRO)):
        row = named_rows(macro)[0]
        tiles.append((percent(row.estimate), f"of whole answers right: macro average, n = {int(row.n):,} held out"))
        by_pair = select(final, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN)
        worst = named_rows(by_pair.nsmallest(1, "estimate"))[0]
        words = _case(worst)
        if worst.estimate < 1:
            findings.append(
                f"<b>Behaviour.</b> Its weakest case is {words}: {percent(worst.estimate)} "
                f"[{percent(worst.ci_low)}, {percent(worst.ci_high)}] of {int(worst.n):,} examples."
            )
        else:
            findings.append(f"<b>Behaviour.</b> No case among the {len(by_pair)} has a single miss.")
    if not isinstance(material.weights, Missing):
        tiles.append((f"{material.weights['parameters']:,}", "parameters"))
    training = _training(material)
    if "records" in training:
        tiles.append((f"{training['records']:,.0f}", f"records of training, in {_duration(training['seconds'])}"))
    found = [part for part in material.circuits.values() if not isinstance(part, Missing)]
    if found:
        tiles.append((f"{len(found)} of {len(material.circuits)}", "contrasts with a circuit"))
    findings += [text for text in (swap_finding(material), circuit_finding(material)) if text]
    listed = "".join(f"<li><b>{value}</b><span>{label}</span></li>" for value, label in tiles)
    return (
        f'<h1><span class="kicker">TapeLens report</span>{escape(run.name)}</h1>'
        f'<p class="lead">{escape(_shape(config.model, short=True))}, trained on the task {code(config.task)} and held '
        f"against {escape(world.title)} itself ({escape(world.in_words())}): it knows the value of every variable, and "
        "what would have come out had any of them been different.</p>"
        f'<ul class="tiles">{listed}</ul>'
        + (f"<ul>{''.join(f'<li>{f}</li>' for f in findings)}</ul>" if findings else "")
    )


def model_section(material: Material) -> str:
    """What the model, the machine and the training are, and how to make the run again."""
    config, header = material.run.config, material.header
    world, settings, task = config.world, config.training, run_task(material)
    training = _training(material)
    weights = material.weights
    rows = [
        ("Task", f"{code(config.task)}: {escape(task.words)}"),
        ("World", f"{escape(world.in_words())}; {_shown(task)}"),
        ("Model", escape(_shape(config.model))),
        ("Parameters", "" if isinstance(weights, Missing) else f"{weights['parameters']:,}"),
        (
            "Training",
            f"{settings.steps:,} steps of {settings.batch_size} records, drawn fresh from {world.unit}s that are not "
            f"held out, balance {code(settings.balance)}; Muon (peak rate {settings.muon_lr:g}) for hidden matrices, "
            f"AdamW ({settings.adamw_lr:g}) for the rest; {escape(settings.precision)}",
        ),
        ("Training time", _duration(training["seconds"]) if "seconds" in training else ""),
        ("Weights", "" if isinstance(weights, Missing) else f"of training step {weights['step']:,}"),
        ("Seed", f"{config.seed}"),
        ("Config digest", code(config.digest)),
        ("Versions", escape(", ".join(f"{name} {version}" for name, version in material.versions.items()))),
        ("Command", code(header["command"]) if header.get("command") else ""),
    ]
    lost = missing(weights.message, weights.command) if isinstance(weights, Missing) else ""
    words = [(escape(op_words(name)), escape(said)) for name, said in world.stratum_words().items()]
    strata = details(f"What each {world.stratum_title} is", table([world.stratum_title, "what it does"], words))
    return lost + facts((name, value) for name, value in rows if value) + (strata if words else "")


def run_task(material: Material) -> Any:
    """The run's task; it brings torch."""
    return material.run.task


def _shape(model: Any, *, short: bool = False) -> str:
    """The architecture and its sizes; all settings that differ from the defaults, unless `short`."""
    heads = getattr(model, "n_heads", None)
    shape = f"A {model.architecture} of {model.n_layers} layers" + (f" × {heads} heads" if heads else "")
    if short:
        return shape
    given = [f"{each.name} {getattr(model, each.name)}" for each in fields(model) if _worth_naming(model, each)]
    return f"{shape}: {', '.join(given)}"


def _worth_naming(model: Any, each: Field) -> bool:
    value = getattr(model, each.name)
    plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    named = each.name not in ("architecture", "n_layers", "n_heads", "seed")
    return named and (plain or value is True) and value != each.default


def _shown(task: Any) -> str:
    return f"an example is up to {task.n_ctx} tokens of a vocabulary of {len(task.vocab)}"


def accuracy_section(material: Material, page: Page) -> str:
    """Exact match by op x outcome, with counts and intervals, and by block."""
    frame = material.frames["metrics"]
    if isinstance(frame, Missing):
        return missing(frame.message, frame.command)
    final = _final(material)
    if final is None:
        return missing("The run has no evaluation yet.", command("eval", material.folder, "--save"))
    world = material.run.config.world
    exact = select(final, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN)
    body = _answers(frame, exact, world, page)
    blocks = select(final, metric=Metric.BLOCK_ACCURACY)
    if not blocks.empty:
        return body + _blocks(frame, exact, blocks, world, page)
    if not world.part_names:
        return body  # nothing more is measured of this world's answers
    mend = code(command("eval", material.folder, "--save"))
    return f'{body}<p class="quiet">Accuracy by block comes with {mend}</p>'


def _answers(frame: pd.DataFrame, exact: pd.DataFrame, world: World, page: Page) -> str:
    """Whole answers, by op x outcome."""
    body = how_to_read(
        f"Every example comes from a {world.unit} that the model never trained on. An answer counts only if all of it "
        f"is right. The {int(exact.n.sum()):,} answers fall into {len(exact)} cases, by {world.stratum_title} and what "
        "happens; the macro average counts every case once. Intervals are 95 % Wilson intervals: even without a miss, "
        "the true share may be as low as the lower end.",
        *world.reading_notes(),
    )
    body += page.figure(
        accuracy_by_op(frame),
        alt=f"Exact match with intervals for {len(exact)} cases of instruction and outcome; numbers in the table "
        "below.",
        caption=f"Exact match on held-out {world.unit}s. One point a case; the table holds the same numbers.",
    )
    lines = [
        [
            escape(op_words(row.op)),
            _outcome(row.stratum),
            f"{int(row.n):,}",
            f"{round((1 - row.estimate) * row.n):,}",
            percent(row.estimate),
            f"{percent(row.ci_low)} – {percent(row.ci_high)}",
        ]
        for row in named_rows(exact)
    ]
    headings = [world.stratum_title, "outcome", "answers", "wrong", "exact match", "95 % interval"]
    return body + table(headings, lines, caption="Exact match of whole answers.", numbers=range(2, 6))


def _blocks(frame: pd.DataFrame, exact: pd.DataFrame, blocks: pd.DataFrame, world: World, page: Page) -> str:
    """Where the mistakes sit."""
    drawing = page.figure(
        accuracy_by_block(frame),
        alt="Share of states whose block is right, instruction and outcome by block; numbers in the table below.",
        caption="Where the mistakes sit: the share of states in which all tokens of a block are right.",
    )
    names = present(blocks, "position")
    share = {(row.op, row.stratum, row.position): row.estimate for row in named_rows(blocks)}
    lines = [
        [
            escape(op_words(row.op)),
            _outcome(row.stratum),
            *(percent(share[key]) if (key := (row.op, row.stratum, name)) in share else "" for name in names),
        ]
        for row in named_rows(exact)
    ]
    numbers = table([world.stratum_title, "outcome", *map(escape, names)], lines, numbers=range(2, 2 + len(names)))
    return drawing + details("The numbers as a table", numbers)


def learning_section(material: Material, page: Page) -> str:
    """The learning curve, with a table of the evaluations."""
    frame = material.frames["metrics"]
    if isinstance(frame, Missing):
        return missing(frame.message, frame.command)
    try:
        drawing = learning_curve(frame)
    except ValueError:
        return missing(
            "The run's metrics hold no evaluation made while training.", command("train", "--out", material.folder)
        )
    macro = select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO, method=Method.GREEDY)
    macro = macro.sort_values(["checkpoint_step", "n"], kind="stable").drop_duplicates("checkpoint_step")
    size = int(macro.n.iloc[0])
    body = how_to_read(
        f"Every so often training stops for {size:,} held-out states, spread evenly over the cases; these are fewer "
        "than, and other than, the states of the section above. Thin lines are the mean over an instruction's "
        "outcomes.",
    )
    body += page.figure(
        drawing,
        alt="Held-out exact match by instruction and training loss against records seen; numbers in the table below.",
        caption="Held-out exact match while training (above) and training loss (below, log scale).",
    )
    losses = select(frame, metric=Metric.LOSS, method=Method.TRAINING).set_index("checkpoint_step").estimate.to_dict()
    rows = [
        [
            f"{int(row.checkpoint_step):,}",
            percent(row.estimate),
            f"{losses[row.checkpoint_step]:.2e}" if row.checkpoint_step in losses else "",
            f"{int(row.n):,}",
        ]
        for row in named_rows(macro)
    ]
    headings = ["step", "exact match (macro)", "training loss", "states"]
    return body + details("The numbers as a table", table(headings, rows, numbers=(1, 2, 3)))


def _final(material: Material) -> pd.DataFrame | None:
    frame = material.frames["metrics"]
    if isinstance(frame, Missing):
        return None
    try:
        return final_evaluation(frame)
    except ValueError:
        return None


def _training(material: Material) -> dict[str, Any]:
    """Seconds and records of training at its last logged step."""
    frame = material.frames["metrics"]
    if isinstance(frame, Missing):
        return {}
    rows = select(frame, method=Method.TRAINING).sort_values("checkpoint_step", kind="stable")
    last = {metric: select(rows, metric=metric).tail(1) for metric in (Metric.SECONDS, Metric.RECORDS)}
    return {str(metric): float(row.estimate.iloc[0]) for metric, row in last.items() if len(row)}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _case(row: Any) -> str:
    """A stratum and its part, in words."""
    part = _outcome(row.stratum)
    return f"{escape(op_words(row.op))} · {part}" if part else escape(op_words(row.op))


def _outcome(stratum: Any) -> str:
    return "" if pd.isna(stratum) else escape(str(stratum).replace("_", " ").lower())
