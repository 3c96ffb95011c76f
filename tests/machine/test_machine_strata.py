"""Strata by loop depth and by jump distance: uniform inside, at any size."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from cython_vm import SPLITS, MachineSpec, Op, in_split, program_hash, reference, sample, step, strata_weights, variable

SMALL = MachineSpec(n_instructions=6, n_cells=2, n_input=0, n_output=0, io=False, stops=False)


def distance(program, slot):
    partner = reference.partner(program, slot)
    return 0 if partner is None else abs(partner - slot)


def depth(program, slot):
    return sum((op == Op.WHILE) - (op == Op.ENDW) for op in program[:slot])


@pytest.mark.parametrize(("by", "measure"), [("loop_depth", depth), ("jump_distance", distance)])
def test_pairs_of_program_and_pointer_are_uniform_inside_a_stratum(by, measure):
    pairs = [(program, slot) for program in reference.all_programs(SMALL) for slot in range(SMALL.n_instructions)]
    strata = {measure(program, slot) for program, slot in pairs}
    weights = strata_weights(SMALL, by=by)
    assert set(np.flatnonzero(weights)) == strata
    for stratum in strata:
        asked = np.zeros_like(weights)
        asked[stratum] = 1
        states = sample(SMALL, 20_000, seed=7, weights=asked, by=by)
        drawn = Counter(zip(map(bytes, states.program), states.instruction_ptr.tolist(), strict=True))
        members = [(bytes(program), slot) for program, slot in pairs if measure(program, slot) == stratum]
        assert set(drawn) <= set(members)
        few = len(members) > 2_000  # too many for the draws: compare their first ops alone
        counts = Counter(key[0][0] if few else key for key in drawn.elements())
        wanted = Counter(key[0][0] if few else key for key in members)
        expected = np.array([wanted[key] for key in wanted]) * len(states) / len(members)
        assert chisquare([counts[key] for key in wanted], expected).pvalue > 1e-5, (by, stratum)


def test_weights_share_out_the_strata():
    spec = MachineSpec()
    weights = np.zeros_like(strata_weights(spec, by="jump_distance"))
    weights[[0, 3, 13]] = 1, 2, 1
    states = sample(spec, 8_000, seed=0, weights=weights, by="jump_distance")
    latents = step(states).latents
    jump = np.abs(latents["jump_target"] - 1 - latents["instruction_ptr"])
    found = np.where(latents["jump_target"] < 0, 0, jump)
    assert set(found) == {0, 3, 13}
    assert chisquare([(found == d).sum() for d in (0, 3, 13)], [2000, 4000, 2000]).pvalue > 1e-4


@pytest.mark.parametrize("split", SPLITS)
def test_the_rarest_strata_of_the_longest_machine_are_drawn_directly(split):
    spec = MachineSpec(n_instructions=256)
    for by, stratum in (("loop_depth", 127), ("loop_depth", 60), ("jump_distance", 254), ("jump_distance", 200)):
        weights = np.zeros_like(strata_weights(spec, by=by))
        weights[stratum] = 1
        states = sample(spec, 20, seed=1, weights=weights, by=by, split=split)
        assert in_split(program_hash(states), split).all()
        if by == "loop_depth":
            assert (variable(spec, "loop_depth").read(states) == stratum).all()
        else:
            latents = step(states).latents
            assert (np.abs(latents["jump_target"] - 1 - latents["instruction_ptr"]) == stratum).all()


def test_rows_do_not_depend_on_the_batch():
    spec = MachineSpec()
    for by in ("loop_depth", "jump_distance"):
        weights = strata_weights(spec, by=by)
        whole = sample(spec, 300, seed=4, weights=weights, by=by)
        assert sample(spec, 100, seed=4, start=150, weights=weights, by=by) == whole[150:250]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "depth"}, "by must be one of outcome, loop_depth, jump_distance, got 'depth'"),
        ({"by": "loop_depth"}, "by='loop_depth' needs weights"),
        ({"by": "loop_depth", "weights": [1.0, 2.0]}, r"weights must be \[8\] for by='loop_depth' on this machine"),
        ({"by": "jump_distance", "weights": np.ones((9, 8))}, r"weights must be \[14\]"),
    ],
)
def test_bad_strata_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sample(MachineSpec(), 3, seed=0, **options)


def test_machines_without_loops_have_one_stratum():
    spec = MachineSpec(loops=False)
    assert strata_weights(spec, by="loop_depth").tolist() == [1] + [0] * 7
    assert len(sample(spec, 5, seed=0, weights=strata_weights(spec, by="jump_distance"), by="jump_distance")) == 5
    with pytest.raises(ValueError, match="loop_depth 1, which cannot occur"):
        sample(spec, 5, seed=0, weights=[1, 1, 0, 0, 0, 0, 0, 0], by="loop_depth")
