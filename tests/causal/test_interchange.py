"""Interchange accuracy against the machine, on models whose answer is known."""

from typing import Any

import pytest
import torch
from transformer_lens.tools.analysis.interchange import SubspaceInterchange, collect_activations, intervened_logits

from cython_vm import encode, step
from interp.interventions import (
    SharedPairs,
    Site,
    iia_sweep,
    interchange,
    interchange_answers,
    patch_from,
    random_basis,
    residual_sites,
    run_interventions,
)
from interp.results import rows_frame, select

from .conftest import SPEC, random_model
from .test_patching import n_hooks

OPTIONS: dict[str, Any] = {"n_pairs": 24, "n_bootstrap": 50}


def answers_of(task, logits):
    return task.next_state_logits(logits).argmax(-1)


def swept(model, task, base, source, sites, **options):
    return interchange_answers(
        model,
        base.tokens,
        source.tokens,
        interchange(task, sites, base, source),
        positions=torch.from_numpy(task.answer_positions).repeat(len(base), 1),
        **options,
    )


@pytest.mark.parametrize("batch_size", [5, 64])
def test_the_sweep_equals_one_hooked_pass_a_site(model, task, batch_size):
    base, source = task.sample(13, seed=0), task.sample(13, seed=1)
    sites = residual_sites(model, task.position_sets())
    sites += [Site("blocks.1.attn.hook_z", "cells", head=1), Site("blocks.0.mlp.hook_post", "all")]
    sites += [Site("blocks.1.attn.hook_pattern", "cells[@array_ptr]"), Site("hook_embed", "cells")]
    sites += [Site("ln_final.hook_normalized", "cells"), Site("blocks.0.hook_attn_out", "all")]
    found = swept(model, task, base, source, sites, batch_size=batch_size)
    for site, answers in zip(sites, found, strict=False):
        logits = patch_from(model, base, source, site, task=task)
        assert (answers == answers_of(task, logits)).all(), site
    assert (found[-1] == answers_of(task, model(base.tokens))).all()
    assert n_hooks(model) == 0


def test_swapping_all_positions_at_any_layer_is_the_source_run(model, task):
    base, source = task.sample(20, seed=0), task.sample(20, seed=1)
    found = swept(model, task, base, source, residual_sites(model, ["all"]))
    assert (found[:-1] == answers_of(task, model(source.tokens))).all()


def test_agreement_with_transformer_lens(inplace):
    """The same pairs, site and basis as transformer_lens's own interchange: the same logits decide."""
    model = random_model(inplace)
    base, source = inplace.sample(20, seed=0), inplace.sample(20, seed=1)
    basis = random_basis(6, 16, generator=torch.Generator().manual_seed(1))
    site = Site("blocks.0.hook_resid_post", "cells[@array_ptr]")
    (swap,) = interchange(inplace, [site], base, source, bases=[basis])
    ours = interchange_answers(model, base.tokens, source.tokens, [swap], answer=lambda logits: logits)[0]
    taken = collect_activations(model, site.hook, source.tokens, model, positions=swap.source_positions[:, 0])
    theirs = intervened_logits(
        model,
        site.hook,
        SubspaceInterchange(basis.T),
        base.tokens,
        taken,
        model,
        positions=swap.base_positions[:, 0],
    )
    torch.testing.assert_close(ours, theirs)


def find(frame, **key):
    for column, value in ({"metric": "iia"} | key).items():
        frame = frame[frame[column].isna() if value is None else frame[column] == value]
    assert len(frame) == 1, (key, len(frame))
    return frame.iloc[0]


@pytest.mark.parametrize("name", ["array_ptr", "instruction_ptr", "cell[1]"])
def test_source_is_base_with_a_stored_variable_changed(inplace, copier, name):
    """Then swapping the whole input gives the model's answer on source, and the machine's answer is source's own."""
    rows = iia_sweep(copier, inplace, [name], residual_sites(copier, ["all"]), design="minimal", **OPTIONS)
    drawn = inplace.counterfactual(24, name, seed=0, design="minimal")
    right = inplace.exact(inplace.predict(copier, drawn.source.tokens), step(drawn.source.examples).next)
    assert 0 < right.mean() < 1
    for hook in ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"):
        row = find(rows_frame(rows), site=hook, stratum="all", control=None)
        assert row.estimate == pytest.approx(right.mean())


def test_the_copier_keeps_a_variable_where_the_input_has_it(inplace, copier):
    """The model that copies: swapping a block changes that block of the answer and no other, at every layer."""
    sites = residual_sites(copier, ["array_ptr", "cells"])
    frame = rows_frame(iia_sweep(copier, inplace, ["array_ptr"], sites, n_pairs=64, n_bootstrap=50))
    drawn = inplace.counterfactual(64, "array_ptr", seed=0)
    edited = drawn.base.examples.replace("array_ptr", drawn.source.examples.array_ptr)
    right = (encode(edited) == drawn.expected.numpy()).all(1)  # frozen after the edit
    for site in sites:
        moved = find(frame, site=site.hook, position="array_ptr", stratum="changes", control=None)
        stayed = find(frame, site=site.hook, position="array_ptr", stratum="changes", control="unpatched")
        chosen = drawn.changes
        if moved.n == chosen.sum():  # no further pairs were needed
            assert moved.estimate == pytest.approx(right[chosen].mean())
        assert moved.estimate > 0.1
        assert stayed.estimate == 0  # an unchanged answer is wrong wherever the right one changes
        wrong = find(frame, site=site.hook, position="cells", stratum="changes", control=None)
        assert wrong.estimate < moved.estimate
        assert moved.ci_low <= moved.estimate <= moved.ci_high


def test_strata_are_a_partition_and_controls_share_their_row_s_key(task, model):
    untrained = random_model(task, seed=9)
    names = ["operand", "array_ptr"]
    site = Site("blocks.0.hook_resid_post", "cells[@array_ptr]")
    basis = random_basis(3, 16, generator=torch.Generator().manual_seed(0))
    rows = iia_sweep(model, task, names, [site], untrained=untrained, subspaces={("operand", site): basis}, **OPTIONS)
    frame = rows_frame(rows)
    rates = select(frame, metric="redraw_rate")
    assert list(rates.variable) == names
    assert rates.estimate.between(0, 1).all()
    frame = select(frame, metric="iia")
    key = [column for column in frame.columns if column not in ("control", "estimate", "ci_low", "ci_high")]
    full = {"unpatched", "untrained_model", "wrong_site"}
    for _, group in frame.groupby(key, dropna=False):
        assert group.control.isna().sum() == 1
        subspace = set(group.method) == {"probe_subspace"}
        assert set(group.control.dropna()) == ({"unpatched", "random_subspace", "wrong_site"} if subspace else full)
        assert set(frame.loc[group.index, "rank"].dropna()) == ({3} if subspace else set())
    for name in names:
        part = select(frame, variable=name, method="full_vector", control=None)
        n = dict(zip(part.stratum, part.n, strict=True))
        assert n["all"] == 24
        assert n["changes"] + n["same"] >= 24


def test_pairs_are_shared_and_hold_the_machine_s_answer(inplace):
    names = inplace.swappable()
    assert {"instruction_ptr", "array_ptr", "op", "operand", "jump_target", "result", "outcome"} <= set(names)
    pairs = SharedPairs.draw(inplace, names, n_pairs=40, n_changing=20, seed=2)
    assert len(pairs) < 0.7 * sum(map(len, pairs.members.values()))
    for name in names:
        rows = pairs.members[name]
        base, source = pairs.base.examples[rows], pairs.source.examples[rows]
        do = step(base, do={name: inplace.labels(pairs.source, name)[rows]})
        assert do.valid.all()
        assert (encode(do.next) == pairs.targets[name].numpy()).all()
        assert (pairs.changes[name] == ~do.next.equal(step(base).next)).all()
        assert len(base) == len(source) >= 40


def test_rare_changes_are_looked_for(inplace):
    plain = SharedPairs.draw(inplace, ["jump_target"], n_pairs=40, seed=2)
    more = SharedPairs.draw(inplace, ["jump_target"], n_pairs=40, n_changing=12, seed=2)
    few = int(plain.changes["jump_target"].sum())
    assert few < int(more.changes["jump_target"].sum()) <= 12
    assert (more.changes["jump_target"][:40] == plain.changes["jump_target"]).all()
    assert more.changes["jump_target"][40:].all()


def test_step_shows_the_counterfactual_answer(model, task):
    pairs = SharedPairs.draw(task, ["operand"], n_pairs=10, seed=0)
    if task.name == "step":
        length = SPEC.state_length
        rows = pairs.members["operand"]
        for batch in (pairs.base, pairs.source):
            assert (batch.tokens[rows, length:] == pairs.targets["operand"]).all()


def test_the_experiment_resumes(inplace):
    model, calls, saved = random_model(inplace), [], []
    options: dict[str, Any] = {"variables": ["operand", "array_ptr"], "position_sets": ["cells"], "n_pairs": 12}
    options["designs"] = ("independent", "minimal")
    rows = run_interventions(
        model,
        inplace,
        save=saved.append,
        progress=lambda done, total, label: calls.append((done, total, label)),
        **options,
    )
    assert [row for part in saved for row in part] == rows
    assert len(saved) == 3  # one sweep for independent pairs, one for each variable's minimal ones
    assert calls[-1][0] == calls[-1][1] == 3
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    done = {("operand", "independent"), ("array_ptr", "independent"), ("operand", "minimal")}
    assert run_interventions(model, inplace, done=done, **options) == saved[2]


def test_variables_that_no_single_edit_decides_have_no_minimal_pairs(inplace):
    names = ["output_length", "operand"]
    assert [inplace.has_minimal_pairs(name) for name in names] == [False, True]
    with pytest.raises(ValueError, match="'output_length' has no minimal pairs"):
        inplace.counterfactual(4, "output_length", seed=0, design="minimal")
    options: dict[str, Any] = {"position_sets": ["cells"], "n_pairs": 8}
    rows = run_interventions(random_model(inplace), inplace, variables=names, designs=("minimal",), **options)
    assert {row["variable"] for row in rows} == {"operand"}


def test_a_complete_subspace_scores_as_the_full_vector(inplace, copier):
    """One sweep for all subspaces of a variable puts each answer at its own site."""
    sites = residual_sites(copier, ["array_ptr", "cells[@array_ptr]"])
    size = copier.cfg.d_model
    subspaces = {
        (name, site): random_basis(size, size, generator=torch.Generator().manual_seed(1))
        for name in ("array_ptr", "result")
        for site in sites
    }
    frame = rows_frame(iia_sweep(copier, inplace, ["array_ptr", "result"], sites, subspaces=subspaces, **OPTIONS))
    for name, site in subspaces:
        key = {"variable": name, "site": site.hook, "position": site.positions, "stratum": "all", "control": None}
        full, subspace = find(frame, method="full_vector", **key), find(frame, method="probe_subspace", **key)
        assert subspace.estimate == full.estimate
    assert select(frame, method="full_vector", control=None, stratum="all").estimate.nunique() > 2


def test_bad_input_is_refused(inplace):
    model = random_model(inplace)
    sites = residual_sites(model, ["cells"])
    with pytest.raises(ValueError, match="operands"):
        iia_sweep(model, inplace, ["operands"], sites, **OPTIONS)
    with pytest.raises(ValueError, match="no hook"):
        iia_sweep(model, inplace, ["operand"], [Site("blocks.9.hook_resid_pre")], **OPTIONS)
    with pytest.raises(ValueError, match="orthonormal"):
        iia_sweep(model, inplace, ["operand"], sites, subspaces={("operand", sites[0]): torch.ones(2, 16)}, **OPTIONS)
    with pytest.raises(ValueError, match="rank must be from 1 to 16, got 17"):
        random_basis(17, 16, generator=torch.Generator())


def test_answers_do_not_depend_on_the_batch(inplace):
    model = random_model(inplace)
    rows = [
        iia_sweep(model, inplace, ["operand"], residual_sites(model, ["cells"]), batch_size=b, **OPTIONS)
        for b in (7, 99)
    ]
    assert [row["estimate"] for row in rows[0]] == pytest.approx([row["estimate"] for row in rows[1]])
