"""Run folders: what `interp.load` gives, and that every fault gets its own sentence and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import tiny_config

import interp
from cython_vm import encode
from interp.configuration import config_dict, later
from interp.files import atomic_path, write_text
from interp.results import ResultsError, read_frame, records, rows_frame, select, wilson_interval, write_frame
from interp.runs import Run, RunError, save_weights


@pytest.fixture
def copy(tiny_run: Run, tmp_path: Path) -> Path:
    """A copy of the tiny run, to break."""
    return Path(shutil.copytree(tiny_run.path, tmp_path / "copy"))


def edit_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def test_a_run_opens_with_its_parts(tiny_run: Run) -> None:
    run = interp.load(tiny_run.path)
    assert run.config == tiny_run.config and run.task.name == "step_inplace" and run.task.spec == run.config.spec
    assert run.step == run.config.training.steps and not run.model.training
    logits, cache = run.model.run_with_cache(run.task.sample(64, seed=1).tokens)
    assert logits.shape == (64, run.task.n_ctx, len(run.task.vocab))
    assert cache["blocks.0.attn.hook_pattern"].shape == (64, 2, run.task.n_ctx, run.task.n_ctx)


def test_opening_a_run_imports_neither_torch_nor_transformer_lens(tiny_run: Run) -> None:
    script = (
        f"import interp, sys; interp.load({str(tiny_run.path)!r});"
        "print({'torch', 'transformer_lens'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_predict_is_the_models_own_answer_and_hooks_change_it(tiny_run: Run) -> None:
    run = interp.load(tiny_run.path)
    batch = run.task.sample(20, seed=0)
    tokens = encode(batch.examples)
    with torch.no_grad():
        direct = run.model(batch.tokens).argmax(-1).numpy()
    assert (run.predict(tokens) == direct).all()
    with run.model.hooks(fwd_hooks=[("blocks.0.hook_resid_post", lambda act, hook: torch.zeros_like(act))]):
        assert (run.predict(tokens) != direct).any()
    assert (run.predict(tokens) == direct).all()
    assert run.predict(tokens[:0]).shape == (0, run.config.spec.state_length)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((2, 5), np.int64), r"shape \[n, \d+\], got \[2, 5\]"),
        (np.zeros((2, 32)), "tokens must be integers; got float64"),
        (np.full((2, 32), 99), r"tokens must lie in 0\.\.\d+, got 99\.\.99"),
    ],
)
def test_predict_refuses_what_is_no_encoded_state(tiny_run: Run, bad: np.ndarray, says: str) -> None:
    length = tiny_run.config.spec.state_length
    wide = bad if bad.shape[1] == 5 else np.resize(bad, (2, length))
    with pytest.raises(ValueError, match=says):
        interp.load(tiny_run.path).predict(wide)


def test_a_missing_folder_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run at .*nowhere; train one with: tapelens train --out"):
        interp.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "is not a run's config"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a run's config"),
        (
            lambda f: edit_config(f, format=99, versions={"tapelens": "9.0"}),
            "has format 99 .tapelens 9.0.; .* reads format 1",
        ),
        (lambda f: edit_config(f, digest="0" * 16), "was edited: it says digest 0{16}"),
        (lambda f: edit_config(f, spec={"n_cells": 0}), "n_cells must be from 1 to 256, got 0"),
        (lambda f: edit_config(f, training={"colour": 3}), "unknown training settings .'colour'"),
    ],
)
def test_a_broken_config_is_named(copy: Path, break_it, says: str) -> None:
    break_it(copy)
    with pytest.raises(RunError, match=says):
        interp.load(copy)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def swap_digest(folder: Path) -> None:
    run = interp.load(folder)
    other = interp.RunConfig(run.config.task, run.config.spec, run.config.model, tiny_config(seed=9).training)
    save_weights(folder / "model.safetensors", run.model, other, step=3)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "does not exist: the run has no trained weights yet"),
        (lambda f: truncate(f / "model.safetensors"), "is not a whole safetensors file"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "is not a whole safetensors file"),
        (
            lambda f: (f / "model.safetensors").write_bytes(pickle.dumps({"a": 1})),
            "is a pickle; .* nothing is ever unpickled",
        ),
        (lambda f: torch.save({"a": torch.zeros(1)}, f / "model.safetensors"), "is a pickle"),
        (swap_digest, "belongs to config [0-9a-f]{16}, but config.json says [0-9a-f]{16}"),
    ],
)
def test_broken_weights_are_named(copy: Path, break_it, says: str) -> None:
    break_it(copy)
    with pytest.raises(RunError, match=says):
        _ = interp.load(copy).model


def test_frames_are_refused_by_name(copy: Path) -> None:
    run = interp.load(copy)
    with pytest.raises(ValueError, match="unknown frame 'scores'; expected one of metrics, probes"):
        run.frame("scores")
    with pytest.raises(RunError, match="probes.parquet does not exist yet; make it with: tapelens probe"):
        run.frame("probes")
    (copy / "probes.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(RunError, match="is not a readable Parquet file"):
        run.frame("probes")
    write_frame(rows_frame([]), copy / "probes.parquet", provenance={"digest": "another"})
    with pytest.raises(RunError, match="was measured under config another, but this run is"):
        run.frame("probes")


def test_a_full_disk_leaves_the_old_file_whole(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = interp.load(copy)
    before = (copy / "model.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(copy / "model.safetensors", run.model, run.config, step=7)
    assert (copy / "model.safetensors").read_bytes() == before
    assert not list(copy.glob(".*tmp"))


def test_an_atomic_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    write_text(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_the_tidy_frame_keeps_absent_apart_from_zero(tmp_path: Path) -> None:
    frame = rows_frame([{"metric": "iia", "estimate": 0.0, "rank": 0}, {"metric": "iia", "control": "unpatched"}])
    write_frame(frame, tmp_path / "f.parquet", provenance={"seed": 3})
    back = read_frame(tmp_path / "f.parquet")
    assert back.equals(frame) and back.attrs["provenance"] == {"seed": 3}
    first, second = records(back)
    assert first["rank"] == 0 and second["rank"] is None and second["estimate"] is None
    assert len(select(back, control=None)) == 1 and len(select(back, control="unpatched", metric="iia")) == 1


def test_the_tidy_frame_refuses_unknown_columns_and_values() -> None:
    with pytest.raises(ResultsError, match="colour"):
        rows_frame([{"colour": 1}])
    with pytest.raises(ResultsError, match="metric='goodness' is not one of"):
        rows_frame([{"metric": "goodness"}])


def test_the_wilson_interval_against_published_values() -> None:
    """Newcombe (1998), table I: 81 of 263 and 0 of 20."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_a_setting_added_later_leaves_older_digests_alone() -> None:
    @dataclass(frozen=True)
    class Grown:
        steps: int = 10
        warmup: int = later(0)

    assert config_dict(Grown()) == {"steps": 10}
    assert config_dict(Grown(warmup=5)) == {"steps": 10, "warmup": 5}
    assert Grown(**config_dict(Grown(warmup=5))) == Grown(warmup=5)


BUNDLED = {
    "addition": "9412bda6edb9403d",
    "addition_16": "3934cb6d7d425972",
    "addition_long": "0b18b294ec1b3812",
    "chain": "719c7ff59d5ed5cb",
    "counting": "06b2c3dff1c24455",
    "markov": "8e98958d416496e5",
    "output": "a127e0bbe4520532",
    "output_masked_diffusion": "3c00602d5d2e2b02",
    "output_masked_diffusion_bare": "e740909b28de26bc",
    "quickstart": "5bcd9344768facec",
    "scratchpad": "b58524fa087e2b13",
    "slots_add": "b0fd3311e01a15ee",
    "slots_alu": "c2688a0f3cd5d912",
    "slots_search": "082a13562601cff1",
    "slots_sort": "5c1972bda7b498a8",
    "slots_strings": "d91e3671646a9dbe",
    "sticky": "88ac04ece3981959",
    "step": "0b0a13c79a65cecb",
    "step_diffusion_lm": "2fede703c5d65d0c",
    "step_inplace": "2f7fb071c7259784",
    "step_inplace_1": "2dbdf2dc168ec663",
    "step_inplace_2": "d4cd99ef3db2436a",
    "step_inplace_looped": "00f092f92642deb9",
    "step_inplace_quick": "76cb9c1336b781de",
    "step_inplace_small": "06cb45be9b71dfc9",
    "text_small": "1e82b64ee4873549",
    "trace": "51bf30eb9fd602c8",
    "trace_1": "d72a284d88ca7684",
    "trace_2": "2d5c91f9d9cded23",
    "trace_final": "8a5cccec4812791b",
    "trace_small": "8a3c3f04e5d9b09a",
    "trace_small_delta": "6e0778c16d82124a",
    "trace_small_gru": "f5c4ec975468eb49",
    "trace_small_linear_attention": "882940c1162e37db",
    "trace_small_linear_attention_plain": "f3e3ebde7948c1cc",
    "trace_small_looped": "08e98ac98f480079",
    "trace_small_lstm": "ea2ff95f2463079c",
    "trace_small_mamba": "ac6b9d36a5ce0de5",
    "trace_small_mamba_no_conv": "62a1cd0a832e2187",
    "trace_small_mamba2": "6e704c913a114bcc",
    "trace_small_path": "cbd89100a8688ab0",
    "trace_small_rnn": "de8810aa66bf4675",
    "trace_tuned": "f19a412b6dd8c508",
}


@pytest.mark.parametrize(("name", "digest"), BUNDLED.items())
def test_the_digest_of_a_bundled_run_stays(name: str, digest: str) -> None:
    """Nothing that a config can say may change what the runs made before are called."""
    assert interp.load(Path(__file__).resolve().parents[1] / "checkpoints" / name).config.digest == digest
