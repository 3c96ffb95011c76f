"""docs/strings.md: what models of rule strings write, how near the rule they are, what they use; from rows alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from interp.files import write_text
from interp.pages.strings_drawings import embeddings_drawing, floors_drawing, phases_drawing
from interp.reading import BrokenFileError, read_json
from interp.results import Metric, read_frame, records, select
from interp.runs import Run
from interp.worlds.strings import Sticky, context_floor, uniform_share

ORDERS = (1, 2, 3, 4)  # of sticky, in the table of floors


def write_strings_page(runs: Sequence[Run], folder: Path) -> Path:
    """Write strings.md and its figures about runs that `tapelens sample-text --save` measured; returns its path.

    Raises:
        FileNotFoundError: a run without texts.parquet.
    """
    path, texts = folder / "strings.md", {run.name: read_frame(run.path / "texts.parquet") for run in runs}
    sticky = [run for run in runs if of_rule(run, "sticky")]
    floors = {n: [context_floor(Sticky(n=n), k) for k in range(7)] for n in ORDERS}
    measured = {run.name: _values(texts[run.name]) for run in runs}
    points = [
        (run.config.world.rule.n, _context(run), measured[run.name]["kl"], run.name)  # type: ignore[attr-defined]
        for run in sticky
    ]
    write_text(folder / "strings_floors.svg", floors_drawing(floors, points))
    language = {run.name: frame for run in runs if (frame := _language(run)) is not None}
    parts = [
        "# Rule strings",
        _opening(runs, sticky, measured, floors),
        "![KL to the rule against how many characters a model sees](strings_floors.svg)",
        "Written by `tapelens strings-page`; every number comes from rows (`texts.parquet`, `language.parquet`, "
        "`probes.parquet`, `interventions.parquet` of each run) or is worked out from the rule itself.",
        "## What models write",
        _table(runs, measured, floors),
        "*allowed*: share of sampled texts that the rule allows; *new*: share of these that training never showed; "
        "*different*: share of texts that are not repeats; each beside the rule's own sampler, and *random* beside it: "
        "the share of uniformly drawn texts of the same length that the rule allows. KL and the mass on forbidden "
        "characters are nats and probability a character: *exact* ones are sums over every prefix with its exact "
        "probability, the others means over held-out strings.",
        "## What a shorter context costs, by the rule's chain",
        _floor_table(floors),
        "Least KL, in nats a character, that any model of the last k characters can have (and the mass that the best "
        "one puts on forbidden characters), strings of 12 characters. N + 1 characters are exactly enough.",
        _uniform(),
        *_order(language),
        *_phases(folder, runs, language),
        *_inside(folder, sticky),
        "## Again, with another seed",
        "```\n" + "\n".join(_commands(runs)) + "\n```",
    ]
    write_text(path, "\n\n".join(part for part in parts if part) + "\n")
    return path


def of_rule(run: Run, name: str) -> bool:
    """Whether a run is about strings of the named rule, by what its config says."""
    return run.config.world.to_dict().get("rule") == name


def _context(run: Run) -> int | None:
    """How many characters the run's architecture sees; None: all."""
    return getattr(run.config.model, "context", None)


def _values(rows: pd.DataFrame) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in records(rows):
        control = "" if row["control"] is None else f" {row['control']}"
        found[f"{row['metric']}{control}"] = row["estimate"]
        found[f"n {row['metric']}{control}"] = row["n"]
        if row["metric"] == Metric.KL:
            found["exact"] = row["method"] == "exact_conditional"
    return found


def _language(run: Run) -> pd.DataFrame | None:
    try:
        return read_frame(run.path / "language.parquet")
    except (FileNotFoundError, BrokenFileError):
        return None


def _opening(
    runs: Sequence[Run],
    sticky: Sequence[Run],
    measured: dict[str, dict[str, Any]],
    floors: dict[int, list[dict[str, float]]],
) -> str:
    """What a person would say of the page."""
    said = [
        f"Small models learn to write strings that obey a rule, {len(runs)} of them here; since the rule is known, how "
        "far a model is from it is worked out and not guessed."
    ]
    said += _found(sticky, measured, floors)
    order = next((run.config.world.rule.n for run in sticky), ORDERS[1])  # type: ignore[attr-defined]
    said.append(
        f"To obey the rule N = {order} a model must see {order + 1} characters: with {order} it stays "
        f"{floors[order][order]['kl']:.2f} nats a character away from it, however good it is, and with none "
        f"{floors[order][0]['kl']:.2f}."
    )
    shares = {run.name: measured[run.name]["in_distribution random_text"] for run in runs}
    least = min(shares, key=lambda name: shares[name])
    said.append(
        f"Obeying is no accident where it is rare: of texts drawn uniformly {shares[least]:.1%} obey the rule of "
        f"`{least}`."
    )
    return " ".join(said)


def _found(
    sticky: Sequence[Run], measured: dict[str, dict[str, Any]], floors: dict[int, list[dict[str, float]]]
) -> list[str]:
    sentences = []
    whole = [run for run in sticky if _context(run) is None]
    for run in [run for run in sticky if run not in whole[1:]]:
        rule, mine = run.config.world.rule, measured[run.name]  # type: ignore[attr-defined]
        seen = _context(run)
        if seen is None:
            sentences.append(
                f"Of {mine['n in_distribution']:,} texts that `{run.name}` writes, a {run.config.model.architecture} "
                f"of {_size(run):,} parameters, {mine['in_distribution']:.2%} obey the rule N = {rule.n}, and "
                f"{mine['novelty']:.1%} of these are new (of the rule's own {mine['novelty exact_sampler']:.1%})."
            )
            sentences.append(
                f"Its distribution is {mine['kl']:.5f} nats a character away from the rule's and puts "
                f"{mine['illegal_mass']:.1e} on forbidden characters."
            )
            sentences += _alike(whole[1:], measured)
        elif rule.length == 12 and rule.n in floors:
            floor = floors[rule.n][seen]["kl"]
            enough = "as many as suffice" if seen > rule.n else f"fewer than the {rule.n + 1} that suffice"
            characters = f"{seen} character{'s' if seen > 1 else ''}"
            sentences.append(
                f"The run `{run.name}` sees {characters}, {enough}: {mine['kl']:.4f} nats, where the chain says that "
                f"no model of {seen} can do better than {floor:.4f}."
            )
    return sentences


def _alike(others: Sequence[Run], measured: dict[str, dict[str, Any]]) -> list[str]:
    """Further models that see the whole string, in one sentence."""
    if not others:
        return []
    found = [measured[run.name] for run in others]
    orders = ", ".join(str(run.config.world.rule.n) for run in others)  # type: ignore[attr-defined]
    obey, far, forbidden = (
        (min(mine[name] for mine in found), max(mine[name] for mine in found))
        for name in ("in_distribution", "kl", "illegal_mass")
    )
    return [
        f"The same for N = {orders}: {obey[0]:.2%} to {obey[1]:.2%} obey, {far[0]:.5f} to {far[1]:.5f} nats away, "
        f"{forbidden[0]:.1e} to {forbidden[1]:.1e} on forbidden characters."
    ]


def _size(run: Run) -> int:
    return sum(parameter.numel() for parameter in run.model.parameters())


def _table(runs: Sequence[Run], measured: dict[str, dict[str, Any]], floors: dict[int, list[dict[str, float]]]) -> str:
    head = "| run | strings | parameters | context | KL | floor | forbidden | allowed | new | different | random |"
    lines = [head, "| --- | --- |" + " ---: |" * 9]
    for run in runs:
        mine, world, seen = measured[run.name], run.config.world, _context(run)
        rule = world.rule  # type: ignore[attr-defined]
        floor = "–"
        if of_rule(run, "sticky"):
            floor = f"{context_floor(rule, min(seen, rule.length))['kl']:.4f}" if seen is not None else "0"
        shares = [
            f"{mine.get(metric, np.nan):.1%} ({mine.get(metric + ' exact_sampler', np.nan):.1%})"
            for metric in ("in_distribution", "novelty", "uniqueness")
        ]
        lines.append(
            f"| `{run.name}` | {world.in_words().removeprefix('strings ')} | {_size(run):,} | "
            f"{'all' if seen is None else seen} | {mine['kl']:.5f}{' exact' if mine['exact'] else ''} | {floor} | "
            f"{mine['illegal_mass']:.1e} | {' | '.join(shares)} | {mine['in_distribution random_text']:.1%} |"
        )
    return "\n".join(lines)


def _floor_table(floors: dict[int, list[dict[str, float]]]) -> str:
    n = len(next(iter(floors.values())))
    lines = ["| N | " + " | ".join(f"k = {k}" for k in range(n)) + " |", "| ---: |" + " ---: |" * n]
    for order, some in floors.items():
        cells = [f"{each['kl']:.4f} ({each['illegal']:.3f})" if each["kl"] > 1e-9 else "0" for each in some]
        lines.append(f"| {order} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _uniform() -> str:
    shares = [np.mean([uniform_share(Sticky(n=n, letters=26), size) for size in range(1, 11)]) for n in range(4)]
    return (
        "Validity alone says little of short texts: of uniformly drawn ones (62 characters, lengths 1 to 10 equally "
        "often, the last run may be cut) the loose rule allows "
        + ", ".join(f"{share:.1%} at N = {n}" for n, share in enumerate(shares))
        + "."
    )


def _order(language: dict[str, Any]) -> list[str]:
    names = {name: f for name, f in language.items() if (f.metric == Metric.TOTAL_VARIATION).any()}
    if not names:
        return []
    lags = sorted({int(lag) for f in names.values() for lag in f.lag.dropna()})
    lines = ["| run | | " + " | ".join(f"{lag + 1}" for lag in lags) + " |", "| --- | --- |" + " ---: |" * len(lags)]
    for name, frame in names.items():
        rows = records(select(frame, metric=Metric.TOTAL_VARIATION))
        for words, ruled in (("model", False), ("rule", True)):
            by_lag = {row["lag"]: row["estimate"] for row in rows if (row["control"] is not None) == ruled}
            lines.append(f"| `{name}` | {words} | " + " | ".join(f"{by_lag.get(k, np.nan):.3f}" for k in lags) + " |")
    return [
        "## The order of context that is used",
        "The k-th last character is exchanged for a random one; how far the distribution of the next one moves (total "
        "variation), for the model and for the rule. Most of these strings break the rule, so that a model may use "
        "more than it needs on strings that obey.",
        "\n".join(lines),
    ]


def _phases(folder: Path, runs: Sequence[Run], language: dict[str, Any]) -> list[str]:
    parts = []
    for run in runs:
        frame = language.get(run.name)
        if frame is None or not (frame.metric == Metric.INDUCTION).any():
            continue
        kl = frame[frame.metric == Metric.KL].pivot(index="checkpoint_step", columns="variable", values="estimate")
        heads = frame[frame.metric == Metric.INDUCTION].pivot(
            index="checkpoint_step", columns="site", values="estimate"
        )
        name = f"strings_phases_{run.name}.svg"
        write_text(folder / name, phases_drawing(kl, heads))
        kinds = ("uniform", "unigram", "bigram")
        nearest = {step: min(kinds, key=lambda kind, step=step: kl.at[step, kind]) for step in kl.index}
        first: dict[str, int] = {}
        for step, kind in nearest.items():
            if kind != "uniform":
                first.setdefault(kind, int(step))
        turns = ", ".join(f"the {each} from step {step:,}" for each, step in first.items())
        best, last = str(heads.iloc[-1].idxmax()), heads.iloc[-1]
        parts += [
            "## Phases of in-context learning",
            f"`{run.name}` begins nearest to the uniform distribution; the nearest of the three is then {turns}. At "
            f"the end it is {kl['bigram'].iloc[-1]:.4f} nats from the exact posterior of the bigram, "
            f"{kl['unigram'].iloc[-1]:.4f} from the unigram's. The head `{best}` ends with {last.max():.1%} of its "
            f"attention on what followed earlier uses of the last letter, where it began with "
            f"{heads[best].iloc[0]:.1%}.",
            f"![KL to three distributions, and induction by head, over training]({name})",
        ]
    return parts


def _inside(folder: Path, sticky: Sequence[Run]) -> list[str]:
    parts: list[str] = []
    for run in sticky:
        if not (hasattr(run.model, "W_E") and (run.path / "probes.parquet").exists()):
            continue
        rule = run.config.world.rule  # type: ignore[attr-defined]
        name = f"strings_embeddings_{run.name}.svg"
        vectors = run.model.W_E.detach().double().numpy()
        write_text(folder / name, embeddings_drawing(vectors, [*rule.alphabet, "^"], [*rule.class_of.tolist(), 3]))
        probes: Any = run.frame("probes")
        lines = ["| variable | where | probe | majority | embedding alone |", "| --- | --- | ---: | ---: | ---: |"]
        rows = probes[(probes.metric == Metric.ACCURACY) & probes.stratum.isna() & (probes.method == "logistic")]
        for (variable, site), by in _by_control(rows, ["variable", "site"]):
            cells = [f"{by[c]:.1%}" if c in by else "–" for c in ("", "majority_class", "embedding_only")]
            lines.append(f"| {variable} | `{site}` | " + " | ".join(cells) + " |")
        parts += [
            f"## Inside `{run.name}`",
            f"![Embeddings by class, two principal components]({name})",
            "\n".join(lines),
        ]
        if (run.path / "interventions.parquet").exists():
            swaps: Any = run.frame("interventions")
            swaps = swaps[(swaps.metric == Metric.IIA) & (swaps.stratum == "changes") & (swaps.method == "full_vector")]
            swaps = swaps[(swaps.pair_design == "independent") & swaps.op.isna()]
            table = [
                "| variable | where | position | IIA | unpatched | untrained |",
                "| --- | --- | --- | ---: | ---: | ---: |",
            ]
            for (variable, site, position), by in _by_control(swaps, ["variable", "site", "position"]):
                if "" not in by:
                    continue
                cells = [f"{by[c]:.3f}" if c in by else "–" for c in ("", "unpatched", "untrained_model")]
                table.append(f"| {variable} | `{site}` | {position} | " + " | ".join(cells) + " |")
            parts += [
                "Interchange, where it changes the answer. A whole vector brings the class of its character along, "
                "which base and source share in one pair of three: no such swap can do much better for `run`.",
                "\n".join(table),
            ]
    return parts


def _commands(runs: Sequence[Run]) -> list[str]:
    lines = []
    for run in runs:
        config = run.path / "config.json"
        command = read_json(config, "a run's config").get("command")
        if command:
            lines.append(f"{command.partition(' --out')[0]} --seed 1 --out runs/{run.name}_1")
    lines += ["tapelens sample-text runs/sticky_1 --n 10000 --save", "tapelens strings-page runs/sticky_1 --out runs"]
    return lines


def _by_control(rows: Any, keys: list[str]) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    """Rows in groups: what names the group, and its estimates by control, "" for the measured one."""
    groups: dict[tuple[str, ...], dict[str, float]] = {}
    for row in records(rows):
        groups.setdefault(tuple(row[key] for key in keys), {})[row["control"] or ""] = row["estimate"]
    yield from groups.items()
