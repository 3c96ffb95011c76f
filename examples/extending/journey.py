"""The journey of a run, on a world, a task, an architecture, a probe and a scorer that the package does not have."""

import sys
from pathlib import Path

import larger_task
import larger_world
import neighbour_probe  # noqa: F401  # each file enters itself in its registry
import pooled_model
import weight_scorer  # noqa: F401

from interp.circuits import draw_pairs, score_edges
from interp.models import TransformerConfig
from interp.report import write_report
from interp.runs import RunConfig
from interp.stage_options import CircuitOptions, EvaluationOptions, PatchOptions, ProbeOptions
from interp.studies.circuit_stage import circuit_stage
from interp.studies.evaluation_stage import evaluate_stage
from interp.studies.patch_stage import patch_stage
from interp.studies.probe_stage import probe_stage
from interp.training import TrainingConfig, train

world = larger_world.Larger(size=24)
task = larger_task.PickLarger(world)
settings = TrainingConfig(steps=300, batch_size=64, eval_every=100, eval_states=200, threads=1, validation=True)
models = {
    "transformer": TransformerConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_layers=2, n_heads=2, d_model=32),
    "pooled": pooled_model.PooledConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx),
}
for name, model in models.items():
    run = train(RunConfig(task.name, world, model, settings), Path(sys.argv[1]) / name)
    scores = evaluate_stage(run, EvaluationOptions(n=400))
    probes = probe_stage(run, ProbeOptions(methods=("logistic", "neighbour"), n=800))
    swaps = patch_stage(run, PatchOptions(n_pairs=64))
    if run.model.graph() is not None:  # the pooled model has none, and goes without
        circuit_stage(run, CircuitOptions(n_pairs=48, measure=()))
        pairs = draw_pairs(task, "FIRST", 24, seed=0)
        scores_by = {scorer: score_edges(scorer, run.model, pairs) for scorer in ("eap_ig", "nearness")}
    write_report(run)
    print(f"{name}: {scores.estimate.iloc[0]:.1%} right; {len(probes)} rows of probes, {len(swaps)} of swaps")
