"""A run card as Markdown: every figure is one of `card.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from interp.results import Aggregation, Method, Metric
from interp.runs.run_config import world_of

_STEPS = (1, 5, 10, 20, 50, 100)
_METRICS = {Metric.EXACT_MATCH: "exact match, macro average", Metric.SEQUENCE_MATCH: "whole ones without an error"}
_SHAPE = {"n_layers": "layers", "n_heads": "heads"}  # what a model has of these


def card_page(card: dict[str, Any]) -> str:
    """The page for what `make_card` returns."""
    sections = (_head, _making, _accuracy, _places, _old, _failures, _reliability, _rollout, _again)
    return "\n\n".join(text for section in sections if (text := section(card))) + "\n"


def _head(card: dict[str, Any]) -> str:
    config, macro = card["config"], rows_of(card, Metric.EXACT_MATCH, Aggregation.MACRO)[0]
    model, world = config["model"], world_of(config)
    n = card["evaluation"]["n"]
    strata = rows_of(card, Metric.EXACT_MATCH, Aggregation.MEAN)
    over = world.strata_words if any("op" in row for row in strata) else f"{len(strata)} strata"
    shape = [f"{model[name]} {words}" for name, words in _SHAPE.items() if name in model]
    shape += [f"d_model {model['d_model']}"] if "d_model" in model else []
    sizes = f"({', '.join(shape)}) " if shape else ""
    wrong = "" if card["n_wrong"] is None else f" **{card['n_wrong']:,} of {n:,} answers are wrong.**"
    return (
        f"# {card['name']}\n\n"
        f"A model of the architecture `{model['architecture']}` with {card['parameters']:,} parameters {sizes}"
        f"for the task `{config['task']}` on "
        f"{world.in_words()}.\n\n"
        f"Macro average over {over} on held-out {world.unit}s, greedy: **{percent(macro)}** {interval(macro)}, "
        f"n = {macro['n']:,}.{wrong}{_bits(card)}"
    )


def _bits(card: dict[str, Any]) -> str:
    """Of a model of text: what a character of held-out text costs it."""
    if not (rows := [row for row in card["rows"] if row["metric"] == Metric.BITS]):
        return ""
    row = rows[0]
    bound = "at most " if row.get("method") == Method.BOUND else ""
    return (
        f"\n\nHeld-out text costs it {bound}**{row['estimate']:.4f} bits a character** [{row['ci_low']:.3f}, "
        f"{row['ci_high']:.3f}], n = {row['n']:,} characters; the interval is over held-out units."
    )


def _making(card: dict[str, Any]) -> str:
    training, made, start = card["training"], card["config"]["training"], card["config"].get("start")
    lines = [
        ("command", f"`{card['command']}`" if card["command"] else "not recorded"),
        *([("begins with", f"the weights of `{start['path']}` at step {start['step']:,}")] if start else []),
        ("seed", card["seed"]),
        ("steps, records a step", f"{training['steps']:,}, {made['batch_size']}"),
        ("records seen", "not recorded" if training["records"] is None else f"{training['records']:,.0f}"),
        ("wall time", "not recorded" if training["seconds"] is None else duration(training["seconds"])),
        ("hardware", _hardware(training["hardware"], training.get("threads") or {made["threads"]: training["steps"]})),
        ("versions", ", ".join(f"{name} {version}" for name, version in card["versions"].items())),
        ("validation split", _validation(made)),
        ("config digest", f"`{card['digest']}`; every setting is in config.json"),
    ]
    return "## How it was made\n\n" + table(["", ""], lines)


def _validation(made: dict[str, Any]) -> str:
    if made.get("validation"):
        return "left out of training, which was followed on it: what is chosen on the way is chosen there"
    return "none: what was chosen was chosen on the split that the figures below are of"


def _accuracy(card: dict[str, Any]) -> str:
    rows = rows_of(card, Metric.EXACT_MATCH, Aggregation.MEAN)
    if not any("op" in row for row in rows):
        rows = sorted(rows, key=_outcome)
    parts = any(_outcome(row) for row in rows)
    lines = [
        [row.get("op", "all"), *([_outcome(row)] if parts else []), f"{row['n']:,}", f"{_wrong(row):,}", percent(row),
         interval(row)]
        for row in rows
    ]  # fmt: skip
    by = world_of(card["config"]).strata_words.split(" × ")
    heading = [by[0], *(["what happens"] if parts else []), "n", "wrong", "exact match", "95 % interval"]
    text = f"## Exact match by {' and '.join(by)}\n\n" + table(heading, lines)
    token = rows_of(card, Metric.TOKEN_ACCURACY, Aggregation.MACRO)
    changed = rows_of(card, Metric.CHANGED_TOKEN_ACCURACY, Aggregation.MACRO)
    if token and changed:
        text += (
            f"\n\nPartial credit, macro average: {percent(token[0])} of all tokens are right, "
            f"{percent(changed[0])} of those that the step changes."
        )
    if whole := rows_of(card, Metric.SEQUENCE_MATCH, Aggregation.MEAN):
        text += f"\n\nWhole sequences without an error: {percent(whole[0])} of {whole[0]['n']:,} {interval(whole[0])}."
    return text


def _places(card: dict[str, Any]) -> str:
    """How much is right at a place: a step of a chain, a slot of the output, an age of a cell."""
    if rows_of(card, Metric.CHANGED_TOKEN_ACCURACY):
        return ""  # there the same metrics are partial credit
    rows = [
        row
        for row in card["rows"]
        if row["metric"] == Metric.TOKEN_ACCURACY or (row["metric"] == Metric.BLOCK_ACCURACY and "op" not in row)
    ]
    if not rows:
        return ""
    lines = [
        [
            " ".join(str(row[name]) for name in ("op", "stratum", "position") if name in row),
            f"{row['n']:,}",
            f"{_wrong(row):,}",
            percent(row),
            interval(row),
        ]
        for row in rows
    ]
    return "## By place\n\n" + table(["where", "n", "wrong", "right", "95 % interval"], lines)


def _old(card: dict[str, Any]) -> str:
    """How many of the held-out examples training had shown in another guise, and the score without them."""
    if "overlap" not in card:
        return ""
    found = card["overlap"]
    share, scores = overlap_rows(card)
    lines = [
        [row["stratum"], _METRICS[row["metric"]], f"{row['n']:,}", percent(row), interval(row)]
        for rows in scores.values()
        for row in rows
    ]
    text = (
        "## Old examples among the held-out ones\n\n"
        "Programs are held out whole, but two that differ where no run comes look the same to the model. Of the "
        f"{share['n']:,} held-out examples, {round(share['estimate'] * share['n']):,} ({percent(share)}, "
        f"{interval(share)}) were shown in training, which drew {found['trained']:,}, {found['different']:,} of them "
        "different."
    )
    return text + "\n\n" + table(["examples", "", "n", "right", "95 % interval"], lines)


def overlap_rows(card: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """The row of the share that training had shown, and the scores of "unseen units" and "seen units"."""
    rows = card["overlap"]["rows"]
    scores: dict[str, list[dict[str, Any]]] = {}
    for row in rows[1:]:
        scores.setdefault(row["stratum"], []).append(row)
    return rows[0], scores


def _failures(card: dict[str, Any]) -> str:
    rows = [row for row in rows_of(card, Metric.EXACT_MATCH, Aggregation.MEAN) if _wrong(row)]
    worst = sorted(rows, key=lambda row: row["estimate"])[:5]
    if not worst:
        return f"## Known failures\n\nNone in {card['evaluation']['n']:,} answers."
    lines = [
        f"{', '.join(filter(None, (row.get('op', 'all'), _outcome(row))))}: {_wrong(row):,} of {row['n']:,} wrong"
        for row in worst
    ]
    text = "## Known failures\n\n" + "\n".join(f"- {line}" for line in lines)
    if card["failures"]:
        text += "\n\nExamples:\n\n" + "\n".join(f"- {each['words']}" for each in card["failures"][:8])
    return text


def _reliability(card: dict[str, Any]) -> str:
    error = rows_of(card, Metric.CALIBRATION_ERROR)
    if not error:
        return ""
    sure = {row["stratum"]: row for row in rows_of(card, Metric.CONFIDENCE)}
    lines = [
        [
            row["stratum"],
            f"{row['n']:,}",
            f"{100 * sure[row['stratum']]['estimate']:.3f} %",
            percent(row),
            interval(row),
        ]
        for row in rows_of(card, Metric.RELIABILITY)
    ]
    heading = ["confidence in the whole answer", "n", "mean confidence", "right", "95 % interval"]
    intro = f"Expected calibration error {error[0]['estimate']:.2e} on {error[0]['n']:,} answers."
    return f"## Reliability of its confidence\n\n{intro}\n\n{table(heading, lines)}"


def _rollout(card: dict[str, Any]) -> str:
    texts = []
    for each in card["rollouts"]:
        rows = {
            row["stratum"].partition(": ")[2]: row
            for row in rows_of(card, Metric.SURVIVAL)
            if row["stratum"].startswith(f"{each['programs']}:")
        }
        lines = [[f"step {k}", *_shares(rows, k)] for k in _STEPS if f"{k} steps" in rows]
        departed = each["departed"]
        text = (
            f"{each['n']:,} held-out programs ({each['programs']}-running, half of them for {each['median_steps']} "
            f"different steps or more, the longest {each['longest']}) run on the model's own predictions for up to 100 "
            f"steps; {len(departed):,} depart from the machine"
            + (f", at step {', '.join(map(str, departed[:20]))}." if departed else ".")
        )
        texts.append(text + "\n\n" + table(["followed up to", "programs", "95 % interval"], lines))
    return "## Whole programs\n\n" + "\n\n".join(texts) if texts else ""


def _shares(rows: dict[str, dict[str, Any]], steps: int) -> tuple[str, str]:
    row = rows[f"{steps} steps"]
    return percent(row), interval(row)


def _again(card: dict[str, Any]) -> str:
    asked = card["evaluation"]
    return (
        "## Measured again\n\n"
        f"These figures: seed {asked['seed']}, {duration(asked['seconds'])} on {_hardware(asked['hardware'], {})}; "
        f"`tapelens card` makes them anew, `tapelens eval --n {asked['n']} --seed …` with other states."
    )


def rows_of(card: dict[str, Any], metric: Metric, aggregation: Aggregation | None = None) -> list[dict[str, Any]]:
    """A card's rows of a metric over whole answers, those by position left out."""
    found = [row for row in card["rows"] if row["metric"] == metric and "position" not in row]
    return [row for row in found if aggregation is None or row.get("aggregation") == aggregation]


def _wrong(row: dict[str, Any]) -> int:
    return round((1 - row["estimate"]) * row["n"])


def _outcome(row: dict[str, Any]) -> str:
    return str(row.get("stratum", "")).replace("_", " ").lower()


def percent(row: dict[str, Any]) -> str:
    """A row's share, to four places after the point."""
    return f"{100 * row['estimate']:.4g} %" if row["estimate"] == 1 else f"{100 * row['estimate']:.4f} %"


def interval(row: dict[str, Any]) -> str:
    """A row's interval in percent, or nothing where it has none."""
    if "ci_low" not in row:
        return ""
    return f"[{100 * row['ci_low']:.3f}, {100 * row['ci_high']:.3f}]"


def _hardware(found: dict[str, Any] | None, threads: Mapping[Any, int]) -> str:
    if found is None:
        return "not recorded" + (f" ({_threads(threads)})" if threads else "")
    parts = [found["processor"], f"{found['cores']} cores"]
    parts += [_threads(threads)] if threads else []
    parts += [found["gpu"]] if found.get("gpu") else []
    return ", ".join(parts)


def _threads(steps: Mapping[Any, int]) -> str:
    """Of a training: its number of threads, or which part of its steps was made with how many."""
    named = {count: "one thread" if int(count) == 1 else f"{count} threads" for count in steps}
    if len(steps) == 1:
        return next(iter(named.values()))
    return ", ".join(f"{named[count]} for {made:,} steps" for count, made in steps.items())


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, as a person says it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def table(heading: Sequence[Any], lines: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    rows = [heading, ["---"] * len(heading), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)
