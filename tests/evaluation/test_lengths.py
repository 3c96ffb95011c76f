"""Length generalisation: what is trained, what is tested, and that a second call continues."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from cython_vm import MachineSpec
from interp.models import build_model
from interp.pages.lengths import lengths_page, write_lengths_page
from interp.results import Control, Metric, read_frame, records, rows_frame, select
from interp.studies import lengths
from interp.studies.lengths import ENCODINGS, LengthsConfig, copy_rows, measure_lengths, positions
from interp.tasks import TASKS
from interp.worlds import as_world

SMALL = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=2)
CONFIG = LengthsConfig(
    world=as_world(SMALL),
    longer=as_world(replace(SMALL, n_instructions=8, n_cells=6, n_input=2, n_output=2)),
    encodings=("learned", "block_shifted"),
    steps=6,
    batch_size=8,
    n_layers=1,
    d_model=16,
    n_states=120,
)


def test_each_size_grows_alone_and_then_all() -> None:
    tests = LengthsConfig().tests()
    assert list(tests) == [
        "trained",
        *(f"{group} {factor}" for group in ("program", "tape", "buffers", "all") for factor in ("×1.5", "×2")),
    ]
    trained = MachineSpec(n_instructions=6, n_cells=4, n_input=2, n_output=2, bits=3)
    assert tests["trained"] == as_world(trained) and tests["tape ×2"] == as_world(replace(trained, n_cells=8))
    assert tests["all ×2"] == LengthsConfig().longer


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_scheme_reaches_the_longest_machine(encoding: str) -> None:
    """An untrained model in the larger context gives logits for it, and nothing but positions differs."""
    config = CONFIG.run_config(encoding)
    model = build_model(config.model).eval()
    model.vocab = SMALL.vocab
    cfg = positions(model.cfg, encoding, CONFIG.longer, longest=CONFIG.longer)
    task = TASKS["step_inplace"](CONFIG.longer)
    answer = task.answer(lengths.resize(model, cfg).eval(), task.sample(4, seed=0))
    assert tuple(answer.shape) == (4, task.n_ctx)


def test_copying_scores_what_stands_still() -> None:
    rows = copy_rows(replace(CONFIG, n_states=400))
    assert {row["control"] for row in rows} == {Control.COPY}
    exact = [row["estimate"] for row in rows if row["metric"] == Metric.EXACT_MATCH]
    assert all(
        7 / 15 <= share < 9 / 15 for share in exact
    )  # 7 of 15 strata freeze or halt, and empty loops stand still
    assert {row["estimate"] for row in rows if row["metric"] == Metric.CHANGED_TOKEN_ACCURACY} == {0.0}


def test_a_second_call_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []
    train = lengths.train

    def counted(config, folder: Path, **options):
        trained.append(folder.name)
        return train(config, folder, **options)

    monkeypatch.setattr(lengths, "train", counted)
    seen: list[float] = []
    measure_lengths(tmp_path, replace(CONFIG, encodings=("learned",)), progress=lambda done, *_: seen.append(done))
    assert trained == ["learned"] and seen == sorted(seen)
    rows = measure_lengths(tmp_path, CONFIG)
    assert trained == ["learned", "block_shifted"]
    assert measure_lengths(tmp_path, CONFIG).equals(rows) and len(trained) == 2
    n_tests = len(CONFIG.tests())
    assert rows.groupby("run").size().to_dict() == dict.fromkeys(("copy", "learned", "block_shifted"), 2 * n_tests)
    tables = re.findall(r"((?:^\|.*\n)+)", lengths_page(rows, CONFIG), flags=re.MULTILINE)
    assert len(tables) == 2
    for table, metric in zip(tables, (Metric.EXACT_MATCH, Metric.CHANGED_TOKEN_ACCURACY), strict=True):
        header, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
        found = {(cells[0].strip("`"), test): cells[at] for cells in lines for at, test in enumerate(header) if at}
        for row in records(select(rows, metric=metric)):
            name = "copying the input" if row["run"] == "copy" else row["run"]
            assert found[name, row["stratum"]] == f"{100 * row['estimate']:.1f}"


@pytest.mark.parametrize(
    ("learned", "says"),
    [
        (0.9, "`learned` keeps most: 90.0% exact match, where copying the input has 50.0%"),
        (0.5, "no scheme gets more whole states right than copying the input does, 50.0%; the best is `learned`"),
    ],
)
def test_the_summary_says_who_keeps_most(learned: float, says: str) -> None:
    hardest = list(CONFIG.tests())[-1]
    scores = {"copy": (0.5, 0.0), "learned": (learned, 0.1), "block_shifted": (0.4, 0.8)}
    rows = rows_frame(
        {"run": run, "stratum": hardest, "metric": metric, "estimate": value, "ci_low": value, "ci_high": value, "n": 9}
        for run, values in scores.items()
        for metric, value in zip((Metric.EXACT_MATCH, Metric.CHANGED_TOKEN_ACCURACY), values, strict=True)
    )
    page = lengths_page(rows, CONFIG)
    assert f"{says}. Of the tokens that the step changes, `block_shifted` gets most right there, 80.0%." in page


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"encodings": ("alibo",)}, "no positional scheme 'alibo'"),
        ({"longer": replace(SMALL, n_cells=2)}, "longer.n_cells must be at least 3, got 2"),
        ({"longer": replace(SMALL, bits=3)}, "must have the vocabulary"),
    ],
)
def test_bad_configs_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        replace(CONFIG, **changes)


def test_the_published_page_and_picture_are_what_their_rows_say(tmp_path: Path) -> None:
    """docs/length_generalisation.parquet holds them; `tapelens lengths --publish` writes all three."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    rows = read_frame(docs / "length_generalisation.parquet")
    schemes = tuple(name for name in dict.fromkeys(rows["run"]) if name != "copy")
    write_lengths_page(tmp_path, rows, LengthsConfig(encodings=schemes))
    for made in tmp_path.iterdir():
        assert made.read_text(encoding="utf-8") == (docs / made.name).read_text(encoding="utf-8"), made.name
    assert (
        "![Exact match by scheme and machine](length_generalisation.svg)"
        in (docs / "length_generalisation.md").read_text()
    )
