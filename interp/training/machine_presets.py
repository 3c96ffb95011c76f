"""The named runs about the machine. Each leaves the validation units out of training and is followed on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from interp.models.diffusion_lm_config import DiffusionLMConfig
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.masked_diffusion import MaskedDiffusionConfig
from interp.runs import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.tasks import TASKS
from interp.tasks.options import ChainOptions, OutputOptions, ScratchpadOptions, StreamOptions
from interp.training.presets import looped_for, model_for, transformer_for
from interp.worlds import as_world, world_from_dict


def _machine(**sizes: Any) -> Any:
    """The MachineSpec of some sizes."""
    return world_from_dict({"name": "machine", **sizes}).spec  # type: ignore[attr-defined]


MACHINE = _machine()
TRACE_MACHINE = _machine(n_instructions=96, n_input=32, n_output=32)  # room for runs of 64 steps without a loop
TRACE_SMALL_MACHINE = _machine(n_instructions=36, n_cells=6, n_input=12, n_output=12, bits=3)
CHAIN_MACHINE = _machine(n_instructions=8, n_cells=4, n_input=2, n_output=2, bits=2)  # 9 states in 378 tokens
OUTPUT_MACHINE = _machine(n_instructions=16, n_cells=4, n_input=4, n_output=4, bits=3)
SMALL_MACHINE = _machine(n_instructions=8, n_cells=6, n_input=3, n_output=3, bits=3)


def _run(
    task: str,
    spec: Any,
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


# One step at the default machine.
STEP_TRAINING = TrainingConfig(
    steps=12000, batch_size=16, eval_every=1000, adaptive=0.5, ema_decay=0.999, steps_along=20, validation=True
)

# What a stream shows is what is held out: a program's unexecuted instructions do not make an old stream new.
_SHOWN = StreamOptions(units="shown")

# Muon's rate and the adaptive sampling were chosen on validation (docs/training.md).
QUICKSTART = _run(
    "step_inplace",
    SMALL_MACHINE,
    TrainingConfig(steps=3600, muon_lr=0.0025, adaptive=0.5, eval_states=750, validation=True),
    turned=False,
)
STEP_INPLACE = _run("step_inplace", MACHINE, STEP_TRAINING)
STEP_INPLACE_SMALL = _run("step_inplace", MACHINE, STEP_TRAINING, d_model=48, d_mlp=128)
STEP = _run("step", MACHINE, STEP_TRAINING)
TRACE = _run(
    "trace",
    TRACE_MACHINE,
    TrainingConfig(steps=12000, ema_decay=0.998, steps_along=20, eval_states=1000, validation=True),
    options=_SHOWN,
    d_model=96,
)
# What every architecture is asked alike (docs/architectures.md): short streams that a transformer learns in minutes.
_SMALL_SHOWN = StreamOptions(n_steps=24, units="shown")
TRACE_SMALL = _run(
    "trace",
    TRACE_SMALL_MACHINE,
    TrainingConfig(
        steps=3000,
        ema_decay=0.998,
        eval_every=300,
        eval_states=1000,
        checkpoint_every=200,
        threads=1,
        validation=True,
    ),
    options=_SMALL_SHOWN,
    d_model=72,
)
CHAIN = _run(
    "chain",
    CHAIN_MACHINE,
    TrainingConfig(steps=6000, batch_size=8, eval_every=500, eval_states=256, ema_decay=0.998, validation=True),
)
CHAIN_DIRECT = _run(
    "chain",
    CHAIN_MACHINE,
    TrainingConfig(steps=12000, validation=True),
    options=ChainOptions(direct=True),
    d_model=96,
)
OUTPUT = _run(
    "output",
    OUTPUT_MACHINE,
    TrainingConfig(steps=12000, eval_states=2000, validation=True),
    options=_SHOWN,
    n_layers=6,
)

# Runs that end within 32 steps, every number of steps equally often.
_EVEN = OutputOptions(units="shown", even=True)
OUTPUT_EVEN = _run(
    "output",
    OUTPUT_MACHINE,
    TrainingConfig(steps=12000, eval_states=2048, validation=True),
    options=_EVEN,
    n_layers=6,
)
_OUTPUT_LOOPED_TRAINING = TrainingConfig(
    steps=27000,
    muon_lr=0.01,
    ema_decay=0.998,
    steps_along=20,
    eval_states=1024,
    checkpoint_every=100,
    threads=1,
    validation=True,
)
OUTPUT_LOOPED = RunConfig(
    "output",
    as_world(OUTPUT_MACHINE),
    looped_for(
        "output",
        OUTPUT_MACHINE,
        options=_EVEN,
        n_layers=2,
        n_prelude=1,
        n_loops=12,
        max_loops=24,
        carry_norm=True,
        halting="right",
        halt_threshold=0.9,
        deep_supervision=True,
    ),
    _OUTPUT_LOOPED_TRAINING,
    options=_EVEN,
)
# A chain of thought, on runs that end within 32 steps; the context has room for the longer ones of further training.
SCRATCHPAD = _run(
    "scratchpad",
    OUTPUT_MACHINE,
    TrainingConfig(
        steps=7000,
        batch_size=16,
        muon_lr=0.01,
        ema_decay=0.998,
        eval_states=512,
        checkpoint_every=100,
        threads=1,
        validation=True,
    ),
    options=ScratchpadOptions(n_steps=40, units="shown", even=True, longest=32),
)
STEP_INPLACE_LOOPED = RunConfig(
    "step_inplace",
    as_world(MACHINE),
    looped_for("step_inplace", MACHINE, d_model=48, d_mlp=128, n_layers=2, n_loops=3, max_loops=6, step_embedding=True),
    replace(STEP_TRAINING, threads=1, muon_lr=0.005),  # the rate: docs/training.md
)


def _state(architecture: str, *, steps: int = 20_000, rate: float = 2e-3, **sizes: Any) -> RunConfig:
    """`trace` for a model with a state, 250,000 to 500,000 parameters: AdamW alone, constant and then falling."""
    training = TrainingConfig(
        steps=steps,
        optimizer="adamw",
        adamw_lr=rate,
        ema_decay=0.998,
        steps_along=8,
        eval_every=1000,
        eval_states=1000,
        threads=1,
        validation=True,
    )
    model = model_for("trace", TRACE_MACHINE, architecture, options=_SHOWN, seed=training.seed, **sizes)
    return RunConfig("trace", as_world(TRACE_MACHINE), model, training, options=_SHOWN)


def _masked_diffusion(
    task: str,
    spec: Any,
    training: TrainingConfig,
    *,
    options: Any = None,
    filling: Mapping[str, Any] | None = None,
    **sizes: Any,
) -> RunConfig:
    """A task whose answer stands behind its prompt, filled in instead of written; `filling`: fields of how."""
    like = transformer_for(task, spec, options=options, seed=training.seed, **sizes)
    fields = {name: getattr(like, name) for name in like.to_dict() if name not in ("architecture", "attention_dir")}
    n_prompt = TASKS[task](as_world(spec), options).prompt_positions.stop
    model = MaskedDiffusionConfig(**fields, n_prompt=n_prompt, **(filling or {}))
    return RunConfig(task, as_world(spec), model, training, options=options)


STEP_MASKED_DIFFUSION = _masked_diffusion(
    "step",
    MACHINE,
    TrainingConfig(
        steps=14_000, batch_size=16, muon_lr=0.005, eval_every=500, ema_decay=0.998, threads=1, validation=True
    ),
)


# The run of a program, filled in: beside the output's four slots where the run is after 4, 8 … 28 steps, or nothing.
_OUTPUT_FILLED_TRAINING = TrainingConfig(
    steps=15_000,
    batch_size=16,
    muon_lr=0.005,
    eval_every=2000,
    eval_states=512,
    ema_decay=0.998,
    steps_along=20,
    threads=1,
    validation=True,
)
OUTPUT_MASKED_DIFFUSION = _masked_diffusion(
    "output",
    OUTPUT_MACHINE,
    _OUTPUT_FILLED_TRAINING,
    options=OutputOptions(units="shown", even=True, behind=True, scratch=7),
    filling={"denoising_steps": 8, "order": "left_to_right", "tail_block": 8},
)
OUTPUT_MASKED_DIFFUSION_BARE = _masked_diffusion(
    "output",
    OUTPUT_MACHINE,
    replace(_OUTPUT_FILLED_TRAINING, steps=8_000),
    options=OutputOptions(units="shown", even=True, behind=True),
    filling={"denoising_steps": 4},
)


def _diffusion_lm(task: str, spec: Any, training: TrainingConfig, **sizes: Any) -> RunConfig:
    """A task whose answer stands behind its prompt, its embeddings denoised."""
    own = {name: sizes.pop(name) for name in ("denoising_steps", "max_steps") if name in sizes}
    like = transformer_for(task, spec, seed=training.seed, **sizes)
    fields = {name: getattr(like, name) for name in like.to_dict() if name not in ("architecture", "attention_dir")}
    n_prompt = TASKS[task](as_world(spec)).prompt_positions.stop
    return RunConfig(task, as_world(spec), DiffusionLMConfig(**fields, n_prompt=n_prompt, **own), training)


STEP_DIFFUSION_LM = _diffusion_lm(
    "step",
    MACHINE,
    TrainingConfig(
        steps=6000,
        batch_size=16,
        muon_lr=0.005,
        eval_every=500,
        eval_states=750,
        adaptive=0.5,
        ema_decay=0.998,
        threads=1,
        validation=True,
    ),
    denoising_steps=4,
    max_steps=16,
)


def _two_sided(
    task: str, spec: Any, training: TrainingConfig, *, n_encoder: int, options: Any = None, **sizes: Any
) -> RunConfig:
    """A task whose answer stands behind its prompt, read by an encoder and written by a decoder."""
    like = transformer_for(task, spec, options=options, seed=training.seed, **sizes)
    fields = {name: getattr(like, name) for name in like.to_dict() if name not in ("architecture", "attention_dir")}
    n_prompt = TASKS[task](as_world(spec), options).prompt_positions.stop
    model = EncoderDecoderConfig(**fields, n_prompt=n_prompt, n_encoder=n_encoder)
    return RunConfig(task, as_world(spec), model, training, options=options)


STEP_ENCODER_DECODER = _two_sided(
    "step",
    MACHINE,
    TrainingConfig(
        steps=7000,
        batch_size=16,
        muon_lr=0.005,
        eval_every=500,
        adaptive=0.5,
        ema_decay=0.998,
        threads=1,
        validation=True,
    ),
    n_encoder=3,
    n_layers=5,
)
# A program on the encoder's side; a start token and the output's four slots on the decoder's.
OUTPUT_ENCODER_DECODER = _two_sided(
    "output",
    OUTPUT_MACHINE,
    _OUTPUT_FILLED_TRAINING,
    options=OutputOptions(units="shown", even=True, behind=True),
    n_encoder=4,
    n_layers=6,
)
TRACE_RNN = _state("rnn", d_model=256)
TRACE_GRU = _state("gru", d_model=160)
TRACE_LSTM = _state("lstm", steps=50_000, d_model=160)  # an hour of one thread; its rate: docs/training.md
TRACE_LINEAR_ATTENTION = _state("linear_attention", n_layers=4, d_model=96, d_mlp=192, conv_size=4)
TRACE_DELTA = _state("delta", rate=3e-3, n_layers=4, d_model=96, d_mlp=192, conv_size=4)
TRACE_MAMBA = _state("mamba", n_layers=4, d_model=96)
TRACE_MAMBA2 = _state("mamba2", n_layers=4, d_model=96)
