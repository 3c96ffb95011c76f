"""docs/addition.md: what models of addition do and how, from rows alone; opens with what was found, and one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from interp.commands import command
from interp.files import write_text
from interp.pages.addition_drawing import attention_drawing
from interp.pages.addition_tables import seed_sections, seeds_said, table_sections
from interp.results import Control, Method, Metric, records, select
from interp.runs import Run
from interp.studies.sum_heuristics import BAG
from interp.studies.sums import OPERANDS, PAIRS, RIPPLE
from interp.worlds.addition_digits import LOOK_AHEAD

FILE = "sums.parquet"
PICTURE = "addition_attention.svg"
_ACCOUNTS = {RIPPLE: "ripple", LOOK_AHEAD: "look-ahead"}


Told = list[tuple[Run, pd.DataFrame]]


def write_addition_page(
    runs: Told, folder: Path, tables: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None
) -> Path:
    """Write addition.md and its picture, of runs with their rows (`studies.sums`), the first one in detail; with the
    rows of `studies.sum_tables` and `studies.sums.seed_length_rows` where there are any.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("the page is about at least one run; none was given")
    write_text(folder / PICTURE, attention_drawing(runs[0][1]))
    path = folder / "addition.md"
    write_text(path, addition_page(runs, tables, seeds))
    return path


def addition_page(runs: Told, tables: pd.DataFrame | None = None, seeds: pd.DataFrame | None = None) -> str:
    """The page as Markdown."""
    run, rows = runs[0]
    parts = [
        "# Addition: how the carry gets there",
        " ".join(filter(None, [_opening(run, rows), seeds_said(seeds)])),
        f"![Where each head looks while a digit is said]({PICTURE})",
        "Written by `tapelens sums-page` from the rows that `tapelens sums` measures; no number on this page is typed "
        "in.",
        _attention_words(rows),
        "## What it gets right",
        _accuracy(runs),
        _commutes(runs),
        "## Ripple or look-ahead?",
        _rivals_words(),
        _rivals(rows),
        *_rivals_of_others(runs[1:]),
        "## A clock?",
        _clock(rows),
    ]
    if heuristics := _heuristics(rows):
        parts += ["## A bag of heuristics?", heuristics]
    if lengths := _lengths(runs):
        parts += ["## Longer than in training", lengths]
    parts += [*seed_sections(seeds), *table_sections(tables)]
    parts += ["## The same again", _commands(runs, tables, seeds)]
    return "\n\n".join(parts) + "\n"


def _opening(run: Run, rows: pd.DataFrame) -> str:
    n_parameters = sum(each.numel() for each in run.model.parameters())
    pairs, operands = (_one(rows, stratum=kind, metric=Metric.EXACT_MATCH, op=None) for kind in (PAIRS, OPERANDS))
    words = [
        f"A transformer of {n_parameters:,} parameters ({run.config.model.n_layers} layers of "
        f"{run.config.model.n_heads} heads) adds {run.config.world.in_words().removeprefix('sums of ')}.",
        f"It is right on {_share(pairs)} held-out pairs and on {_share(operands)} sums with a number that training "
        "never showed, cascades of every length equally often.",
    ]
    if best := _best(rows):
        account, row, other = best
        words.append(
            "Where the two accounts of the carry disagree, a carry that is changed where its digit is said, before the "
            f"last layer, moves the whole answer as the **{_ACCOUNTS[account]}** model says in up to "
            f"{100 * row['estimate']:.0f} % of pairs (`{row['variable']}`, {_layer(row['site'])}, n = {row['n']}), as "
            f"the other one says in at most {100 * other:.0f} %."
        )
    averages = [row for row in records(select(rows, metric=Metric.ATTENTION)) if row["stratum"] is None]
    if averages:
        heads = {row["site"] for row in averages}
        fixed = [row for row in averages if row["estimate"] > 0.5]
        most = max(averages, key=lambda row: row["estimate"])
        words.append(
            f"Of its {len(heads)} heads {len(fixed)} spend more than half of their attention on one kind of place "
            f"while a digit is said, {_head(most['site'])} most: {100 * most['estimate']:.0f} % on {most['part']}."
        )
    if not run.task.shows_answer:
        words.append("All digits are said in one pass, so that no carry can be read off a digit written before.")
    return " ".join(words)


def _best(rows: pd.DataFrame) -> tuple[str, dict[str, Any], float] | None:
    """At the tokens that ask for the place's own digit: the account with the highest IIA, its row, and the highest of
    the other one."""
    found, last = {}, max((row["site"] for row in _own_place(rows)), default="")
    for account in _ACCOUNTS:
        # After the last layer nothing reads the stream but its own digit: look-ahead could not fail there.
        measured = [row for row in _own_place(rows) if row["stratum"] == account and row["site"] != last]
        if not measured:
            return None
        found[account] = max(measured, key=lambda row: row["estimate"])
    first = max(found, key=lambda account: found[account]["estimate"])
    other = next(account for account in found if account != first)
    return first, found[first], found[other]["estimate"]


def _own_place(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The swaps at the token that asks for the digit of the place that the carry comes into."""
    measured = records(select(rows, metric=Metric.IIA, control=None))
    return [row for row in measured if row["position"] == f"sum[{int(row['variable'][9:-1]) - 1}]"]


def _attention_words(rows: pd.DataFrame) -> str:
    """What each head brings, in a sentence a head."""
    averages = [row for row in records(select(rows, metric=Metric.ATTENTION)) if row["stratum"] is None]
    lines = []
    for site in dict.fromkeys(row["site"] for row in averages):
        own = sorted((row for row in averages if row["site"] == site), key=lambda row: -row["estimate"])
        parts = [f"{row['part']} ({100 * row['estimate']:.0f} %)" for row in own if row["estimate"] >= 0.15][:3]
        rest = "nothing in particular, mostly what is no digit" if not parts else ", ".join(parts)
        lines.append(f"- **{_head(site)}** brings {rest}.")
    n = averages[0]["n"] if averages else 0
    return (
        f"What each head brings to where a digit is said, by its mean share of attention over {n} held-out sums and "
        "all digits:\n\n" + "\n".join(lines)
    )


def _accuracy(runs: Told) -> str:
    strata = list(runs[0][0].config.world.stratum_names)
    lines = ["| run | sums | all | " + " | ".join(strata) + " |", "| --- | --- |" + " ---: |" * (len(strata) + 1)]
    for run, rows in runs:
        for kind in (PAIRS, OPERANDS):
            found = {row["op"]: row for row in records(select(rows, stratum=kind, metric=Metric.EXACT_MATCH))}
            cells = [_percent(found.get(name)) for name in (None, *strata)]
            lines.append(f"| {run.name} | {kind} | " + " | ".join(cells) + " |")
    return "Exact match, %, by the longest cascade of the sum (95 % Wilson intervals are in the rows):\n\n" + "\n".join(
        lines
    )


def _commutes(runs: Told) -> str:
    sentences = []
    for run, rows in runs:
        same = _one(rows, metric=Metric.COMMUTES)
        moved = _one(rows, metric=Metric.LOGIT_CHANGE, aggregation="median")
        if same and moved:
            sentences.append(
                f"`{run.name}` answers {_share(same)} sums alike with the summands exchanged; the right token's logit "
                f"moves by {moved['estimate']:.2f} in the median (90 % of tokens: {moved['ci_low']:.2f} to "
                f"{moved['ci_high']:.2f})."
            )
    return "Addition commutes; does the model? " + " ".join(sentences)


def _rivals_words() -> str:
    return (
        "Both accounts have the same carries and differ in what these depend on. In the *ripple* model the carry into "
        "a place comes from the carry before it: setting one goes on through a place whose digits add up to one less "
        "than the base. In the *look-ahead* model each carry comes from all lower digits at once: setting one changes "
        "its own digit alone. Pairs: a sum in which a carry is made right below such a place, and the same sum without "
        "it. The stream of the second is put into the first at one position; IIA is the share of whole answers that "
        "are as the account says. The model left alone scores the control."
    )


def _rivals(rows: pd.DataFrame) -> str:
    measured = _own_place(rows)
    sites = list(dict.fromkeys(row["site"] for row in measured))
    lines = [
        "| carry | account | " + " | ".join(map(_layer, sites)) + " | best elsewhere | n | left alone |",
        "| --- | --- |" + " ---: |" * len(sites) + " --- | ---: | ---: |",
    ]
    for variable in dict.fromkeys(row["variable"] for row in measured):
        for account, name in _ACCOUNTS.items():
            every = select(rows, metric=Metric.IIA, variable=variable, stratum=account)
            own = {row["site"]: row for row in measured if (row["variable"], row["stratum"]) == (variable, account)}
            position = next(iter(own.values()))["position"]
            others = [row for row in records(select(every, control=None)) if row["position"] != position]
            best = max(others, key=lambda row: row["estimate"])
            cells = " | ".join(_percent(own[site]) for site in sites)
            alone = _one(every, control=Control.UNPATCHED)
            elsewhere = f"{_percent(best)}, {_site(best)}"
            lines.append(f"| `{variable}` | {name} | {cells} | {elsewhere} | {best['n']} | {_percent(alone)} |")
    return (
        "IIA, %, at the token that asks for the digit of the place, layer by layer; after the last layer nothing else "
        "reads it, so that look-ahead cannot fail. Elsewhere, where the place below is said, a swap changes that "
        "place's digits as a whole: what is made there, not what comes from it:\n\n" + "\n".join(lines)
    )


def _rivals_of_others(runs: Told) -> list[str]:
    """Which account each further run bears out, in a sentence."""
    sentences = []
    for run, rows in runs:
        if (best := _best(rows)) is None:
            continue
        account, row, other = best
        shown = "reads the digits that it has said" if run.task.shows_answer else "says all digits in one pass"  # type: ignore[attr-defined]
        sentences.append(
            f"`{run.name}` {shown}: there, before the last layer, IIA reaches {_percent(row)} % by the "
            f"{_ACCOUNTS[account]} account (`{row['variable']}`, {_layer(row['site'])}, n = {row['n']}) and at most "
            f"{100 * other:.4g} % by the other."
        )
    return [" ".join(sentences)] if sentences else []


def _heuristics(rows: pd.DataFrame) -> str:
    found = select(rows, metric=Metric.DESCRIBED)
    if found.empty:
        return ""
    kinds = list(dict.fromkeys(row["part"] for row in records(found)))
    lines = ["| neurons that fire on | described, % | with pairs shuffled, % |", "| --- | ---: | ---: |"]
    for kind in kinds:
        own, chance = (select(found, part=kind, control=each) for each in (None, Control.SHUFFLED_LABELS))
        lines.append(f"| {kind} | {_percent(_one(own))} | {_percent(_one(chance))} |")
    bag = select(rows, metric=Metric.TOKEN_ACCURACY, part=BAG)
    without, others, alone = (
        _percent(_one(bag, control=each)) for each in (None, Control.RANDOM_PART, Control.UNPATCHED)
    )
    return (
        "Language models have been said to add by a bag of heuristics (Nikankin et al. 2025): neurons that fire where "
        "a summand or the sum lies in some range. Of all neurons, each asked at every digit by itself, so many are "
        "described by such a rule, beside as many as chance would have described:\n\n" + "\n".join(lines) + "\n\n"
        f"With the neurons whose rule holds for the digits at hand set to their mean, {without} % of digits are still "
        f"right; with as many others of the same layers, those first that fire there too, {others} %; with nothing "
        f"changed {alone} %. A bag of heuristics is no causal model of the carry, so nothing is interchanged here."
    )


def _clock(rows: pd.DataFrame) -> str:
    measured = select(rows, method=Method.ABLATION, metric=Metric.TOKEN_ACCURACY)
    measured = measured.loc[measured["site"].notna()]
    parts = list(dict.fromkeys(row["part"] for row in records(measured)))
    lines = ["| stream | " + " | ".join(parts) + " |", "| --- |" + " ---: |" * len(parts)]
    for site in dict.fromkeys(row["site"] for row in records(measured)):
        cells = []
        for part in parts:
            own = select(measured, site=site, part=part)
            pair = (_one(own, control=None), _one(own, control=Control.RANDOM_SUBSPACE))
            cells.append(" / ".join(_percent(each) for each in pair))
        lines.append(f"| {_layer(site)} | " + " | ".join(cells) + " |")
    return (
        "If digits are kept as angles (a modular clock), taking one frequency of a digit's waves out of the stream "
        "should cost what it carries, and a random plane should cost nothing. Digits right, %, without the frequency / "
        "without as many random directions:\n\n" + "\n".join(lines)
    )


def _lengths(runs: Told) -> str:
    found = []
    for run, rows in runs:
        measured = [row for row in records(rows) if row["time"] is not None and row["metric"] == Metric.EXACT_MATCH]
        if not measured:
            continue
        sizes = list(dict.fromkeys(row["stratum"] for row in measured))
        lines = ["| split, draws | " + " | ".join(sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
        for split, design in dict.fromkeys((row["part"], row["pair_design"]) for row in measured):
            own = {row["stratum"]: row for row in measured if (row["part"], row["pair_design"]) == (split, design)}
            lines.append(f"| {split}, {design} | " + " | ".join(_percent(own.get(size)) for size in sizes) + " |")
        n = min(row["n"] for row in measured)
        found.append(
            f"`{run.name}` was trained on numbers of up to {run.config.world.n_digits} digits. Exact match, %, on two "  # type: ignore[attr-defined]
            f"numbers of exactly so many digits, at least {n} sums an entry:\n\n" + "\n".join(lines)
        )
    return "\n\n".join(found)


def _commands(runs: Told, tables: pd.DataFrame | None, seeds: pd.DataFrame | None) -> str:
    lines = []
    for run, rows in runs:
        folder, preset = f"runs/{run.name}", run.name
        asked = [str(size) for size in dict.fromkeys(row["time"] for row in records(rows)) if size is not None]
        lines.append(command("train", "--preset", preset, "--seed", "6", "--out", folder))
        held = max((row["n"] for row in records(select(rows, stratum=PAIRS, op=None))), default=0)
        lines.append(command("sums", folder, "--n-held-out", str(held), *(["--digits", *asked] if asked else [])))
    if seeds is not None:
        names = list(dict.fromkeys(row["run"] for row in records(seeds)))
        lines.append(command("sums-lengths", *(f"runs/{name}" for name in names)))
    if tables is not None:
        steps = str(records(tables)[0]["steps"])
        lines.append(command("sums-tables", "--steps", steps, "--seed", "1"))
    lines.append(command("sums-page", *(f"runs/{run.name}" for run, _ in runs)))
    return "Every row with another seed:\n\n```\n" + "\n".join(lines) + "\n```"


def _one(rows: pd.DataFrame, **columns: Any) -> dict[str, Any] | None:
    found = records(select(rows, **columns))
    return found[0] if found else None


def _share(row: dict[str, Any] | None) -> str:
    if row is None:
        return "an unknown share of"
    right = round(row["estimate"] * row["n"])
    return f"{right:,} of {row['n']:,}"


def _percent(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{100 * row['estimate']:.4g}"


def _layer(site: str) -> str:
    """ "after layer 1" for blocks.1.hook_resid_post."""
    return f"after layer {site.split('.')[1]}" if site.endswith("resid_post") else "before layer 0"


def _site(row: dict[str, Any]) -> str:
    return f"{_layer(row['site'])} at `{row['position']}`"


def _head(site: str) -> str:
    _, layer, _, hook = site.split(".")
    return f"L{layer}H{hook.partition('[')[2][:-1]}"
