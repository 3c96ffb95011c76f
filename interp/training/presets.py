"""Named runs: everything that `tapelens train --preset NAME` needs."""

from __future__ import annotations

from typing import Any

from interp.models import TransformerConfig
from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.tasks import TASKS
from interp.tasks.options import ChainOptions
from interp.worlds import World, as_world
from interp.worlds.machine import MachineSpec


def transformer_for(
    task_name: str,
    world: World | MachineSpec,
    *,
    options: Any = None,
    seed: int = 0,
    n_layers: int = 4,
    n_heads: int = 4,
    d_model: int = 64,
    d_mlp: int = -1,
    turned: bool = True,
) -> TransformerConfig:
    """The transformer that suits a task: its positions and attention direction, RMSNorm, QK-norm, ReLU.

    Where a task gives its positions block by block, slot indices begin as waves and turn half of each head (`turned`),
    with which the machine's shifts by one are learned several times sooner. For another variation,
    `dataclasses.replace` the result.
    """
    task = TASKS[task_name](as_world(world), options)
    turned = turned and task.positions == "block"
    return TransformerConfig(
        d_vocab=len(task.vocab),
        n_ctx=task.n_ctx,
        n_layers=n_layers,
        n_heads=n_heads,
        d_model=d_model,
        d_mlp=d_mlp,
        act_fn="relu",
        normalization_type="RMS",
        qk_norm=True,
        attention_dir=task.attention_dir,
        positional_embedding_type=task.positions,
        position_roles=task.position_roles if task.positions == "block" else (),
        position_indices=task.position_indices if task.positions == "block" else (),
        index_init="sinusoidal" if turned else "normal",
        rotary_dim=2 * (d_model // n_heads // 4) if turned else 0,
        rotary_base=10 if turned else 10_000,  # waves of 6 slots and more
        attention_chunk=task.attention_chunk,
        seed=seed,
    )


TRACE_MACHINE = MachineSpec(n_instructions=96, n_input=32, n_output=32)  # room for runs of 64 steps without a loop
CHAIN_MACHINE = MachineSpec(n_instructions=8, n_cells=4, n_input=2, n_output=2, bits=2)  # 9 states in 378 tokens
OUTPUT_MACHINE = MachineSpec(n_instructions=16, n_cells=4, n_input=4, n_output=4, bits=3)
SMALL_MACHINE = MachineSpec(n_instructions=8, n_cells=6, n_input=3, n_output=3, bits=3)


def _run(
    task: str,
    spec: MachineSpec,
    training: TrainingConfig,
    *,
    options: Any = None,
    n_layers: int = 4,
    d_model: int = 64,
    d_mlp: int = -1,
    turned: bool = True,
) -> RunConfig:
    model = transformer_for(
        task,
        spec,
        options=options,
        seed=training.seed,
        n_layers=n_layers,
        d_model=d_model,
        d_mlp=d_mlp,
        turned=turned,
    )
    return RunConfig(task, as_world(spec), model, training, options=options)


# One step at the default machine. Two threads take four fifths of one thread's time on idle cores; where another
# process is busy they wait for each other, and take ten times as long.
STEP_TRAINING = TrainingConfig(
    steps=12000, batch_size=16, eval_every=1000, adaptive=0.5, ema_decay=0.999, steps_along=20, threads=1
)


PRESETS: dict[str, RunConfig] = {
    "quickstart": _run("step_inplace", SMALL_MACHINE, TrainingConfig(steps=4000, eval_states=750), turned=False),
    "step_inplace": _run("step_inplace", MachineSpec(), STEP_TRAINING),
    "step_inplace_small": _run("step_inplace", MachineSpec(), STEP_TRAINING, d_model=48, d_mlp=128),
    "step": _run("step", MachineSpec(), STEP_TRAINING),
    "trace": _run(
        "trace",
        TRACE_MACHINE,
        TrainingConfig(steps=12000, ema_decay=0.998, steps_along=20, eval_states=1000, threads=1),
        d_model=96,
    ),
    "chain": _run(
        "chain",
        CHAIN_MACHINE,
        TrainingConfig(steps=6000, batch_size=8, eval_every=500, eval_states=256, ema_decay=0.998, threads=1),
    ),
    "chain_direct": _run(
        "chain", CHAIN_MACHINE, TrainingConfig(steps=12000), options=ChainOptions(direct=True), d_model=96
    ),
    "output": _run("output", OUTPUT_MACHINE, TrainingConfig(steps=12000, eval_states=2000), n_layers=6),
}
