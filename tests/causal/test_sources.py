"""Where values come from: tokens and histories against a plain reading of the stream, shares of known weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from interp.pages.across_sources import source_sections, source_sentence
from interp.reading import RunError
from interp.results import Control, Metric, records, select
from interp.runs.further_frames import SOURCES
from interp.studies.source_tables import source_sentences, source_table, sources_of, summed
from interp.studies.sources import measure_sources
from interp.tasks.value_sources import COUNTED, HISTORIES, KINDS, NEVER, OVERWRITTEN, READ_IN

CHECKPOINTS = Path(interp.__file__).parents[1] / "checkpoints"


@pytest.fixture(scope="module")
def gru():
    return interp.load(CHECKPOINTS / "trace_small_gru")


@pytest.fixture(scope="module")
def transformer():
    return interp.load(CHECKPOINTS / "trace_small")


OPS = ("NEXT", "PREV", "INC", "DEC", "PUT", "GET", "WHILE", "ENDW", "STOP")
CHANGES = ("INC", "DEC", "GET")


def by_reading(words: list[str]) -> dict[int, tuple[str, bool, list[str]]]:
    """Of each PUT of a stream, by its position: history, whether its value was not told since, the kind of each token.

    Read from left to right, with a list of what happened to each cell since GET set it, and one of what lies before.
    """
    steps: list[tuple[str, list[int]]] = []
    for position, word in enumerate(words[1:], 1):
        if word in OPS:
            steps.append((word, []))
        if word == "}":
            break
        steps[-1][1].append(position)
    found, pointer, moves = {}, 0, []
    since: list[list[tuple[str, list[int]]]] = [[] for _ in range(8)]
    before: list[list[tuple[str, list[int]]]] = [[] for _ in range(8)]
    for op, at in steps:
        if op == "PUT":
            kinds = ["itself"] + ["other cells"] * (at[0] - 1) + ["itself"]
            changes = [i for i, (each, _) in enumerate(since[pointer]) if each in CHANGES]
            for i, (_, places) in enumerate(since[pointer]):
                for place in places:
                    kinds[place] = "told" if not changes or i > changes[-1] else "made"
            for _, places in before[pointer]:
                for place in places:
                    kinds[place] = "overwritten"
            for place in moves:
                kinds[place] = "moves"
            got = any(each == "GET" for each, _ in since[pointer])
            lost = any(each in CHANGES for each, _ in before[pointer])
            history = NEVER if not changes else COUNTED if not got else OVERWRITTEN if lost else READ_IN
            found[at[0]] = (history, "told" not in kinds, kinds)
        if op in ("NEXT", "PREV"):
            moves += at
            pointer += 1 if op == "NEXT" else -1
        elif op == "GET":
            before[pointer] += since[pointer]
            since[pointer] = [(op, at)]
        else:
            since[pointer].append((op, at))
    return found


def test_kinds_and_histories_are_those_of_the_stream(gru) -> None:
    task = gru.task
    streams = task.render(task.draw(60, seed=5))
    asked = task.value_sources(streams)
    seen: set[str] = set()
    for row in range(len(streams)):
        told = by_reading([task.vocab[int(token)] for token in streams.tokens[row]])
        mine = np.flatnonzero(asked.row == row)
        assert {int(asked.position[each]) for each in mine} <= set(told)
        for each in mine:
            history, untold, kinds = told[int(asked.position[each])]
            found = asked.kinds[each]
            assert [KINDS[kind] for kind in found[: len(kinds)]] == kinds and (found[len(kinds) :] == -1).all()
            assert HISTORIES[asked.history[each]] == history and asked.untold[each] == untold
            seen |= {history, *kinds}
    assert seen >= {*HISTORIES, *KINDS}


def test_a_head_that_looks_at_itself_reads_itself(transformer) -> None:
    def inwards(pattern: torch.Tensor, hook) -> torch.Tensor:
        return torch.eye(pattern.shape[-1]).expand_as(pattern).clone()

    name = "blocks.1.attn.hook_pattern"
    with transformer.model.hooks(fwd_hooks=[(name, inwards)]):
        rows = measure_sources(transformer, n=40)
    shares = select(rows, metric=Metric.ATTENTION, control=None)
    for row in records(select(shares, site=f"{name}[2]")):
        assert row["estimate"] == pytest.approx(float(row["part"] == "itself"), abs=1e-6)
    other = {row["part"]: row["estimate"] for row in records(select(shares, site="blocks.3.attn.hook_pattern[2]"))}
    assert other["itself"] < 0.9


def test_shares_sum_to_one_and_even_ones_are_those_of_tokens(gru) -> None:
    task = gru.task
    streams = task.render(task.draw(20, seed=5))
    asked = task.value_sources(streams)
    weights = np.random.default_rng(0).normal(size=(len(asked.row), 3, task.n_ctx))
    np.testing.assert_allclose(asked.shares(weights).sum(-1), 1)
    even = asked.shares(np.ones((len(asked.row), 1, task.n_ctx)))[0, 0]
    position = int(asked.position[0])
    for kind in range(len(KINDS)):
        assert even[kind] == pytest.approx((asked.kinds[0] == kind).sum() / (position + 1))


def test_one_that_answers_rightly_is_right_whatever_the_history(gru, monkeypatch) -> None:
    """The machine's own answers, as logits, in the place of the model's; and none of them."""
    task = gru.task

    def run(tokens, names_filter):
        batch = task.render(task.draw(50, seed=2))
        assert (batch.tokens == tokens).all()
        said = torch.where(batch.targets < 0, 0, batch.targets)
        return torch.nn.functional.one_hot(said, len(task.vocab)).float(), {}

    monkeypatch.setattr(gru.model, "run_with_cache", run)
    rows = select(measure_sources(gru, n=50), metric=Metric.TOKEN_ACCURACY)
    assert {row["stratum"]: row["estimate"] for row in records(rows)} == dict.fromkeys(HISTORIES, 1.0)


def test_the_verb_keeps_rows_and_tells_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from interp.cli import main

    folder = Path(shutil.copytree(CHECKPOINTS / "trace_small_delta", tmp_path / "run"))
    (folder / "sources.parquet").unlink()
    assert sources_of(interp.load(folder)) is None
    main(["sources", str(folder), "--n", "80", "--threads", "1"])
    told = " ".join(capsys.readouterr().out.split())
    rows = SOURCES.read(interp.load(folder))
    found = summed(rows)
    assert found.head is not None and "linear_attn" in found.head.site
    assert {row["control"] for row in records(select(rows, site=None, metric=Metric.ATTENTION))} == {Control.EVEN}
    for sentence in source_sentences(rows):
        assert sentence in told
    assert source_table(rows).row_count == 4 * 4 + 1
    assert f"({found.n[OVERWRITTEN]:,})" in source_sections({"a": found})[2]
    assert f"{100 * found.head.made:.0f} %" in source_sentence({"a": found})


def test_tasks_without_streams_are_refused() -> None:
    with pytest.raises(RunError, match="the task output asks for no value that an earlier"):
        measure_sources(interp.load(CHECKPOINTS / "output_looped"), n=4)
