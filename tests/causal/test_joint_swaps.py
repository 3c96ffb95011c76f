"""Several swaps in one run, the search for positions, and subspaces, on the model that copies its input."""

from typing import Any

import numpy as np
import pytest
import torch

from cython_vm import encode, step
from interp.figures import where_kept
from interp.interventions import (
    JointPairs,
    Site,
    best_places,
    deepen,
    jobs_done,
    joint_rows,
    mean_difference_basis,
    named_sites,
    run_interventions,
    site_column,
    smallest_set,
    swapped_answers,
)
from interp.results import records, rows_frame, select

from .conftest import random_model
from .test_patching import n_hooks

MIDDLE = "blocks.0.hook_resid_post"
NAMES = ["array_ptr", "cell[1]"]
SITES = [Site(MIDDLE, "array_ptr"), Site(MIDDLE, "cells[1]")]


def test_the_machine_answers_with_both_set(inplace):
    pairs = JointPairs.draw(inplace, NAMES, n_pairs=40, seed=0)
    base, (first, second) = pairs.base.examples, (source.examples for source in pairs.sources)
    do = {"array_ptr": first.array_ptr, "cell[1]": second.cells[:, 1]}
    assert (step(base, do=do).tokens() == pairs.targets.numpy()).all()
    single = [step(base, do={name: value}).tokens() != pairs.targets.numpy() for name, value in do.items()]
    assert (pairs.both == np.all([each.any(1) for each in single] + [pairs.changes], axis=0)).all()
    assert 10 <= pairs.both.sum() < len(pairs)


def test_two_variables_from_two_sources(inplace, copier):
    """The copier is right wherever the edited state freezes; the sources exchanged, or one alone, never are."""
    frame = rows_frame(joint_rows(copier, inplace, NAMES, SITES, n_pairs=80, n_bootstrap=50))
    pairs = JointPairs.draw(inplace, NAMES, n_pairs=80, seed=0)
    first, second = (source.examples for source in pairs.sources)
    edited = pairs.base.examples.replace("array_ptr", first.array_ptr).replace("cell[1]", second.cells[:, 1])
    right = (encode(edited) == pairs.targets.numpy()).all(1)
    both = select(frame, stratum="both", pair_design="joint", metric="iia")
    assert set(both.control.dropna()) == {"unpatched", "single_swap", "wrong_site"}
    estimate = {row["control"]: row["estimate"] for row in records(both)}
    assert estimate[None] > 0.1
    assert estimate["unpatched"] == estimate["single_swap"] == 0
    assert estimate["wrong_site"] < estimate[None]
    assert estimate[None] == pytest.approx(right[pairs.both].mean())


def test_one_source_at_every_position_and_two_layers_is_the_source_run(model, task):
    base, source = task.sample(9, seed=0), task.sample(9, seed=1)
    swaps = [(Site("blocks.0.hook_resid_pre", "cells"), source), (Site("blocks.1.hook_resid_pre", "all"), source)]
    found = swapped_answers(model, task, base, swaps, batch_size=4)
    assert (found == task.next_state_logits(model(source.tokens)).argmax(-1)).all()
    assert n_hooks(model) == 0
    with pytest.raises(ValueError, match="cannot be put in one place"):
        swapped_answers(model, task, base, [swaps[0], (Site("blocks.0.hook_resid_pre", "cells[0]"), source)])
    with pytest.raises(ValueError, match="two or more different variables"):
        JointPairs.draw(task, ["op"], n_pairs=4, seed=0)


def test_the_search_finds_the_slots_that_hold_a_variable(inplace, copier):
    """The copier keeps a cell in its own slot, and the pointer in the block of its one-hot."""
    found = smallest_set(copier, inplace, "cell[1]", MIDDLE, n_pairs=40)
    assert found.site == Site(MIDDLE, "cells[1]")
    assert found.n_positions == 1
    found = smallest_set(copier, inplace, "array_ptr", MIDDLE, n_pairs=40)
    slots = [f"array_ptr[{index}]" for index in range(inplace.spec.n_cells)]
    assert set(found.site.positions.split("+")) <= set(slots)
    assert found.n_positions >= inplace.spec.n_cells - 1
    assert found.iia_fit >= found.path[0][1] - 0.03


def test_mean_differences_of_the_copier_span_the_tokens(inplace, copier):
    """Its stream is the token's one-hot: class means of a cell differ along the number tokens, and nowhere else."""
    basis = mean_difference_basis(copier, inplace, "cell[1]", Site(MIDDLE, "cells[1]"))
    numbers = [inplace.spec.number_id(value) for value in range(2**inplace.spec.bits)]
    assert len(basis) == len(numbers) - 1
    inside = torch.zeros(basis.shape[1])
    inside[numbers] = 1
    torch.testing.assert_close((basis * inside).square().sum(1), torch.ones(len(basis)))
    with pytest.raises(ValueError, match="rank must be at most 3"):
        mean_difference_basis(copier, inplace, "cell[1]", Site(MIDDLE, "cells[1]"), rank=4)


def test_deepening_goes_on_where_it_stopped(inplace):
    model, saved = random_model(inplace), []
    options: dict[str, Any] = {"n_pairs": 16, "seed": 0}
    names = ["operand", "array_ptr"]
    sets = ["cells[@array_ptr]", "array_ptr", "all"]
    rows = run_interventions(model, inplace, variables=names, position_sets=sets, designs=("independent",), **options)
    further: dict[str, Any] = {"variables": names[:1], "methods": ("mean_difference",), "pairs_of": [tuple(names)]}
    new = deepen(model, inplace, rows, untrained=random_model(inplace, seed=9), save=saved.append, **further, **options)
    frame: Any = rows_frame([*rows, *new])
    assert [row for part in saved for row in part] == new
    means: Any = select(frame, method="mean_difference", pair_design="independent")
    assert set(means.control.dropna()) == {"unpatched", "random_subspace", "wrong_site", "untrained_model"}
    assert means["rank"].nunique() == 1
    place = best_places(rows, "operand", [MIDDLE])[0][0]
    assert jobs_done(new) == {
        ("operand", "mean_difference", None, f"{place.hook} at {place.positions}"),
        ("operand & array_ptr", "joint", None, ""),
    }
    assert deepen(model, inplace, rows, done=jobs_done(new), **further, **options) == []
    twice = deepen(model, inplace, rows, done=jobs_done(new), places=2, **further, **options)
    assert {(row["site"], row["position"]) for row in twice} == {
        (best_places(rows, "operand", [MIDDLE])[1][0].hook, best_places(rows, "operand", [MIDDLE])[1][0].positions)
    }
    figure: Any = where_kept(frame)
    kept: Any = select(frame, variable="operand", stratum="changes", control=None, method="full_vector", metric="iia")
    assert figure.data[0].z[0][0] == pytest.approx(kept.estimate.iloc[0])
    with pytest.raises(ValueError, match="no method 'das2'"):
        deepen(model, inplace, rows, variables=names, methods=("das2",))


def test_hooks_by_short_names(inplace):
    model = random_model(inplace)
    z, post = "attn.hook_z", "mlp.hook_post"
    heads = named_sites(model, [f"{z}[*]"], ["cells"])
    assert heads == [Site(f"blocks.{layer}.{z}", "cells", head) for layer in range(2) for head in range(2)]
    assert named_sites(model, [f"{z}[1]"], ["cells"]) == heads[1::2]
    assert named_sites(model, [f"blocks.1.{post}"], ["cells", "input"])[1] == Site(f"blocks.1.{post}", "input")
    assert [site.hook for site in named_sites(model, ["hook_resid_post"], ["all"])] == [
        "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"
    ]  # fmt: skip
    for wrong, message in (("mlp.hook_pots", "no hook 'mlp.hook_pots'"), (f"{z}[2]", "head must be from 0 to 1"),
                           (f"{z}[a]", "spelt like")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            named_sites(model, [wrong], ["all"])
    options: dict[str, Any] = {"n_pairs": 12, "seed": 0}
    sites = [*heads, *named_sites(model, [post], ["cells[@array_ptr]"])]
    rows = run_interventions(model, inplace, variables=["operand"], sites=sites, designs=("independent",), **options)
    best = best_places(rows, "operand", [], sites=sites)
    assert {site for site, _ in best} == set(sites)
    found = [iia for _, iia in best]
    assert found == sorted(found, reverse=True)
    further = deepen(model, inplace, rows, variables=["operand"], methods=("mean_difference",), sites=sites, **options)
    assert {(row["site"], row["position"]) for row in further} == {(site_column(best[0][0]), best[0][0].positions)}
