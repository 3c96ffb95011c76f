"""Train a small model on streams that never show the tape, read the pointer out of it, and write another value there.

Takes under three minutes on two cores. With arguments: optimizer steps, tokens to probe, pairs to edit.
"""

import sys
from pathlib import Path
from tempfile import mkdtemp

from cython_vm import MachineSpec
from interp.options import TaskOptions
from interp.probing import SweepConfig
from interp.probing.page import write_probing_page
from interp.probing.stage import probe_run
from interp.probing.summary import read_and_written
from interp.results import Control, Metric, select
from interp.runs import RunConfig
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for

steps, n_tokens, n_pairs = map(int, sys.argv[1:4] or (800, 6000, 64))
spec = MachineSpec(n_instructions=16, n_cells=3, n_input=6, n_output=6, bits=2)
options = TaskOptions(n_steps=20)
model = transformer_for("trace", spec, options=options, n_layers=2, n_heads=4, d_model=48)
training = TrainingConfig(steps=steps, batch_size=32, eval_every=steps, eval_states=200, threads=1)
run = train(RunConfig("trace", spec, model, training, options=options), Path(mkdtemp()) / "streams")

batch = run.task.sample(300, seed=1)
scores = run.task.score(run.task.answer(run.model, batch), batch)
print(scores[scores.metric == Metric.EXACT_MATCH][["op", "stratum", "estimate", "n"]].to_string(index=False))

# Every variable at every layer, at the tokens where the model must answer, with controls and edits along each probe.
config = SweepConfig(variables=("array_ptr", "operand", "cell[0]", "cell[1]", "cell[2]"), places=("asked",), n=n_tokens)
rows = probe_run(run, config=config, n_edits=n_pairs)
for control in (None, Control.CONTROL_TASK, Control.UNTRAINED_MODEL):
    accuracy = select(rows[rows.stratum.isna()], metric=Metric.ACCURACY, control=control)
    print("\naccuracy,", control or "probe")
    print(accuracy.pivot(index="variable", columns="site", values="estimate").round(2).to_string())

print("\nread and written")
print(read_and_written(rows).round(3).to_string(index=False))
print(f"\nthe same as a page with a heat map: {write_probing_page([run], run.path)}")
