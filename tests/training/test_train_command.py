"""`tapelens train`: named runs with any field changed from the command line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cython_vm import MachineSpec
from interp.cli import main
from interp.models import TransformerConfig
from interp.models.config import MultiTokenConfig
from interp.models.looped_config import LoopedConfig
from interp.models.slot_machine_config import SlotMachineConfig
from interp.models.state_configs import STATE_CONFIGS
from interp.models.window_config import WINDOW_CONFIGS
from interp.runs import load
from interp.training import PRESETS, TrainingConfig
from interp.training.overrides import ModelOverrides, TrainingOverrides, given, overridden, world_from

TINY = ["--machine", "n_instructions=4", "n_cells=3", "n_input=1", "n_output=1", "bits=2"]
SHORT = [
    "--steps",
    "4",
    "--batch-size",
    "4",
    "--threads",
    "1",
    "--training.eval-states",
    "40",
    "--training.warmup-steps",
    "2",
]


def train(*arguments: str | Path) -> None:
    main(["train", *map(str, arguments)])


def test_any_field_reaches_the_run(tmp_path: Path) -> None:
    changes = [
        "--training.optimizer",
        "adamw",
        "--training.ema-decay",
        "0.5",
        "--model.d-model",
        "24",
        "--model.n-layers",
        "1",
        "--model.normalization-type",
        "None",
    ]
    train("--out", tmp_path / "run", *TINY, *SHORT, *changes, "--seed", "7")
    config = load(tmp_path / "run").config
    assert config.spec == MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=2)
    assert (config.training.steps, config.training.optimizer, config.training.ema_decay) == (4, "adamw", 0.5)
    assert (config.model.d_model, config.model.d_head, config.model.d_mlp, config.model.n_layers) == (24, 6, 96, 1)
    assert config.model.seed == config.training.seed == 7
    assert config.model.normalization_type is None  # a value like any other, not what is left out


@pytest.mark.parametrize("preset", ["quickstart", "step_inplace", "step"])
def test_without_changes_a_run_is_the_preset(preset: str) -> None:
    config = PRESETS[preset]
    assert overridden(config, config.spec, training={}, model={}) == config


def test_every_field_can_be_given() -> None:
    fixed = {"d_vocab", "n_ctx", "position_roles", "position_indices", "n_slots", "base", "n_values", "max_steps"}
    models = (
        TransformerConfig,
        MultiTokenConfig,
        LoopedConfig,
        SlotMachineConfig,
        *STATE_CONFIGS,
        *WINDOW_CONFIGS,
    )
    for configs, overrides in (((TrainingConfig,), TrainingOverrides), (models, ModelOverrides)):
        names = {field.name for config in configs for field in dataclasses.fields(config)}
        assert {field.name for field in dataclasses.fields(overrides)} == names - fixed
        assert given(overrides()) == {}


def test_a_memory_follows_the_world_and_the_rest_can_be_given() -> None:
    config = PRESETS["slots_alu"]
    assert overridden(config, config.world, training={}, model={}) == config
    larger = overridden(config, config.world.changed(size=3), training={}, model={"d_alu": 64}).model
    assert (larger.d_alu, larger.n_slots, larger.max_steps) == (64, config.model.n_slots + 4, 4)


@pytest.mark.parametrize(("preset", "change"), [("addition", "n_digits=5"), ("slots_add", "size=3"), ("sticky", "n=1")])
def test_a_setting_of_any_world_is_given_by_its_name(preset: str, change: str) -> None:
    name, value = change.split("=")
    assert world_from(PRESETS[preset].world, [change]).to_dict()[name] == int(value)


def test_positions_follow_their_kind() -> None:
    config = PRESETS["quickstart"]
    learned = overridden(config, config.spec, training={}, model={"positional_embedding_type": "learned"})
    assert learned.model.position_roles == ()
    assert overridden(learned, config.spec, training={}, model={"positional_embedding_type": "block"}) == config


@pytest.mark.parametrize("preset", ["addition", "addition_long", "step_inplace"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "none", "path", "alibi", "block"])
def test_a_preset_takes_positions_of_another_kind(preset: str, positions: str) -> None:
    config = PRESETS[preset]
    training = dict(vars(config.training))
    made = overridden(config, config.world, training=training, model={"positional_embedding_type": positions}).model
    kept = positions == config.model.positional_embedding_type
    assert made.positional_embedding_type == positions and (made == config.model) == kept
    assert (made.index_init != "normal") == kept and bool(made.position_roles) == kept


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--training.optimizer", "sgd"], "optimizer(?=.*muon)(?=.*adamw)"),
        (["--training.ema-decay", "2"], "training ema_decay must lie in"),
        (["--model.d-model", "30"], "d_model must be a multiple of n_heads"),
        (["--model.d-vocab", "30"], "--model.d-vocab"),
        (["--resume", "--training.adaptive", "0.5"], "--resume goes on with the settings of .*; leave adaptive out"),
    ],
)
def test_a_bad_field_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(*arguments)
    assert re.search(says, capsys.readouterr().err)
