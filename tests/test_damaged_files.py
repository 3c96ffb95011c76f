"""Every file of a run, damaged in every way a disk or an editor may: read whole, or refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config

import interp
from cython_vm import MachineSpec
from interp.circuits import read_circuit
from interp.circuits.attention import read_attention
from interp.compiled import AnswerKey, compile_model
from interp.models import build_model
from interp.pages.cards import read_card
from interp.reading import BrokenFileError, RunError, count, read_header, read_json, read_parquet, read_tensors
from interp.results import read_frame, rows_frame, write_frame
from interp.runs.compiled_run import compile_run
from interp.runs.findings import read_finding
from interp.runs.probe_errors import read_errors
from interp.stage_options import EvaluationOptions
from interp.studies import probe_sweep as probing
from interp.studies import read_examples
from interp.studies.circuit_summary import summary_of
from interp.studies.evaluation_stage import evaluate_stage
from interp.studies.patch_stage import probe_subspaces
from interp.training import train
from interp.training.checkpoint import RESUME_FILE, load_checkpoint, peek_checkpoint
from interp.training.optimizer import Optimizers

QUICKSTART = Path(__file__).parents[1] / "checkpoints" / "quickstart"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every file that a run may hold: measured/, trained/ (unfinished, with steps), compiled/."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(QUICKSTART, folder / "measured")
    train(tiny_config(steps=4, checkpoint_every=2, eval_every=2, steps_along=3), folder / "trained")
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)
    compile_run(compile_model(spec), folder / "compiled")
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def resume(folder: Path) -> None:
    config = interp.load(folder).config
    model = build_model(config.model)
    peek_checkpoint(folder, config)
    load_checkpoint(folder, model, [Optimizers(model, config.training)], config)


def edge_examples(folder: Path) -> None:
    found = read_finding(folder, "edges", "INC")
    assert found is not None
    read_examples(found.detail)


# file: everything that reads it
READERS: dict[str, list[Callable[[Path], Any]]] = {
    "measured/config.json": [interp.load],
    "measured/model.safetensors": [lambda f: interp.load(f).model, lambda f: interp.load(f).step],
    "measured/metrics.parquet": [
        lambda f: interp.load(f).frame("metrics"),
        lambda f: evaluate_stage(interp.load(f), EvaluationOptions(n=1, programs=0)),
    ],
    "measured/probes.parquet": [lambda f: interp.load(f).frame("probes")],
    "measured/interventions.parquet": [lambda f: interp.load(f).frame("interventions")],
    "measured/circuits.parquet": [lambda f: interp.load(f).frame("circuits")],
    "measured/probe_errors.parquet": [lambda f: read_errors(interp.load(f))],
    "measured/probes.safetensors": [
        lambda f: probe_subspaces(interp.load(f), ["operand"]),
        lambda f: probing._stored(f / "probes.safetensors"),
    ],
    "measured/attention.safetensors": [lambda f: read_attention(f / "attention.safetensors")],
    "measured/circuits/INC.json": [lambda f: read_circuit(f / "circuits" / "INC.json")],
    "measured/circuits/edges/INC.json": [edge_examples],
    "measured/card.json": [read_card],
    "trained/resume/state.safetensors": [resume],
    "trained/steps/4.safetensors": [lambda f: interp.load(f).at_step(4).model],
    "compiled/compiled.json": [AnswerKey.load],
    "compiled/compiled.safetensors": [AnswerKey.load],
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-9],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"not what it was",
    "no UTF-8": lambda data: b"\xff\xfe" + data,
    "nested deep": lambda data: b"[" * 100_000,
    "an empty list": lambda data: b"[]",
    "an empty object": lambda data: b"{}",
    "a long number": lambda data: b'{"format": ' + b"9" * 5000 + b"}",
}


def refused(read: Callable[[Path], Any], folder: Path, name: str) -> str:
    """The sentence that the reader refuses the file with: one line that names it."""
    with pytest.raises(RunError) as error:
        read(folder)
    sentence = str(error.value)
    assert "\n" not in sentence and name in sentence, sentence
    return sentence


@pytest.mark.parametrize("file", READERS)
def test_whole_files_are_read(file: str, whole: Path) -> None:
    for read in READERS[file][:1]:
        read(whole / file.split("/")[0])


@pytest.mark.parametrize("damage", [*DAMAGES, "a folder"])
@pytest.mark.parametrize("file", READERS)
def test_damage_ends_in_one_sentence(file: str, damage: str, copy: Path) -> None:
    path, folder = copy / file, copy / file.split("/")[0]
    if damage == "a folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    for read in READERS[file]:
        refused(read, folder, path.name)


@pytest.mark.parametrize("file", READERS)
def test_flipped_bytes_are_read_or_refused(file: str, copy: Path) -> None:
    """Not every flipped byte shows; those that do end in a sentence. Half of them are where headers and footers are."""
    path, folder = copy / file, copy / file.split("/")[0]
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for trial in range(12):
        end = min(len(data), 400) if trial % 2 else len(data)
        places = rng.integers(0, end, size=3)
        broken = bytearray(data)
        for place in places if trial % 4 else -1 - places:
            broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        with contextlib.suppress(RunError):
            READERS[file][0](folder)


def test_a_broken_summary_counts_as_absent(copy: Path) -> None:
    run = interp.load(copy / "measured")
    assert summary_of(run)["sentences"]["INC"]
    for text in ("", "[]", "{}", "[" * 100_000, '{"provenance": [], "sentences": {}}'):
        (run.path / "circuits" / "summary.json").write_text(text)
        assert summary_of(run) == {"sentences": {}}


def change_frame(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    file = folder / "probes.parquet"
    pq.write_table(change(pq.read_table(file)), file)


def column(name: str, values: Callable[[int], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    def changed(table: pa.Table) -> pa.Table:
        place = table.column_names.index(name)
        return table.set_column(place, name, values(len(table))).replace_schema_metadata(table.schema.metadata)

    return changed


def provenance(text: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata({"tapelens": text})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (column("n", lambda k: pa.array([1.5] * k)), "column n holds double, not int64"),
        (column("estimate", lambda k: pa.array(["high"] * k)), "column estimate holds string, not double"),
        (column("metric", lambda k: pa.array(["goodness"] * k)), "column metric holds 'goodness', which is no Metric"),
        (column("control", lambda k: pa.array([b"\xff"] * k)), "column control holds binary, not string"),
        (lambda table: table.drop_columns(["ci_low"]), "lacks the columns .'ci_low'."),
        (lambda table: table.append_column("n", table["n"]), "probes.parquet is not a results frame"),
        (provenance("[1]"), "its provenance must be an object, got list"),
        (provenance("{"), "is not a readable Parquet file"),
        (provenance('{"settings": "none"}'), "settings of its provenance must be of type dict, got 'none'"),
        (provenance('{"step": "last"}'), "step of its provenance must be of type int, got 'last'"),
        (lambda table: table.replace_schema_metadata({}), "was measured under config None"),
    ],
)
def test_a_frame_of_other_columns_values_or_origin_is_refused(
    change: Callable[[pa.Table], pa.Table], says: str, copy: Path
) -> None:
    change_frame(copy / "measured", change)
    with pytest.raises(RunError, match=says):
        interp.load(copy / "measured").frame("probes")


def test_a_frame_is_read_by_itself_whatever_the_folders_above_are_called(tmp_path: Path) -> None:
    """Arrow would read `seed=3` above a file as a column, of a type that contradicts the frame's own."""
    file = tmp_path / "seed=3" / "task=step" / "probes.parquet"
    rows = rows_frame([{"metric": "accuracy", "estimate": 0.5, "seed": 7, "task": "trace"}])
    write_frame(rows, file)
    assert read_frame(file).equals(rows) and read_frame(str(file)).equals(rows)


def resave(file: Path, change: Callable[[torch.Tensor], torch.Tensor], **header: str) -> None:
    tensors = {name: change(tensor).contiguous() for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={**read_header(file), **header})


@pytest.mark.parametrize("step", ["abc", "-1", "1.5", "9" * 5000, "٣", ""])
def test_a_step_that_is_no_count_is_refused(step: str, copy: Path) -> None:
    resave(copy / "measured" / "model.safetensors", lambda tensor: tensor, step=step)
    refused(lambda f: interp.load(f).step, copy / "measured", "model.safetensors")


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.bool, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("file", ["measured/model.safetensors", "trained/resume/state.safetensors"])
def test_weights_of_another_kind_are_refused(file: str, dtype: torch.dtype, copy: Path) -> None:
    resave(copy / file, lambda tensor: tensor.to(dtype))
    for read in READERS[file][:1]:
        sentence = refused(read, copy / file.split("/")[0], Path(file).name)
        assert f"as {dtype}; the configured model has torch.float32" in sentence


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float16])
def test_checkpoints_along_a_run_are_bfloat16_and_nothing_else(dtype: torch.dtype, copy: Path) -> None:
    file = copy / "trained" / "steps" / "4.safetensors"
    assert read_header(file)["dtype"] == "bfloat16"
    run = interp.load(copy / "trained")
    final, rounded = run.model.state_dict(), run.at_step(4).model.state_dict()
    for name, tensor in final.items():
        assert rounded[name].dtype == torch.float32
        assert torch.equal(rounded[name], tensor.to(torch.bfloat16).float())
    header = {name: value for name, value in read_header(file).items() if name != "dtype"}
    save_file(load_file(file), file, metadata=header)  # as they were written before the header named it
    assert torch.equal(interp.load(run.path).at_step(4).model.W_E, rounded["embed.W_E"])
    resave(file, lambda tensor: tensor.to(dtype))
    refused(lambda f: interp.load(f).at_step(4).model, copy / "trained", "4.safetensors")


def test_a_declared_rounding_is_read_and_an_undeclared_kind_is_not(copy: Path) -> None:
    file = copy / "measured" / "model.safetensors"
    before = interp.load(file.parent).model.W_E
    resave(file, lambda tensor: tensor.to(torch.float64), dtype="float64")
    assert torch.equal(interp.load(file.parent).model.W_E, before)
    resave(file, lambda tensor: tensor.to(torch.int64), dtype="int64")  # no rounding, whatever the header says
    refused(lambda f: interp.load(f).model, file.parent, "model.safetensors")


def test_steps_that_are_no_steps_are_not_listed(copy: Path) -> None:
    for name in ("²", "007", "last", "٣"):
        shutil.copy(copy / "trained" / "steps" / "4.safetensors", copy / "trained" / "steps" / f"{name}.safetensors")
    assert interp.load(copy / "trained").steps == (0, 1, 4)


@pytest.mark.parametrize("changes", [{"versions": [1]}, {"versions": 3}, {"versions": None}, {"versions": {}}])
def test_a_config_of_another_format_is_named_whatever_else_it_holds(changes: dict[str, Any], copy: Path) -> None:
    file = copy / "measured" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99, **changes}))
    assert "has format 99 (tapelens of an unknown version); this version reads format 1" in refused(
        interp.load, file.parent, "config.json"
    )


@pytest.mark.parametrize("field", ["task", "spec", "model", "training"])
@pytest.mark.parametrize("value", [None, 3, "x", [], [[]], {"x": 1}, {}])
def test_a_config_with_a_part_of_another_type_is_refused(field: str, value: object, copy: Path) -> None:
    file = copy / "measured" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    refused(interp.load, file.parent, "config.json")


def test_a_training_without_its_curve_says_so(copy: Path) -> None:
    run = interp.load(copy / "trained")
    (run.path / "metrics.parquet").unlink()
    tensors, header = read_tensors(run.path / RESUME_FILE, "pt")
    state = {**json.loads(header["state"]), "done": False}
    save_file(tensors, run.path / RESUME_FILE, metadata={**header, "state": json.dumps(state)})
    with pytest.raises(RunError, match="metrics.parquet is gone, and the training cannot go on without it"):
        train(run.config, run.path)


def test_what_is_missing_is_told_from_what_is_broken(tmp_path: Path) -> None:
    for read in (lambda p: read_json(p, "an object"), read_header, lambda p: read_tensors(p, "pt"), read_parquet):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "nowhere")
        with pytest.raises(BrokenFileError, match="it is a folder"):
            read(tmp_path)


def test_counts() -> None:
    assert count("0") == 0 and count("36000") == 36000
    for text in ("", "-1", "1e3", " 1", "9" * 19):
        with pytest.raises(ValueError, match="a count was expected"):
            count(text)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """The first eight bytes of a safetensors file are the length of its header: 0x0480 is one of them."""
    path = tmp_path / "model.safetensors"
    for size in range(0x300, 0x480, 4):
        save_file({"w": torch.zeros(1)}, path, metadata={"padding": "x" * size})
        if path.read_bytes()[:2] == b"\x80\x04":
            break
    assert path.read_bytes()[:2] == b"\x80\x04" and len(read_header(path)["padding"]) == size
