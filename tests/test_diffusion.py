"""How models that write otherwise come to an answer: orders, edits, swaps between passes, and the page from rows."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.cli import main
from interp.models.diffusion_lm_config import DiffusionLMConfig
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.masked_diffusion_config import MaskedDiffusionConfig
from interp.results import Metric, read_frame, records, select
from interp.runs import Run, RunConfig
from interp.studies.denoised import embedding_rows
from interp.studies.filling import edit_rows, null_passes, slot_depths
from interp.studies.sides import op_sites
from interp.studies.slot_calibration import slot_calibration
from interp.tasks import TASKS
from interp.training import TrainingConfig, train
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec

SPEC = MachineSpec(n_instructions=5, n_cells=2, n_input=1, n_output=1, bits=1)


def trained(folder: Path, config: Any) -> Run:
    """A run of two steps: every measure can be taken of it."""
    settings = TrainingConfig(steps=2, batch_size=4, eval_every=2, eval_states=20, threads=1)
    return train(RunConfig("step", as_world(SPEC), config, settings), folder)


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    task = TASKS["step"](as_world(SPEC))
    sizes = {"d_vocab": len(task.vocab), "n_ctx": task.n_ctx, "n_prompt": task.prompt_positions.stop}
    return {**sizes, "n_layers": 2, "n_heads": 2, "d_model": 16}


@pytest.fixture(scope="module")
def runs(shared: dict[str, Any], tmp_path_factory: Any) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    configs = {
        "masked": MaskedDiffusionConfig(**shared),
        "continuous": DiffusionLMConfig(**shared, denoising_steps=2, max_steps=4),
        "sides": EncoderDecoderConfig(**shared, n_encoder=1),
    }
    return {name: trained(folder / name, config) for name, config in configs.items()}


def test_the_null_order_is_that_of_confidence_alone() -> None:
    confidence = torch.tensor([[0.2, 0.9, 0.5, 0.9], [0.4, 0.3, 0.2, 0.1]])
    assert null_passes(confidence, 2).tolist() == [[1, 0, 1, 0], [0, 0, 1, 1]]
    assert null_passes(confidence, 4).tolist() == [[3, 0, 2, 1], [0, 1, 2, 3]]


def test_depths_are_the_longest_chain_of_parents(runs: dict[str, Run]) -> None:
    """op 1, outcome 2, result 3, the next cell 4; a next instruction is a copy, and of input nothing is declared."""
    run = runs["masked"]
    depths = slot_depths(run, run.task.sample(64, seed=0))
    assert depths["cells[0]"] == 4 and depths["instruction_ptr[2]"] == 3 and depths["array_ptr[1]"] == 3
    assert depths["instructions[0]"] == 1 and "input[0]" not in depths


def test_calibration_of_slots_by_hand() -> None:
    """Two blocks of one slot: one right at .95 nine times of ten, one sure and always right; brackets are left out."""
    names = ("{", "a[0]", "b[0]", "}")
    confidence, right = np.full((10, 4), 0.5), np.zeros((10, 4), dtype=bool)
    confidence[:, 1], confidence[:, 2] = 0.95, 1.0
    right[:9, 1], right[:, 2] = True, True
    rows = list(slot_calibration(confidence, right, names, time=1))
    errors = {row["position"]: row["estimate"] for row in rows if row["metric"] == Metric.CALIBRATION_ERROR}
    assert errors == {None: pytest.approx(0.025), "a": pytest.approx(0.05), "b": 0}
    bins = {row["stratum"]: (row["estimate"], row["n"]) for row in rows if row["metric"] == Metric.RELIABILITY}
    assert bins == {"0.95 to 0.99": (0.9, 10), "0.9999 to 1": (1.0, 10)}


def test_places_of_op_are_on_the_side_that_they_are_named_by(runs: dict[str, Run]) -> None:
    sites = op_sites(runs["sides"])
    assert sites["encoder, the op's own slot"].positions == "instructions[@instruction_ptr]"
    others = sites["encoder, all blocks but the instructions"].positions.split("+")
    assert "instructions" not in others and {"instruction_ptr", "cells"} < set(others)
    across = sites["cross-attention, decoder layer 0"]
    assert across.hook == "decoder_blocks.0.hook_cross_attn_out"
    assert all(block.startswith("next.") for block in across.positions.split("+"))


def test_slots_that_cannot_see_each_other_ignore_an_edit_and_others_may_not(runs: dict[str, Run]) -> None:
    model: Any = runs["masked"].untrained_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    run: Any = SimpleNamespace(model=model, task=runs["masked"].task)
    shares = [{(row["metric"], row["time"]): row["estimate"] for row in edit_rows(run, n=48, seed=0)}]
    for block in model.blocks:
        torch.nn.init.zeros_(block.attn.out.weight)
    shares.append({(row["metric"], row["time"]): row["estimate"] for row in edit_rows(run, n=48, seed=0)})
    assert min(shares[0].values()) < 0.9
    # Without attention an answer hangs on its position alone: nothing can be set to another answer's token.
    assert not shares[1]


def test_every_cosine_is_that_of_two_embeddings(runs: dict[str, Run]) -> None:
    rows, table = list(embedding_rows(runs["continuous"])), runs["continuous"].model.embed.table.detach().double()
    vocab = runs["continuous"].task.vocab
    assert len(rows) == len(vocab) * (len(vocab) - 1) // 2
    a, b = (vocab.index(rows[7][side]) for side in ("position", "part"))
    by_hand = torch.nn.functional.cosine_similarity(table[a], table[b], dim=0)
    assert rows[7]["estimate"] == pytest.approx(float(by_hand))


def test_the_verb_measures_and_writes_the_page(runs: dict[str, Run], tmp_path: Path, capsys: Any) -> None:
    folders = [str(run.path) for run in runs.values()]
    arguments = ["diffusion", *folders, "--n", "32", "--out", str(tmp_path)]
    main(arguments)
    page = (tmp_path / "diffusion.md").read_text("utf-8")
    opening = page.split("\n\n")[1]
    assert len(re.findall(r"[.!?)](?= [A-Z\d`]|$)", opening)) >= 5, opening
    assert page.index("diffusion.svg") < page.index("\n| ") and (tmp_path / "diffusion_embeddings.svg").exists()
    masked = read_frame(runs["masked"].path / "diffusion.parquet")
    assert {"own difficulty", "causal depth"} < set(select(masked, metric=Metric.SPEARMAN)["part"])
    exact = records(select(masked, metric=Metric.EXACT_MATCH, aggregation="macro"))
    assert {row["method"] for row in exact} > {"denoise_once", "denoise_right_to_left"}
    carried = select(read_frame(runs["continuous"].path / "diffusion.parquet"), metric=Metric.RETURN)
    assert set(carried["part"]) == {"sample", "prediction", "both"} and set(carried["time"]) == {2, 3, 4}
    written = (runs["sides"].path / "diffusion.parquet").stat().st_mtime_ns
    main(arguments)  # what is measured is kept
    assert (runs["sides"].path / "diffusion.parquet").stat().st_mtime_ns == written
    assert (tmp_path / "diffusion.md").read_text("utf-8") == page
    again = [runs["sides"].path, "--n", "32", "--seed", "4", "--out", tmp_path / "again"]
    main(["diffusion", *map(str, again)])  # another seed's rows are on its page alone
    assert (runs["sides"].path / "diffusion.parquet").stat().st_mtime_ns == written
    other = (tmp_path / "again" / "diffusion.md").read_text("utf-8")
    assert "--n=32 --seed=4 --out" in other and "--seed 5 --out runs/again" in other
    capsys.readouterr()


def test_a_model_that_writes_from_left_to_right_is_refused(shared: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    from interp.models import TransformerConfig

    plain = {name: value for name, value in shared.items() if name != "n_prompt"}
    trained(tmp_path / "plain", TransformerConfig(**plain))
    with pytest.raises(SystemExit):
        main(["diffusion", str(tmp_path / "plain"), "--n", "16", "--out", str(tmp_path)])
    assert "neither fills in an answer nor reads its prompt by cross-attention" in capsys.readouterr().err
