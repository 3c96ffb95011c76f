"""Train a small model, cache its activations, and ask where it first knows the current instruction."""

from interp.interventions import Site, collect
from interp.runs import RunConfig
from interp.training import TrainingConfig, train
from interp.training.presets import SMALL_MACHINE, transformer_for
from probes import LogisticProbe

config = RunConfig(
    "step_inplace",
    SMALL_MACHINE,
    transformer_for("step_inplace", SMALL_MACHINE),
    TrainingConfig(steps=250, eval_states=150, threads=1),
)
run = train(config, "runs/example")
fit, held = (run.task.sample(2000, seed=0, split=split) for split in ("train", "evaluation"))
for hook in ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(4))]:
    site = Site(hook, "cells[@array_ptr]")  # the cell under the pointer, wherever it is
    x, held_x = (collect(run.model, batch, [site], task=run.task)[site][:, 0] for batch in (fit, held))
    probe = LogisticProbe().fit(x, run.task.labels(fit, "op"))
    print(f"{hook:28} {probe.score(held_x, run.task.labels(held, 'op')):.1%}")
