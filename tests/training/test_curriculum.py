"""The staged curriculum: what each stage draws, when it ends, and that an interruption changes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny import tiny_config

from cython_vm import MachineSpec, Op, program_hash, step
from interp.runs import RunConfig
from interp.tasks import TASKS
from interp.training import TrainingConfig, TrainingProgress, train
from interp.training.batches import Batches
from interp.training.curriculum import Curriculum, stage_score
from interp.worlds import as_world
from interp.worlds.machine.stages import Stage, language_stages, size_stages

SPEC = MachineSpec(n_instructions=7, n_cells=3, n_input=2, n_output=2, bits=2)
MOVES = {Op.NEXT, Op.PREV, Op.INC, Op.DEC, Op.STOP}


def draw(stage: Stage, **options: Any):
    settings: dict[str, Any] = {"seed": 0, "start": 0, "split": "train", "weights": None} | options
    return stage.draw(400, **settings)


def test_the_language_grows_stage_by_stage() -> None:
    stages = language_stages(SPEC)
    assert [stage.name for stage in stages] == ["moves and counts", "I/O", "loops"]
    allowed = [MOVES, MOVES | {Op.PUT, Op.GET}, MOVES | {Op.WHILE, Op.ENDW}]
    for stage, ops in zip(stages, allowed, strict=True):
        states = draw(stage)
        assert {Op(code) for code in np.unique(states.program)} == ops
        assert states.spec == SPEC and (program_hash(states) % 20 != 0).all()
        assert (program_hash(draw(stage, split="evaluation")) % 20 == 0).all()
        step(states)  # the whole machine runs them


def test_stages_that_the_machine_lacks_are_left_out() -> None:
    assert [s.name for s in language_stages(dataclasses.replace(SPEC, io=False))] == ["moves and counts"]
    assert language_stages(dataclasses.replace(SPEC, io=False, loops=False)) == ()


def test_sizes_grow_on_a_padded_machine() -> None:
    spec = MachineSpec(n_instructions=8, n_cells=4, n_input=4, n_output=4, bits=2, padded=True)
    largest = [{name: int(sizes.max()) for name, sizes in draw(s).sizes.items()} for s in size_stages(spec)]
    assert [each["n_instructions"] for each in largest] == [2, 4, 6]
    assert [each["n_cells"] for each in largest] == [1, 2, 3] and [each["n_input"] for each in largest] == [1, 2, 3]
    with pytest.raises(ValueError, match="'sizes' needs a padded machine"):
        size_stages(SPEC)


def test_a_stage_ends_when_it_is_mastered_or_has_had_its_steps() -> None:
    curriculum = Curriculum(language_stages(SPEC), threshold=0.9, longest=100)
    assert not curriculum.advance(50, 0.89) and curriculum.advance(60, 0.9)  # the gate
    assert [getattr(curriculum.stage(at), "name", None) for at in (0, 60, 61)] == ["moves and counts"] * 2 + ["I/O"]
    assert not curriculum.advance(160) and curriculum.advance(161)  # its share of the steps
    assert curriculum.advance(170, 1.0) and curriculum.finished
    assert curriculum.stage(170) is not None and curriculum.stage(171) is None
    assert not curriculum.advance(900, 1.0)
    other = Curriculum(language_stages(SPEC), threshold=0.9, longest=100)
    other.load_state_tensors(curriculum.state_tensors())
    assert other.begins == curriculum.begins == [0, 61, 162, 171]


def test_the_gate_asks_for_the_stage_alone() -> None:
    """A model that is right on programs without loops, and on these alone, masters that stage and no later one."""
    import torch

    task = TASKS["step_inplace"](as_world(SPEC))
    loops = {task.vocab.index("WHILE"), task.vocab.index("ENDW")}

    def model(tokens: torch.Tensor) -> torch.Tensor:
        from cython_vm import decode

        answers = torch.from_numpy(step(decode(SPEC, tokens.numpy())).tokens().astype(np.int64))
        knows = ~torch.isin(tokens, torch.tensor(sorted(loops))).any(dim=1)
        return torch.nn.functional.one_hot(torch.where(knows[:, None], answers, 0), len(task.vocab)).float()

    moves, io, with_loops = language_stages(SPEC)
    assert (
        stage_score(model, task, moves, n=300, split="evaluation")
        == stage_score(model, task, io, n=300, split="evaluation")
        == 1.0
    )
    assert stage_score(model, task, with_loops, n=300, split="evaluation") < 0.9


def config(**training: Any) -> RunConfig:
    settings: dict[str, Any] = {"curriculum": "language", "stage_share": 0.2} | training
    whole = tiny_config(steps=60, eval_every=10)
    return dataclasses.replace(whole, training=dataclasses.replace(whole.training, **settings))


def test_an_interrupted_curriculum_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    def stop(progress: TrainingProgress) -> None:
        if progress.step == 35:
            raise KeyboardInterrupt

    staged = config(adaptive=0.5)
    train(staged, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(staged, tmp_path / "broken", on_progress=stop)
    train(staged, tmp_path / "broken")
    first, second = (load_file(tmp_path / name / "resume" / "state.safetensors") for name in ("whole", "broken"))
    assert first["curriculum/begins"].tolist() == [0, 13, 26, 39]
    assert first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)


def test_a_task_without_strata_and_settings_without_sense_are_refused() -> None:
    machine = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=1)
    whole = dataclasses.replace(config(), world=as_world(machine), task="trace")
    with pytest.raises(ValueError, match="curriculum needs a task whose examples have strata; trace has none"):
        Batches(whole, TASKS["trace"](as_world(machine)))
    with pytest.raises(ValueError, match="stage_share must lie in"):
        TrainingConfig(stage_share=0)
    with pytest.raises(ValueError, match="curriculum must be one of none, language, sizes, got 'hard'"):
        dataclasses.replace(TrainingConfig(), curriculum="hard")  # type: ignore[arg-type]
