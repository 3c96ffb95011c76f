"""The whole interpreter against the machine: no error, and a margin of 5 logits or more, over sizes and noise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from compiled_machine import SPEC, margins, stratified
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import MachineSpec, States, reference, sample
from interp.compiled import Compiled, NoiseConfig, compile_model

MARGIN = 5.0

NOISES = {
    "rotate": NoiseConfig(rotate=True),
    "distractors": NoiseConfig(rotate=True, distractor_heads=2, distractor_neurons=24),
    "antipodal": NoiseConfig(antipodal=True, rotate=True),
    "squeeze": NoiseConfig(squeeze=1),
    "redundant": NoiseConfig(redundant=("op", "array_ptr", "output_length", "input_head")),
    "all": NoiseConfig(True, 1, 8, antipodal=True, redundant=("op",), seed=5),
}


@pytest.fixture(scope="module", params=NOISES)
def noisy(request) -> Compiled:
    return compile_model(SPEC, noise=NOISES[request.param])


@st.composite
def specs(draw) -> MachineSpec:
    return MachineSpec(
        n_instructions=draw(st.integers(1, 24)),
        n_cells=draw(st.integers(1, 12)),
        n_input=draw(st.integers(0, 6)),
        n_output=draw(st.integers(0, 6)),
        bits=draw(st.integers(1, 5)),
        io=draw(st.booleans()),
        loops=draw(st.booleans()),
        stops=draw(st.booleans()),
    )


@settings(max_examples=25, deadline=None)
@given(spec=specs(), task=st.sampled_from(["step_inplace", "step"]), seed=st.integers(0, 2**32))
def test_any_machine_is_run_exactly(spec: MachineSpec, task: str, seed: int) -> None:
    compiled = compile_model(spec, task=task)
    assert margins(compiled, stratified(spec, 34, seed=seed)).min() > MARGIN


@pytest.mark.parametrize(("task", "n"), [("step_inplace", 850), ("step", 170)])
def test_the_default_machine_is_run_exactly(task: str, n: int) -> None:
    spec = MachineSpec()
    compiled = compile_model(spec, task=task)
    assert margins(compiled, stratified(spec, n)).min() > MARGIN
    assert margins(compiled, sample(spec, n, seed=1)).min() > MARGIN


def test_every_state_of_a_small_machine_is_run_exactly() -> None:
    """The 10,800 states of three instructions, two cells of one bit and buffers of one slot."""
    spec = MachineSpec(n_instructions=3, n_cells=2, n_input=1, n_output=1, bits=1)
    buffers = [(), (0,), (1,)]
    plain = [
        reference.State(ip, program, ap, cells, given, written, spec.n_input, spec.n_output)
        for program, ip, ap, cells, given, written in itertools.product(
            reference.all_programs(spec), range(3), range(2), itertools.product(range(2), repeat=2), buffers, buffers
        )
    ]
    assert len(plain) == 10_800
    assert margins(compile_model(spec), reference.to_states(spec, plain)).min() > MARGIN


def test_deep_and_empty_loops_are_run_exactly(compiled: Compiled) -> None:
    """Nested to the limit and side by side; `[]` on a cell that is not 0 jumps to itself."""
    programs = ["[[[]]]", "[][][]", "[[][]]", "[+[-]]"]
    rows = itertools.product(programs, range(7), range(2))
    plain = [(program, ip, value) for program, ip, value in rows]
    states = States.build(
        SPEC,
        program=[program for program, _, _ in plain],
        instruction_ptr=[ip for _, ip, _ in plain],
        cells=[[value] * SPEC.n_cells for _, _, value in plain],
    )
    assert margins(compiled, states).min() > MARGIN


def test_noise_leaves_function_and_margin_alone(noisy: Compiled) -> None:
    assert margins(noisy, stratified(SPEC, 340, seed=3)).min() > MARGIN


@pytest.mark.parametrize("name", ["rotate", "distractors"])
def test_rotation_and_distractors_change_no_logit(inplace: Compiled, name: str) -> None:
    noisy, tokens = compile_model(SPEC, noise=NOISES[name]), inplace.form.task.sample(64, seed=4).tokens
    with torch.inference_mode():
        torch.testing.assert_close(noisy.model(tokens), inplace.model(tokens), atol=1e-3, rtol=0)


def test_distractors_do_something_but_nothing_reads_it() -> None:
    compiled = compile_model(SPEC, noise=NOISES["distractors"])
    junk = compiled.key.directions[compiled.program.slice("distraction")]
    _, cache = compiled.model.run_with_cache(compiled.form.task.sample(16, seed=4).tokens)
    assert (cache["resid_post", 2] @ junk.T).abs().mean() > 0.1
    readers = [parameter for name, parameter in compiled.model.named_parameters() if name.endswith("fc_in.weight")]
    real = {f"a{head.layer}.h" for head in compiled.program.heads}
    assert real and all(len(weights) == len(readers[0]) for weights in readers)
    assert not set(compiled.key.components) & {
        compiled.program.node(head) for head in compiled.program.heads if head.name.startswith("distractor")
    }


def test_either_of_two_copies_will_do() -> None:
    compiled = compile_model(SPEC, noise=NoiseConfig(redundant=("op",)))
    task, states = compiled.form.task, stratified(SPEC, 170, seed=6)
    tokens, right = task.render(states).tokens, torch.from_numpy(task.render(states).targets.numpy())
    writers = [head for head in compiled.program.heads if head.name in ("op", "op_copy")]
    layer, numbers = writers[0].layer, [compiled.program.heads_of(1).index(head) for head in writers]
    for off in ([numbers[0]], [numbers[1]], numbers):

        def silence(z: torch.Tensor, hook: object, off: list[int] = off) -> torch.Tensor:
            z[:, :, off] = 0.0
            return z

        with compiled.model.hooks(fwd_hooks=[(f"blocks.{layer}.attn.hook_z", silence)]), torch.inference_mode():
            exact = (compiled.model(tokens).argmax(-1) == right).all(-1).float().mean()
        assert exact == 1.0 if len(off) == 1 else exact < 0.7


def test_bfloat16_keeps_every_answer() -> None:
    compiled = compile_model(MachineSpec(), noise=NoiseConfig(rotate=True))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert margins(compiled, stratified(MachineSpec(), 170)).min() > MARGIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 64}, r"d_model is short: \d+ features in \d+ subspaces need \d+, got 64"),
        ({"n_heads": 3}, "n_heads is short: the program needs 4, got 3"),
        ({"d_head": 8}, r"d_head is short: the program needs \d+, got 8"),
        ({"d_mlp": 8}, r"d_mlp is short: the program needs \d+, got 8"),
        ({"spec": MachineSpec(padded=True)}, "machines with padded=False; got True"),
        ({"task": "chain"}, "known for the tasks step_inplace and step; got 'chain'"),
        ({"sharpness": 0.0}, "sharpness must be above 0"),
        ({"noise": NoiseConfig(redundant=("instruction_ptr",))}, "'instruction_ptr' cannot be written twice"),
        ({"noise": NoiseConfig(squeeze=99)}, "squeeze must be below"),
    ],
)
def test_what_does_not_fit_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given: dict[str, Any] = {"spec": SPEC} | options
        compile_model(**given)


def test_larger_dimensions_are_left_empty() -> None:
    compiled = compile_model(SPEC, d_model=256, n_heads=5, d_head=32, d_mlp=200)
    assert compiled.model.cfg.d_model == 256
    assert margins(compiled, stratified(SPEC, 170)).min() > MARGIN
    assert np.count_nonzero(compiled.model.blocks[0].attn.W_O[4].detach().numpy()) == 0
