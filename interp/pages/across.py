"""The part of a comparison that several models share: how they keep the tape, and whether what is read is used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from interp.pages.across_seeds import seed_sections, seed_sentences
from interp.pages.across_sources import source_sections, source_sentence
from interp.pages.markdown import table
from interp.runs import Run
from interp.studies.across import Kept, addressing, correlation, kept, mean_over_models, rank_over_models
from interp.studies.source_tables import sources_of

FEWEST = 3  # runs of one task, below which nothing is said of several models
_CLEAR = 0.5  # of a rank correlation over models
NOT_ASKED = "–"


class Across:
    """What was measured of several runs of one task, for the page and its picture."""

    def __init__(self, runs: Sequence[Run], seeds: pd.DataFrame | None = None):
        self.runs, self.seeds = list(runs), seeds
        self.kept = [kept(run) for run in runs]
        self.correlations = [found for run in runs if (found := correlation(run)) is not None]
        self.sources = {run.name: found for run in runs if (found := sources_of(run)) is not None}

    @property
    def pictured(self) -> bool:
        """Whether there is something to draw."""
        return len(self.lengths) >= 2 or any(each.relative for each in self.kept)

    @property
    def lengths(self) -> list[str]:
        """Lengths of runs that every model with any was measured at, the trained one first."""
        measured = [each.longer for each in self.kept if each.longer]
        return [name for name in (measured[0] if measured else {}) if all(name in each for each in measured)]

    def opening(self) -> list[str]:
        """What the page is about."""
        kinds = len({run.config.model.architecture for run in self.runs})
        return [
            f"{len(self.runs)} models of {kinds} architecture{'' if kinds == 1 else 's'} were asked the same questions "
            "about the same world: what is right, also on longer runs; what a probe can read inside; what the model "
            "uses of it; what it carries from token to token."
        ]

    def sentences(self) -> list[str]:
        """What was found, for a person; one a question that was asked."""
        told = (
            self._of_length(),
            self._of_addressing(),
            self._of_size(),
            self._of_reading(),
            source_sentence(self.sources),
        )
        further = () if self.seeds is None else seed_sentences(self.seeds)
        return [said for said in (*told, *further) if said]

    def _of_length(self) -> str:
        lengths = self.lengths
        if len(lengths) < 2:
            return ""
        far = lengths[-1]
        some = sorted((each for each in self.kept if each.longer), key=lambda each: -each.longer[far])
        first, last = some[0], some[-1]
        return (
            f"On runs of {far}, where they were trained on {lengths[0]}, `{first.run}` still gets "
            f"{100 * first.longer[far]:.1f} % of answers right and `{last.run}` {100 * last.longer[far]:.1f} %."
        )

    def _of_addressing(self) -> str:
        some = [each for each in self.kept if each.absolute and each.relative]
        if not some:
            return ""
        words: dict[str, list[str]] = {"relative": [], "absolute": [], "both": [], "neither": []}
        for each in some:
            words[addressing(each)].append(f"`{each.run}`")
        told = [
            f"{_listed(names)} {'keeps' if len(names) == 1 else 'keep'} cells {phrase}"
            for kind, phrase in (
                ("relative", "by their distance from the pointer"),
                ("absolute", "by their place"),
                ("both", "in a way that fits both as well"),
            )
            if (names := words[kind])
        ]
        if words["neither"]:
            told.append(f"of {_listed(words['neither'])} no part was found that moves a cell and leaves the rest")
        return f"What is exchanged between two streams says how the tape is kept: {'; '.join(told)}."

    def _of_size(self) -> str:
        pairs = [(each.carried, each.old[1]) for each in self.kept if each.carried is not None and each.old is not None]
        rho = rank_over_models([(float(size), share) for size, share in pairs])
        if math.isnan(rho):
            return ""
        verdict = "goes with" if rho > _CLEAR else "goes against" if rho < -_CLEAR else "says little of"
        return (
            f"How many numbers a model carries {verdict} how well it answers about the oldest values "
            f"(rank correlation {_signed(rho)} over {len(pairs)} models)."
        )

    def _of_reading(self) -> str:
        if len(self.correlations) < FEWEST:
            return ""
        mean, low, high = mean_over_models(self.correlations)
        clear = "tells what is used" if mean > _CLEAR else "tells a little of what is used"
        verdict = clear if low > 0 else "tells nothing about what is used" if high > 0 else "misleads"
        return (
            f"Within a model, where a variable can be read {verdict}: rank correlation {_signed(mean)} "
            f"[{_signed(low)}, {_signed(high)}] over variables and layers, the mean of {len(self.correlations)} models."
        )

    def sections(self) -> list[str]:
        """The tables behind the sentences, in Markdown."""
        parts = []
        if len(self.lengths) >= 2:
            lines = [
                [each.run, *(f"{100 * each.longer[name]:.2f}" for name in self.lengths)]
                for each in self.kept
                if each.longer
            ]
            parts += [
                "## Do they hold beyond the trained length?",
                "Exact match, %, macro average over op × outcome, of held-out runs of at most so many executed "
                "instructions, on a machine with room for them; the first length is the trained one.",
                table(("", *self.lengths), lines),
            ]
        some = [each for each in self.kept if each.absolute or each.relative or each.old]
        if some:
            parts += [
                "## How is the tape kept, and how far does that reach?",
                "*By place* and *by distance*: for cells named each way, what the best part of the carrier moves and "
                "leaves (the lesser of the two; strongest null in brackets). *Carried*: numbers that go on past a "
                "token; of attention, keys and values of what came before. *Oldest values*: answers whose value was "
                "told that long ago.",
                table(
                    ("", "carried", "by place", "by distance", "kept", "oldest values", "right, %"),
                    [_kept_line(each) for each in some],
                ),
            ]
        if self.correlations:
            parts += [
                "## Does what is readable tell what is used?",
                "Of each model, over its variables and the hooks between its layers: how far the best probe stands "
                "above its strongest control, against how far the best swap stands above the model left alone. "
                "Exploratory: it was not predicted.",
                table(
                    ("", "rank correlation", "variables × hooks"),
                    [[each.run, _signed(each.rho), str(each.n)] for each in self.correlations],
                ),
            ]
        parts += source_sections(self.sources)
        return parts if self.seeds is None else parts + seed_sections(self.seeds)


def _kept_line(each: Kept) -> list[str]:
    pairs = [NOT_ASKED if pair is None else f"{pair[0]:.2f} ({pair[1]:.2f})" for pair in (each.absolute, each.relative)]
    verdict = addressing(each) if each.absolute and each.relative else NOT_ASKED
    words = {"relative": "by distance", "absolute": "by place"}.get(verdict, verdict)
    old = (NOT_ASKED, NOT_ASKED) if each.old is None else (each.old[0], f"{100 * each.old[1]:.2f}")
    return [each.run, NOT_ASKED if each.carried is None else f"{each.carried:,}", *pairs, words, *old]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")
