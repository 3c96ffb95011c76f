"""Chains of thought: what is written against the reference, word by word; how they end; what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec, reference
from interp.models import build_model
from interp.results import Metric
from interp.tasks import TASKS
from interp.tasks.options import ScratchpadOptions
from interp.tasks.scratchpad import Scratchpad
from interp.training.presets import transformer_for

SPEC = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2)
N_STEPS = 12


def task(**options) -> Scratchpad:
    return TASKS["scratchpad"](SPEC, ScratchpadOptions(n_steps=N_STEPS, units="shown", even=True, **options))


def by_hand(state) -> list[str]:
    """The chain and the output of a run, word by word, from the reference machine."""
    words, count = [], {"GET": 0, "PUT": 0}
    for _ in range(N_STEPS + 1):
        after, _ = reference.step(SPEC, state, {})
        name = state.program[state.instruction_ptr].name
        said = f"{name}[{count[name]}]" if name in count else name
        words += [f"ip[{state.instruction_ptr}]", said, f"at[{after.array_ptr}]"]
        words.append(f"NUM_{after.cells[after.array_ptr]}")
        if str(after) == str(state):
            break
        if name in count:
            count[name] += 1
        state = after
    return [*words, "=", *(f"NUM_{value}" for value in state.output), *["EOO"] * (SPEC.n_output - len(state.output))]


def test_a_chain_is_the_references_run() -> None:
    pad = task()
    batch = pad.sample(36, seed=2, split="train")
    seen = set()
    for row in range(36):
        said = [pad.vocab[token] for token in batch.targets[row][batch.loss_mask[row]].tolist()]
        assert said == by_hand(reference.to_state(batch.examples, row))
        assert batch.tokens[row, len(pad.shown) :][: len(said)].tolist() == [pad.id[word] for word in said]
        assert len(said) == 4 * (2 + row % N_STEPS) + 1 + SPEC.n_output  # the step that halts is the last entry
        seen |= set(said)
    assert {"GET[1]", "PUT[1]", "WHILE", "ENDW", "at[2]"} <= seen


def test_runs_are_as_long_as_asked() -> None:
    steps = lambda pad: pad.world.run(pad.draw(20, seed=0, split="train"), N_STEPS + 1, keep="last").n_steps  # noqa: E731
    assert steps(task(longest=5)).tolist() == [1, 2, 3, 4, 5] * 4
    assert steps(task(shortest=4, longest=6)).tolist() == ([4, 5, 6] * 7)[:20]
    with pytest.raises(ValueError, match="shortest <= longest <= n_steps = 12 must hold; got 1 and 13"):
        task(longest=13)
    with pytest.raises(ValueError, match="longest must be an integer from 0 to 4096, got -1"):
        ScratchpadOptions(longest=-1)


def test_an_optional_chain_is_a_part_of_the_whole_one() -> None:
    whole, part = (pad.sample(200, seed=1, split="train") for pad in (task(), task(optional=True)))
    pad = task()
    (full, n_full), (cut, n_cut) = (
        (batch.targets[:, pad.slots].numpy(), pad.outputs(batch.targets[:, pad.slots].numpy())[1])
        for batch in (whole, part)
    )
    for row in range(200):
        assert (cut[row, : n_cut[row]] == full[row, : n_cut[row]]).all()
        ends = [each[row, n[row] :][: 1 + SPEC.n_output].tolist() for each, n in ((full, n_full), (cut, n_cut))]
        assert ends[0] == ends[1]
    assert 0.4 < (n_cut == n_full).mean() < 0.65 and (n_cut == 0).any() and (n_cut % 4 == 0).all()
    assert pad.right(torch.from_numpy(cut), whole).all()  # what is judged is the output
    entries, there = pad.entries_right(torch.from_numpy(cut), whole)
    assert entries.sum() == there.sum() == (n_cut // 4).sum()


def test_a_wrong_entry_counts_as_one() -> None:
    pad = task()
    batch = pad.sample(24, seed=3, split="train")
    written = batch.targets[:, pad.slots].clone()
    written[5, 6] = (written[5, 6] + 1) % len(pad.vocab)
    rows = pad.score(written, batch)
    value = {
        metric: rows.loc[rows["metric"] == metric, "estimate"]
        for metric in (Metric.ENTRIES_RIGHT, Metric.SEQUENCE_MATCH)
    }
    n_entries = int((pad.outputs(written.numpy())[1] // 4).sum())
    assert value[Metric.ENTRIES_RIGHT].item() == pytest.approx(1 - 1 / n_entries)
    assert value[Metric.SEQUENCE_MATCH].item() == pytest.approx(23 / 24)
    assert (rows.loc[rows["metric"] == Metric.EXACT_MATCH, "estimate"] == 1).all()


def test_writing_ends_with_the_output_and_is_what_passes_say() -> None:
    pad = task(longest=4)
    config = transformer_for("scratchpad", pad.world, options=pad.options, n_layers=1, n_heads=1, d_model=16)
    model: Any = build_model(config).eval()
    batch = pad.sample(6, seed=0, split="train")
    prompt = batch.tokens[:, pad.prompt_positions]
    with torch.no_grad():
        model.unembed.b_U[pad.id["="]] = 1.5  # so that some rows end early
    plain = pad.write(lambda tokens: model(tokens), prompt)  # without a cache
    assert torch.equal(pad.write(model, prompt), plain)
    answers = pad.answer(model, batch)
    for row in answers.tolist():
        said = [token for token in row if token >= 0]
        assert row == said + [-1] * (len(row) - len(said))
        if pad.id["="] in said:
            assert len(said) == said.index(pad.id["="]) + 1 + SPEC.n_output
    sampled = [pad.write(model, prompt, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(sampled[0], sampled[1]) and not torch.equal(sampled[0], sampled[2])


def test_labels_are_those_of_the_step_that_is_told() -> None:
    pad = task()
    batch = pad.sample(20, seed=2, split="train")
    labels, n_prompt = pad.labels(batch, "instruction_ptr"), len(pad.shown)
    told = batch.tokens[:, n_prompt::4].numpy() - pad.id["ip[0]"]  # the first token of each entry
    there = labels[:, n_prompt::4] >= 0
    assert (labels[:, n_prompt::4] == told)[there].all() and there.sum() > 100
    assert (labels[:, :n_prompt] == 0).all() and (np.diff(pad.times(batch)[0, :n_prompt]) == 0).all()
