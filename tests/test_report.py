"""The report of a run holds the run's own numbers, asks no network for anything, and names what is missing."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from chromium_path import CHROMIUM
from plotly.offline import get_plotlyjs
from tiny import tiny_config

import interp
from cython_vm import MachineSpec
from interp.circuits import CircuitConfig, find_circuits, read_circuit, write_circuit
from interp.figures.style import GRID, INK, MUTED
from interp.interventions import run_interventions
from interp.probing import probe_sweep
from interp.report import write_report
from interp.results import rows_frame, select
from interp.runs import provenance
from interp.training import evaluate, train
from interp.training.presets import transformer_for
from interp.worlds import as_world

VOID = {"meta", "input", "br"}


class Parsed(HTMLParser):
    """Text outside scripts and styles, attributes, and whether every tag is closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += data


def packed(page: str, name: str) -> str:
    found = re.search(rf'<script type="application/gzip" id="{name}">([^<]*)</script>', page)
    assert found
    return gzip.decompress(base64.b64decode(found[1])).decode()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """A run of one layer with everything measured on it, little of each; 6 slots make enough held-out programs."""
    folder = tmp_path_factory.mktemp("measured") / "little"
    spec = MachineSpec(n_instructions=6, n_cells=3, n_input=1, n_output=1, bits=1)
    shape = transformer_for("step_inplace", spec, n_layers=1, n_heads=2, d_model=16)
    run = train(
        replace(tiny_config(), world=as_world(spec), model=shape), folder, command="tapelens train --preset little"
    )
    model, task = run.model, run.task
    scores = rows_frame(evaluate(model, task, n=300, seed=2).to_dict("records"))
    run.write_frame("metrics", pd.concat([run.frame("metrics"), scores], ignore_index=True))
    untrained = run.untrained_model()
    places = ["cells[@array_ptr]", "{"]
    sweep = probe_sweep(model, task, untrained=untrained, variables=["op", "result"], positions=places, n=240)
    run.write_frame("probes", rows_frame(sweep.rows))
    rows = run_interventions(
        model, task, variables=["operand"], position_sets=["cells[@array_ptr]", "all"], n_pairs=32, untrained=untrained,
        subspaces={},
    )  # fmt: skip
    run.write_frame("interventions", rows_frame(rows))
    config = CircuitConfig(n_pairs=32, steps=2, n_sizes=3, n_null=2, n_null_pairs=8, n_exact=4, n_exact_pairs=32)
    circuits, rows = find_circuits(model, task, ops=["NEXT", "INC"], config=config)
    for circuit in circuits:
        write_circuit(folder / "circuits" / f"{circuit.op}.json", circuit, provenance=provenance(run.config))
    run.write_frame("circuits", rows_frame(rows))
    return run


@pytest.fixture(scope="module")
def page(measured: interp.Run) -> str:
    path = write_report(measured)
    assert path == measured.path / "report.html"
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_asks_for_nothing(page: str) -> None:
    parsed = Parsed(page)
    assert parsed.open == []
    for tag, attributes in parsed.attributes:
        assert tag not in {"link", "iframe", "img", "object"} and "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    outside = re.sub(r'<script type="application/gzip".*?</script>', "", page, flags=re.S)
    assert "http:" not in outside and "https:" not in outside
    policy = next(a["content"] or "" for _, a in parsed.attributes if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "connect-src" not in policy
    assert len(page.encode()) < 2_500_000
    ids = [attributes["id"] for _, attributes in parsed.attributes if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_drawings_travel_in_the_page(page: str) -> None:
    assert packed(page, "plotly") == get_plotlyjs()
    drawings = [json.loads(text) for text in json.loads(packed(page, "figures"))]
    plots = [attributes for _, attributes in Parsed(page).attributes if "data-figure" in attributes]
    assert [int(plot["data-figure"] or -1) for plot in plots] == list(range(len(drawings)))
    assert all(plot["aria-label"] for plot in plots)
    text = json.dumps(drawings)
    for color in (INK, MUTED, GRID):  # the script exchanges these in a dark theme
        assert color in text and page.count(f'"{color}": "--') == 1


def test_the_page_says_what_was_measured(measured: interp.Run, page: str) -> None:
    text = Parsed(page).text
    config = measured.config
    parameters = sum(tensor.numel() for tensor in measured.model.state_dict().values())
    assert (
        config.digest in text
        and f"{parameters:,}" in text
        and "torch" in text
        and "tapelens train --preset little" in text
    )
    assert "30 steps of 8 records" in text
    metrics = measured.frame("metrics")
    macro = select(metrics, aggregation="macro", n=300)["estimate"].item()
    assert f"{100 * macro:.2f} %" in text and "n = 300 held out" in text
    circuit, _ = read_circuit(measured.path / "circuits" / "INC.json")
    chosen = next(point for point in circuit.faithfulness if point.n_edges == circuit.size)
    assert f"reach faithfulness {chosen.estimate:.2f} [{chosen.ci_low:.2f}, {chosen.ci_high:.2f}]" in text
    assert f"{circuit.size} of {len(circuit.edges)}" in text


def cells(page: str, heading: str) -> list[list[str]]:
    """The rows of the table that has this column, as text."""
    for part in re.findall(r"<table.*?</table>", page, flags=re.S):
        if f">{heading}</th>" in part:
            lines = re.findall(r"<tr>(.*?)</tr>", part, flags=re.S)
            found = [re.findall(r"<t[hd].*?</t[hd]>", line) for line in lines]
            return [[" ".join(re.sub(r"<[^>]+>|&nbsp;", " ", cell).split()) for cell in line] for line in found]
    raise AssertionError(f"no table has the column {heading}")


def test_the_accuracy_table_holds_the_final_evaluation(measured: interp.Run, page: str) -> None:
    found = {(line[0].split()[-1], line[1]): line[2:5] for line in cells(page, "wrong")[1:]}
    metrics = measured.frame("metrics")
    first = int(select(metrics, aggregation="macro", n=300).index[0])
    last = metrics.iloc[first:]
    expected = {
        (row["op"], row["stratum"].replace("_", " ").lower()): [
            f"{row['n']:,}",
            f"{round((1 - row['estimate']) * row['n'])}",
            f"{100 * row['estimate']:.2f} %",
        ]
        for row in select(last, metric="exact_match", aggregation="mean").to_dict("records")
    }
    assert found == expected


def test_the_best_probe_is_the_most_selective_inside_the_model(measured: interp.Run, page: str) -> None:
    probes = measured.frame("probes")
    inside = probes.loc[probes["site"] != "blocks.0.hook_resid_pre"]
    for line in cells(page, "best read at")[1:]:
        rows = select(inside, variable=line[0], control=None)
        best = select(rows, metric="selectivity").sort_values("estimate").iloc[-1]
        same: dict[str, Any] = {"variable": line[0], "site": best["site"], "position": best["position"]}
        accuracy = select(rows, metric="accuracy", **same)["estimate"].item()
        control = select(inside, metric="accuracy", control="control_task", **same)["estimate"].item()
        assert line[1].startswith(best["position"]) and line[2].startswith(f"{accuracy:.2f} [")
        selectivity = f"{best['estimate']:.2f} [".replace("-", "−")
        assert line[3] == f"{control:.2f}" and line[-2].startswith(selectivity)


def test_the_drawn_probes_are_those_of_the_frame(measured: interp.Run, page: str) -> None:
    drawings = [json.loads(text) for text in json.loads(packed(page, "figures"))]
    heatmap = next(d for d in drawings if d["layout"]["title"]["text"].startswith("Read off at {"))["data"][0]
    rows = select(measured.frame("probes"), metric="accuracy", control=None, position="{", variable="result")
    assert heatmap["z"][heatmap["y"].index("result")] == pytest.approx(rows["estimate"].tolist(), rel=1e-4)


def test_ceilings_are_not_offered_as_findings(page: str) -> None:
    """One layer: every place is before the first layer or after the last, so there is no proper swap to report."""
    assert "best swapped at" not in page and "Causes." not in page and "swapped at" in page


def test_an_instruction_without_a_circuit_names_its_command(page: str) -> None:
    text = Parsed(page).text
    assert "no circuit of DEC yet" in text and "--ops DEC" in text and "--ops INC" not in text


def test_the_same_files_give_the_same_page(measured: interp.Run, page: str) -> None:
    assert write_report(interp.load(measured.path)).read_text(encoding="utf-8") == page
    assert not list(measured.path.glob(".*"))


def test_no_page_tells_where_the_run_lies(measured: interp.Run, page: str) -> None:
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert str(measured.path.parent) not in outside


def test_what_is_missing_or_foreign_names_the_command(measured: interp.Run, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(measured.path / "config.json", bare)
    text = Parsed(write_report(interp.load(bare)).read_text(encoding="utf-8")).text
    for command in ("train --out bare --resume", "probe bare", "patch bare", "circuit bare"):
        assert f"tapelens {command}" in text
    assert "plotly" not in text

    shutil.copy(measured.path / "probes.parquet", bare / "probes.parquet")
    (bare / "interventions.parquet").write_bytes(b"PAR1 cut")
    (bare / "circuits").mkdir()
    circuit, found = read_circuit(measured.path / "circuits" / "NEXT.json")
    write_circuit(bare / "circuits" / "NEXT.json", circuit, provenance={**found, "digest": "0123456789abcdef"})
    (bare / "circuits" / "INC.json").write_text("{", encoding="utf-8")
    text = Parsed(write_report(interp.load(bare)).read_text(encoding="utf-8")).text
    assert "best read at" in text and "not a readable Parquet file" in text
    assert "found under config 0123456789abcdef" in text and "tapelens circuit bare --ops NEXT --fresh" in text
    assert "is not a whole circuit file" in text and str(tmp_path) not in text


def test_numbers_of_older_weights_are_marked(measured: interp.Run, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(measured.path, folder)
    run = interp.load(folder)
    run.step = 10  # as if probed before training went on
    run.write_frame("probes", run.frame("probes"))
    text = Parsed(write_report(interp.load(folder)).read_text(encoding="utf-8")).text
    assert "measured at training step 10, but the weights are those of step 30" in text


@pytest.mark.browser
@pytest.mark.xdist_group("browser")
@pytest.mark.skipif(CHROMIUM is None and os.environ.get("CI") != "true", reason="no Chromium on this machine")
def test_a_browser_draws_every_visible_figure_in_both_themes(measured: interp.Run, page: str, chromium: Any) -> None:
    seen: list[str] = []
    tab = chromium.new_page(color_scheme="light")
    tab.on("request", lambda request: seen.append(request.url))
    tab.on("pageerror", lambda error: seen.append(f"error {error}"))
    tab.goto((measured.path / "report.html").as_uri())
    drawn = """theme => plots.filter(plot => plot.offsetParent).every(plot =>
        plot.dataset.drawn === theme && plot.querySelector(".main-svg")
        && !plot.textContent.includes("could not be made"))"""
    tab.wait_for_function(drawn, arg="false", timeout=60_000)
    ink = "plots[0]._fullLayout.font.color"
    light = tab.evaluate(ink)
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_function(drawn, arg="true", timeout=60_000)
    assert light.lower() == INK.lower() and tab.evaluate(ink).lower() not in ("", INK.lower())
    tab.get_by_text("{", exact=True).first.click()  # another position of the probes
    tab.wait_for_function(drawn, arg="true", timeout=60_000)
    assert tab.locator("#probes .plot .main-svg").last.is_visible()
    tab.close()
    assert seen == [(measured.path / "report.html").as_uri()]
