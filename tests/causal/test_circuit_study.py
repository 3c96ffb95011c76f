"""`tapelens circuit` on a tiny run: every job writes its file, a second call measures nothing again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch

from interp.circuits import CircuitConfig, Graph
from interp.figures import along_curves, dissociation_matrices
from interp.pages.circuits import write_circuit_page
from interp.pages.circuits_interchange import failures, interchange_part
from interp.results import rows_frame
from interp.runs import STEPS, RunError, load, save_weights
from interp.runs.findings import finding_path, read_finding
from interp.stage_options import PatchOptions
from interp.studies.along import AlongConfig
from interp.studies.circuit_study import study
from interp.studies.dissociation import DissociationConfig
from interp.studies.evidence import EvidenceConfig
from interp.studies.patch_stage import patch_stage
from interp.studies.study_config import StudyConfig

SMALL = StudyConfig(
    circuit=CircuitConfig(
        n_pairs=16, steps=2, n_sizes=3, n_null=2, n_null_pairs=4, n_exact=4, n_exact_pairs=12, n_bootstrap=20
    ),
    levels=("node", "neuron", "subspace"),
    n_heads=1,
    n_role_pairs=10,
    n_exact_pairs=4,
    n_search_pairs=2,
    dissociation=DissociationConfig(n_nodes=1, n_neurons=4, n_directions=2, n_pairs=10, steps=2, n_null=2),
    evidence=EvidenceConfig(n_pairs=12, n_null=4, n_null_pairs=4, n_criteria_pairs=4, n_resamples=4, steps=2),
    checkpoints=AlongConfig(n_pairs=8, steps=2, n_sizes=3),
    paths=("input->a0.h1<v>->logits", "input->logits"),
)


@pytest.fixture(scope="module")
def measured(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "tiny"
    shutil.copytree(tiny_run.path, folder)
    run = load(folder)
    for step in (0, run.step):
        model = run.untrained_model() if step == 0 else run.model
        save_weights(folder / STEPS / f"{step}.safetensors", model, run.config, step=step, dtype=torch.bfloat16)
    run = load(folder)
    calls: list[tuple[float, float, str]] = []
    config = replace(
        SMALL, measure=("roles", "edges", "dissociation", "evidence", "approximations", "positions"), along=True
    )
    ops = ("NEXT", "INC", "VALUE_OVERFLOW")
    frame = study(run, ops=ops, config=config, progress=lambda *now: calls.append(now))
    return run, frame, calls, config, ops


def test_every_job_leaves_its_file_and_rows(measured):
    run, frame, calls, config, _ = measured
    assert {path.name for path in (run.path / "circuits").glob("*.json")} == {
        "NEXT.json", "INC.json", "VALUE_OVERFLOW.json", "summary.json"
    }  # fmt: skip
    for kind, names in {
        "roles": ["NEXT", "INC"],
        "edges": ["NEXT", "INC", "VALUE_OVERFLOW"],
        "dissociation": ["node.resample", "neuron.resample", "subspace.resample"],
        "evidence": ["NEXT", "INC", "VALUE_OVERFLOW"],
        "approximations": ["NEXT", "INC", "VALUE_OVERFLOW"],
        "positions": ["NEXT", "INC", "VALUE_OVERFLOW"],
        "paths": ["NEXT", "INC", "VALUE_OVERFLOW"],
        "along": ["0", str(run.step)],
    }.items():
        found = [path.stem for path in (run.path / "circuits" / kind).glob("*.json")]
        assert sorted(found) == sorted(names)
    done = [at[0] for at in calls]
    assert done == sorted(done)
    assert calls[-1][0] == pytest.approx(calls[-1][1])
    assert set(frame.checkpoint_step) == {0, run.step}
    metrics = {"ablation_loss", "dissociation", "jaccard", "completeness", "spearman", "effect", "faithfulness"}
    assert metrics <= set(frame.metric)
    assert len(frame[frame.method == "path_patching"]) == 3 * 2
    integrated = frame[frame.method == "eap_ig"]
    expected = {config.circuit.steps, config.checkpoints.steps}
    assert integrated.steps.notna().all() and set(integrated.steps) <= expected, "EAP-IG is not monotone in its steps"
    assert frame[frame.method != "eap_ig"].steps.isna().all()


def test_the_final_checkpoint_holds_its_own_circuit(measured):
    run, frame, *_ = measured
    rows = frame[(frame.metric == "jaccard") & (frame.stratum == "final") & frame.control.isna()]
    by_step = rows.groupby("checkpoint_step").estimate.mean()
    assert by_step[run.step] > by_step[0]


def test_sentences_are_made_of_measurements(measured):
    run, *_ = measured
    summary = json.loads((run.path / "circuits" / "summary.json").read_text())
    text = summary["sentences"]["INC"]
    assert text.startswith("INC: ")
    assert f"of {Graph.of(run.model).n_edges} edges keep" in text
    assert "neurons most its own" in text
    own, shared = set(summary["own"]["INC"]["edges"]), set(summary["shared"]["edges"])
    assert not own & shared


def test_a_second_call_measures_nothing_and_new_settings_do(measured, monkeypatch):
    run, frame, _, config, ops = measured
    stamp = {path: path.stat().st_mtime_ns for path in (run.path / "circuits").glob("*/*.json")}
    calls: list[tuple[float, float, str]] = []
    again = study(run, ops=ops, config=config, progress=lambda *now: calls.append(now))
    assert not calls
    assert again.equals(frame)
    assert {path: path.stat().st_mtime_ns for path in stamp} == stamp
    changed = replace(config, measure=(), along=False, paths=("input->logits",))
    study(run, ops=("INC",), config=changed)
    newer = finding_path(run.path, "paths", "INC")
    assert newer.stat().st_mtime_ns > stamp[newer]
    found = read_finding(run.path, "paths", "INC")
    assert found is not None
    assert [row["site"] for row in found.rows] == ["input->logits"]


def test_bad_requests_are_refused(tiny_run, tmp_path: Path):
    with pytest.raises(ValueError, match="has no contrast 'JUMP'; it has NEXT"):
        study(tiny_run, ops=("JUMP",))
    with pytest.raises(ValueError, match="levels must be among node, neuron, subspace; got 'layer'"):
        study(tiny_run, config=replace(SMALL, levels=("layer",)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="keeps no checkpoints"):
        study(tiny_run, config=replace(SMALL, along=True))
    with pytest.raises(ValueError, match="'a7.h0<v>'"):
        study(tiny_run, config=replace(SMALL, paths=("input->a7.h0<v>->logits",)))
    broken = finding_path(tmp_path, "paths", "INC")
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    with pytest.raises(ValueError, match="not a whole finding"):
        read_finding(tmp_path, "paths", "INC")


def test_the_page_tells_of_a_run_and_of_its_agreement_with_itself(measured, tmp_path: Path):
    run, frame, *_ = measured
    joint = PatchOptions(
        ("operand", "array_ptr"), methods=("mean_difference",), pairs_of=("operand+array_ptr",), n_pairs=12
    )
    patch_stage(run, joint)
    patch_stage(
        run,
        PatchOptions(variables=("operand",), designs=("independent", "minimal"), hooks=("mlp.hook_post",), n_pairs=12),
    )
    kept = (run.path / "interventions.parquet").read_bytes()
    with pytest.raises(RunError, match="holds interventions measured with n_pairs 12, and n_pairs 13 is asked for"):
        patch_stage(run, PatchOptions(variables=("operand",), n_pairs=13))
    assert (run.path / "interventions.parquet").read_bytes() == kept
    text = write_circuit_page([run, run], tmp_path, n_null=5).read_text()
    for heading in (
        "## tiny",
        "### Where each variable is kept",
        "### Double dissociation, resample",
        "### Approximations",
        "### Where edges work",
        "### Over training",
    ):
        assert heading in text
    assert "| `operand` | `" in text and "at `blocks.0.mlp.hook_post` |" in text
    assert "| INC | `input->logits` |" in text
    assert "| INC | 1.00 |" in text.split("## Across seeds")[1]
    names = ("graphs", "faithfulness", "kept", "approximations", "dissociation-resample", "along")
    for file in (*(f"circuits-tiny-{name}.svg" for name in names), "circuits-seeds.svg"):
        assert f"({file})" in text
        ElementTree.parse(tmp_path / file)
    assert len(along_curves(frame).data) == 3 + 1  # type: ignore[arg-type]
    matrices = dissociation_matrices(frame)
    measured = frame.loc[frame["metric"] == "ablation_loss"]
    assert matrices.count("of its logit difference") == len(measured) > 0  # a cell a row, its number said
    one = dissociation_matrices(frame, level="node", marked="INC")
    assert one.count("of its logit difference") == (measured["granularity"] == "node").sum()
    assert one.count('fill="none"') == 2 and not matrices.count('fill="none"')  # the row and the column of INC
    with pytest.raises(ValueError, match="no dissociation under zero ablation"):
        dissociation_matrices(frame, ablation="zero")


def test_the_page_names_the_best_place_of_each_kind_of_pair(tmp_path: Path):
    def row(site: str, position: str, value: float, **more: Any) -> dict[str, Any]:
        columns = {"variable": "op", "method": "full_vector", "pair_design": "independent", "stratum": "changes"}
        return columns | {"site": site, "position": position, "metric": "iia", "estimate": value, "n": 20} | more

    rows = [row("blocks.0.hook_resid_pre", "cells", 1.0), row("blocks.2.hook_resid_post", "cells", 1.0)]
    rows += [row("blocks.0.hook_resid_post", "cells", 0.25), row("blocks.1.hook_resid_post", "cells", 0.5)]
    rows += [row("blocks.1.hook_resid_post", "cells", 0.125, control="wrong_site")]
    rows += [row("blocks.0.hook_resid_post", "input", 0.75, pair_design="minimal")]
    rows += [row("blocks.2.hook_resid_post", "input", 1.0, pair_design="minimal")]
    rows += [row("blocks.1.attn.hook_z[2]", "cells", 0.375)]

    class Measured:
        name = "made-up"

        def frame(self, kind: str) -> pd.DataFrame:
            if kind != "interventions":
                raise RunError(f"no {kind}")
            return rows_frame(rows)

    tables = "\n".join(interchange_part(Measured(), tmp_path))  # type: ignore[arg-type]
    lines = [line.split(" | ")[:3] for line in tables.splitlines() if line.startswith("| `op`")]
    assert lines == [
        ["| `op`", "`cells` after L1", "0.50"],
        ["| `op`", "`cells` at `blocks.1.attn.hook_z[2]`", "0.38"],
        ["| `op`", "`input` after L0", "0.75"],
    ]
    assert "| 0.12 |" in tables
    rows[:] = [row("blocks.1.hook_resid_post", "cells", 0.25), row("blocks.2.hook_resid_post", "cells", 1.0)]
    rows.append(row("blocks.1.hook_resid_post", "cells", 0.75, method="das", rank=4))
    said = failures(Measured())  # type: ignore[arg-type]
    assert "carries `op` (0.25)" in said[0] and said[1:] == ["of these a subspace found by DAS carries `op` (0.75)"]
