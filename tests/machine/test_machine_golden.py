"""What fixed seeds give, for ever and on every machine: digests of samples, steps, interventions, runs and hashes.

Runs and checkpoints name states by (seed, row), so a change here is a change of every published number. The digests are
of values, not of how rows are packed; the values themselves are held to the reference elsewhere.
"""

import hashlib

import numpy as np
import pytest

from cython_vm import MachineSpec, decode, encode, program_hash, run, sample, step, strata_weights, variable

SPECS = {
    "default": MachineSpec(),
    "smallest": MachineSpec(1, 1, 0, 0, bits=1),
    "largest": MachineSpec(256, 256, 255, 255, bits=8),
    "no io": MachineSpec(7, 3, 2, 2, bits=2, io=False),
    "no loops": MachineSpec(33, 17, 9, 6, bits=5, loops=False),
    "no stops": MachineSpec(64, 10, 0, 12, bits=7, stops=False),
}
GOLDEN = {
    "default": ("33660e4409d84ef1", "776aa16d8d676afd", "e0cdfb8dc67ec589", "933b6d51f7b916e7", "a7c0936afb3b22b7"),
    "smallest": ("1fc09aef9537cf55", "21be43d79098e510", "2911446a6ce8f7c6", "dfb77522bd8aac78", "226e16afbc07ebe3"),
    "largest": ("844fe97164121388", "a1869ddc6ea7f740", "f5de36411997f13d", "628a56266f72d355", "a578366e6040df3a"),
    "no io": ("4a4d33ce99cec900", "21e6c0ccdf9bccbe", "544c691c606e5083", "a04341eb8cd991e5", "57acb7306313f611"),
    "no loops": ("1c59c1e879d1bb17", "d64cf245afdc1dc9", "cfb9e7846e274318", "d21bb630bb57f7a7", "f50a53cf784b9f15"),
    "no stops": ("e04807578b6cf3ad", "a7ea1e338fd4931e", "e5e869269ee68b66", "b884a59b50508aab", "c00092e1079a8c94"),
}  # in the order of STAGES


def digest(*arrays):
    """Of the values, whatever their dtype and the machine's byte order."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(f"{array.shape}".encode())
        state.update(np.ascontiguousarray(array).astype("<i8" if array.dtype != np.uint64 else "<u8").tobytes())
    return state.hexdigest()[:16]


def samples(spec):
    parts = [sample(spec, 200, seed=2026), sample(spec, 50, seed=2**64 - 1, start=2**40)]
    if spec.n_instructions > 2:
        parts += [sample(spec, 50, seed=7, split=split) for split in ("train", "evaluation")]
    parts += [sample(spec, 50, seed=7, weights=strata_weights(spec, branches=branches)) for branches in (True, False)]
    return digest(*(encode(part) for part in parts))


def batch(spec):
    return sample(spec, 300, seed=1, weights=strata_weights(spec, branches=True))


def steps(spec):
    transition = step(batch(spec))
    return digest(encode(transition.next), transition.outcome, *transition.latents.values())


def interventions(spec):
    """Every scalar variable that can be set, and one cell before and after the step."""
    states, arrays = batch(spec), []
    names = [name for name in spec.variables() if "[" not in name and variable(spec, name).settable]
    for name in [*names, "cell[0]", "next_cell[0]"]:
        transition = step(states, {name: (7 * np.arange(300) + 3) % variable(spec, name).n_values(spec)})
        arrays += [encode(transition.next), transition.valid, transition.outcome, *transition.latents.values()]
    return digest(*arrays)


def runs(spec):
    trace = run(batch(spec), 60)
    assert trace.states is not None
    latents = (trace.loop_depth(), trace.loop_iteration(), trace.steps_to_halt())
    return digest(encode(trace.states), trace.n_steps, trace.outcome, *latents)


def hashes(spec):
    return digest(program_hash(sample(spec, 300, seed=3)))


STAGES = (samples, steps, interventions, runs, hashes)


@pytest.mark.parametrize("stage", STAGES, ids=[stage.__name__ for stage in STAGES])
@pytest.mark.parametrize("name", SPECS)
def test_values_are_the_same_for_ever(name, stage):
    assert stage(SPECS[name]) == GOLDEN[name][STAGES.index(stage)]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_tokens_invert(spec):
    """So a digest of tokens is a digest of states."""
    assert decode(spec, encode(batch(spec))) == batch(spec)


def test_a_digest_sees_one_value():
    tokens = encode(batch(SPECS["default"]))
    changed = tokens.copy()
    changed[299, 73] ^= 1
    assert digest(tokens) != digest(changed)
    assert digest(tokens) == digest(tokens.astype(">i4")) == digest(np.asfortranarray(tokens))
    assert digest(tokens) != digest(tokens.reshape(150, -1))
