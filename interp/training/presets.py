"""Named runs, everything that `tapelens train --preset NAME` needs, and the transformer that suits a task."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from interp.models import TransformerConfig, config_class
from interp.registry import Registry
from interp.runs import RunConfig
from interp.tasks import TASKS
from interp.worlds import as_world

_MACHINE = "interp.training.machine_presets"
_ADDITION = "interp.training.addition_presets"

STRING_PRESETS = (
    "sticky", "sticky_transformer", "sticky_ngram", "sticky_bigram", "sticky_mlp", "counting", "markov",
)  # fmt: skip
TEXT_PRESETS = (
    "text_small", "text_gru", "text_delta", "text_mamba", "text_looped", "text_masked_diffusion", "text_diffusion_lm",
)  # fmt: skip

SLOT_PRESETS = ("slots_add", "slots_add_straight", "slots_sort", "slots_search", "slots_strings", "slots_alu")

PRESETS: Registry[RunConfig] = Registry(
    "preset",
    {
        "quickstart": f"{_MACHINE}:QUICKSTART",
        "step_inplace": f"{_MACHINE}:STEP_INPLACE",
        "step_inplace_small": f"{_MACHINE}:STEP_INPLACE_SMALL",
        "step": f"{_MACHINE}:STEP",
        "trace": f"{_MACHINE}:TRACE",
        "trace_small": f"{_MACHINE}:TRACE_SMALL",
        "trace_rnn": f"{_MACHINE}:TRACE_RNN",
        "trace_gru": f"{_MACHINE}:TRACE_GRU",
        "trace_lstm": f"{_MACHINE}:TRACE_LSTM",
        "trace_linear_attention": f"{_MACHINE}:TRACE_LINEAR_ATTENTION",
        "trace_delta": f"{_MACHINE}:TRACE_DELTA",
        "trace_mamba": f"{_MACHINE}:TRACE_MAMBA",
        "step_encoder_decoder": f"{_MACHINE}:STEP_ENCODER_DECODER",
        "step_masked_diffusion": f"{_MACHINE}:STEP_MASKED_DIFFUSION",
        "step_diffusion_lm": f"{_MACHINE}:STEP_DIFFUSION_LM",
        "trace_mamba2": f"{_MACHINE}:TRACE_MAMBA2",
        "chain": f"{_MACHINE}:CHAIN",
        "chain_direct": f"{_MACHINE}:CHAIN_DIRECT",
        "output": f"{_MACHINE}:OUTPUT",
        **{name: f"interp.training.string_presets:{name.upper()}" for name in STRING_PRESETS},
        **{name: f"interp.training.text_presets:{name.upper()}" for name in TEXT_PRESETS},
        "addition": f"{_ADDITION}:ADDITION",
        "addition_16": f"{_ADDITION}:ADDITION_16",
        "addition_heads": f"{_ADDITION}:ADDITION_HEADS",
        "addition_long": f"{_ADDITION}:ADDITION_LONG",
        **{name: f"interp.training.slot_presets:{name.upper()}" for name in SLOT_PRESETS},
        "output_even": f"{_MACHINE}:OUTPUT_EVEN",
        "output_looped": f"{_MACHINE}:OUTPUT_LOOPED",
        "scratchpad": f"{_MACHINE}:SCRATCHPAD",
        "output_masked_diffusion": f"{_MACHINE}:OUTPUT_MASKED_DIFFUSION",
        "output_encoder_decoder": f"{_MACHINE}:OUTPUT_ENCODER_DECODER",
        "output_masked_diffusion_bare": f"{_MACHINE}:OUTPUT_MASKED_DIFFUSION_BARE",
        "step_inplace_looped": f"{_MACHINE}:STEP_INPLACE_LOOPED",
    },
)


def transformer_for(
    task_name: str,
    world: Any,
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

    `world` may also be a MachineSpec.

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


def looped_for(
    task_name: str, world: Any, *, options: Any = None, seed: int = 0, d_model: int = 64, **loop: Any
) -> Any:
    """The looped transformer that suits a task, its positions as in `transformer_for`; `loop`: its own fields."""
    sizes = {name: loop.pop(name) for name in ("n_layers", "n_heads", "d_mlp") if name in loop}
    like = transformer_for(task_name, world, options=options, seed=seed, d_model=d_model, **sizes)
    shared = {each.name: getattr(like, each.name) for each in fields(like) if each.name != "architecture"}
    return config_class("looped")(**shared, **loop)


def iterative_thinking(task_name: str, world: Any, *, n_loops: int = 16, options: Any = None, **loop: Any) -> Any:
    """The iterative-thinking model: the input beside what is carried, projected; layers; a carry head; it stops, each
    row by itself, when the carry stops moving, be it in a cycle of two steps, or after `n_loops` steps."""
    thinking = {
        "injection": "concatenate",
        "carry_head": True,
        "carry_norm": True,
        "halting": "fixed_point",
        "halt_threshold": 0.02,
        "halt_periods": 2,
        "n_loops": n_loops,
        "n_layers": 2,
    }
    return looped_for(task_name, world, options=options, **(thinking | loop))


def model_for(
    task_name: str, world: Any, architecture: str, *, options: Any = None, seed: int = 0, **sizes: Any
) -> Any:
    """The config of any architecture but the transformer for a task: its vocabulary and length, and `sizes`.

    Raises:
        ValueError: no such architecture, or a size that it does not take.
    """
    task, config = TASKS[task_name](as_world(world), options), config_class(architecture)
    if unknown := set(sizes) - {each.name for each in fields(config)}:
        raise ValueError(f"the architecture {architecture} takes no {min(unknown)}")
    return config(d_vocab=len(task.vocab), n_ctx=task.n_ctx, seed=seed, **sizes)


def __getattr__(name: str) -> Any:
    """The machines of the presets, which cost the import of the machine."""
    if name.endswith("_MACHINE") and not name.startswith("_"):
        return getattr(import_module(_MACHINE), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
