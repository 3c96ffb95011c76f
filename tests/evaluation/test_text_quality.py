"""How varied texts are and how much of them is copied, by hand; and the benchmark of text with its page."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import text
from benchmarks.plain_gpt import PlainGPT
from interp.cli import main
from interp.evaluation.text_quality import copied, distinct, word_grams
from interp.models import build_model
from interp.tasks import TASKS
from interp.training.text_presets import text_model
from interp.worlds.text import TextWorld


def test_distinct_and_copied_by_hand() -> None:
    assert word_grams("a b  c\nd", 2) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert distinct(["a b a b", "a b c"], 2) == pytest.approx(3 / 5)  # ab, ba and bc of ab ba ab ab bc
    assert distinct(["a", "b"], 1) == 1 and math.isnan(distinct(["a"], 2))
    training = ["the cat sat on the mat", "on the mat it sat"]
    assert copied(["cat sat on the roof"], training, 3) == pytest.approx(2 / 3)
    assert copied(["mat on the mat it slept"], training, 4) == pytest.approx(1 / 3)  # never across two texts
    assert math.isnan(copied(["a b"], training))


def test_the_plain_module_is_causal_and_about_as_large_as_ours() -> None:
    world = TextWorld.of(length=65)
    task: Any = TASKS["text"](world)
    peer, ours = PlainGPT(d_vocab=len(task.vocab), n_ctx=65), build_model(text_model("transformer", world))
    assert abs(text._size(peer) / text._size(ours) - 1) < 0.05
    tokens = task.sample(2, seed=0).tokens
    other = tokens.clone()
    other[:, 40:] = 0
    assert torch.allclose(peer(tokens)[:, :40], peer(other)[:, :40], atol=1e-5)
    assert not torch.allclose(peer(tokens)[:, 40:], peer(other)[:, 40:], atol=1e-2)


def test_our_baseline_is_the_plain_module() -> None:
    peer: Any = PlainGPT(d_vocab=30, n_ctx=20, n_layers=2, d_model=16)
    shape = {"d_vocab": 30, "n_ctx": 20, "n_layers": 2, "d_model": 16, "d_mlp": 64, "d_head": 4}
    ours: Any = build_model(replace(text_model("transformer", TextWorld.of(length=65)), **shape))
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
        pairs = [
            (ours.embed.W_E, peer.wte.weight),
            (ours.pos_embed.W_pos, peer.wpe.weight),
            (ours.ln_final.w, peer.ln_f.weight),
        ]
        for mine, other in zip(ours.blocks, peer.h, strict=True):
            pairs += [(mine.ln1.w, other.ln_1.weight), (mine.ln2.w, other.ln_2.weight)]
            pairs += [(mine.attn.qkv.weight, other.c_attn.weight), (mine.attn.out.weight, other.attn_proj.weight)]
            pairs += [(mine.mlp.fc_in.weight, other.c_fc.weight), (mine.mlp.fc_out.weight, other.c_proj.weight)]
        for parameter, value in pairs:
            parameter.copy_(value)
        tokens = torch.randint(30, (3, 20), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours(tokens), peer(tokens), rtol=1e-4, atol=1e-4)
    assert text._size(ours) == text._size(peer)


def test_rows_of_the_benchmark_make_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = text.rows(steps=2, seconds=0.01, lengths=(256,), architectures=("transformer", "gru"))
    for row in rows:
        assert row.keys() == {"name", "ours", "peer", "peer_name", "ratio", "unit"}
    by_name = {row["name"]: row for row in rows}
    vocab = len(TASKS["text"](TextWorld.of()).vocab)
    for name in ("nanogpt_bits", "bits_transformer", "bits_gru"):  # hardly trained: near uniform, whatever the text
        assert 0.6 * math.log2(vocab) < by_name[name]["ours"] < 1.6 * math.log2(vocab)
    held = {name: by_name[f"memory_{name}_256"]["ours"] * 2**20 for name in ("transformer", "gru")}
    assert held["transformer"] == (256 + 8) * 4 * 2 * 128 * 4  # tokens x layers x keys and values x width x bytes
    assert held["gru"] == 3 * 208 * 4
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    main(["text-page", str(tmp_path / "rows.json"), "--out", str(tmp_path)])
    page = (tmp_path / "text.md").read_text()
    assert f"| gru | {by_name['bits_gru']['ours']:.3f} |" in page and (tmp_path / "text_bits.svg").exists()
    assert f"{by_name['nanogpt_bits']['peer']:.3f}" in page
    assert f"{by_name['nanogpt_bits_normed']['ours']:.3f}" in page
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(SystemExit):
        main(["text-page", str(tmp_path / "other.json"), "--out", str(tmp_path)])
    assert "is not what tapelens bench text --json writes" in capsys.readouterr().err


def test_a_long_measurement_is_taken_up_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = text.in_equal_time(("ngram",), 0.01, kept=tmp_path)
    monkeypatch.setattr(text, "_measured", lambda *_: pytest.fail("it was kept"))
    assert text.in_equal_time(("ngram",), 0.01, kept=tmp_path) == first
    assert json.loads((tmp_path / "ngram.json").read_text())["asked"]["seconds"] == 0.01
    with pytest.raises(pytest.fail.Exception, match="it was kept"):  # another time is another measurement
        text.in_equal_time(("ngram",), 0.02, kept=tmp_path)


def test_what_fills_in_or_reads_everything_again_holds_nothing() -> None:
    names = ("transformer", "path", "masked_diffusion", "diffusion_lm", "window")
    rows = {row["name"]: row for row in text.at_length(32, names)}
    assert {name for name in rows if name.startswith("memory")} == {"memory_transformer_32", "memory_path_32"}
    path = rows["memory_path_32"]
    assert path["ours"] == pytest.approx(path["peer"] * (32 + 1 + 2 * 32) / 64)  # keys carry w and beta besides
    assert all(rows[f"write_{name}_32"]["ours"] > 1 for name in names)
