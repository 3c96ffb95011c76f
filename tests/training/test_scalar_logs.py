"""Scalars beside the Parquet file: TensorBoard's events are read back; a missing package is one sentence."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config

from interp.results import Aggregation, Metric, select
from interp.training import TrainingProgress, train
from interp.training.curve import Curve
from interp.training.logs import TensorBoardLog, WandbLog


def stop(progress: TrainingProgress) -> None:
    if progress.step == 85:
        raise KeyboardInterrupt


def test_tensorboard_holds_what_the_parquet_file_holds(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = tiny_config(steps=100, eval_every=42, checkpoint_every=40)  # 84 is logged, lost, and logged again
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", log="tensorboard", on_progress=stop)
    seen: list[TrainingProgress] = []
    run = train(config, tmp_path / "run", log="tensorboard", on_progress=seen.append)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    metrics = run.frame("metrics")
    for name, rows in (
        ("loss", select(metrics, metric=Metric.LOSS)),
        ("exact_match", select(metrics, aggregation=Aggregation.MACRO)),
    ):
        assert [event.step for event in events.Scalars(name)] == rows["checkpoint_step"].tolist()
        assert [event.value for event in events.Scalars(name)] == pytest.approx(rows["estimate"].tolist(), abs=1e-6)
    by_op = seen[-1].by_op
    assert by_op is not None and set(by_op) == {op.name for op in config.spec.ops}
    for op, share in by_op.items():
        assert events.Scalars(f"exact_match/{op}")[-1].value == pytest.approx(share)
        final = select(metrics, metric=Metric.EXACT_MATCH, op=op)
        own = final.loc[final["checkpoint_step"] == 100, "estimate"]
        assert share == pytest.approx(own.mean())
    assert Curve(run.path, config, until=100).by_op == by_op  # what a resumed run shows at once


def test_weights_and_biases_holds_what_the_parquet_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, that is, as it writes before it sends."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = tiny_config(steps=100, eval_every=42, checkpoint_every=40)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", log="wandb", on_progress=stop)
    run = train(config, tmp_path / "run", log="wandb")
    metrics = run.frame("metrics")
    written = [step for file in sorted(run.path.glob("wandb/*/*.wandb")) for step in _history(file)]
    by_step = {step["_step"]: step for step in written}
    for name, rows in (
        ("loss", select(metrics, metric=Metric.LOSS)),
        ("exact_match", select(metrics, aggregation=Aggregation.MACRO)),
    ):
        found = {step: values[name] for step, values in by_step.items() if name in values}
        assert found == pytest.approx(dict(zip(rows["checkpoint_step"], rows["estimate"], strict=True)))


def _history(file: Path) -> list[dict[str, float]]:
    """The steps of an offline run: protocol buffers in a log of 32-kilobyte blocks, records of length and kind."""
    from wandb.proto import wandb_internal_pb2

    raw, at, whole, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(raw):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", raw, at + 4)
        part = raw[at + 7 : at + 7 + length]
        whole, at = (whole + part if kind in (3, 4) else part), at + 7 + length
        if kind in (1, 4):  # the whole, or its last part
            record: Any = wandb_internal_pb2.Record.FromString(whole)  # type: ignore[attr-defined]
            if record.HasField("history"):
                items = record.history.item
                found.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return found


@pytest.mark.parametrize(("log", "module"), [(TensorBoardLog, "torch.utils.tensorboard"), (WandbLog, "wandb")])
def test_a_missing_package_is_one_sentence(
    log: type, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=r"needs a package that is missing: pip install 'tapelens\["):
        log(tmp_path, tiny_config(), first=0)
