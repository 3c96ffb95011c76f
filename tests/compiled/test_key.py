"""The answer key against the model: interchange, patching through hooks, and exact edge patching find what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled_machine import SPEC, stratified

from cython_vm import MachineSpec, Op, sample, step, strata_weights, variable
from interp.calibration import true_effects, with_circuits
from interp.circuits import Graph, draw_pairs
from interp.circuits.exact import exact_effects
from interp.compiled import AnswerKey, CircuitKey, Compiled, NoiseConfig, Place, compile_model
from interp.compiled.key import edge_matrix
from interp.interventions import collect
from interp.interventions.patching import Patch, patched
from interp.tasks.sites import Site

TINY = MachineSpec(n_instructions=5, n_cells=3, n_input=1, n_output=1, bits=1)
NOISE = NoiseConfig(rotate=True, distractor_heads=1, distractor_neurons=4, seed=1)


@torch.inference_mode()
def swap_in(compiled: Compiled, hook: str, places: tuple[Place, ...], base, source) -> torch.Tensor:
    """The model's answers on base with these places taken from source."""
    task = compiled.form.task
    sites = {place.positions: Site(hook, place.positions) for place in places}
    taken = collect(compiled.model, source, list(sites.values()), task=task)
    patches = [
        Patch(
            hook,
            task.resolve(place.positions, base),
            taken[sites[place.positions]],
            basis=compiled.key.basis(place),
        )
        for place in places
    ]
    with patched(compiled.model, patches):
        return compiled.form.task.next_state_logits(compiled.model(base.tokens)).argmax(-1)


def settable(key: AnswerKey) -> list[str]:
    """One member of each family is enough."""
    return [name for name, found in key.variables.items() if found.swaps and ("[" not in name or name.endswith("[1]"))]


def test_swapping_a_variable_at_its_true_places_is_the_machine_s_do(compiled: Compiled) -> None:
    """IIA is 1.000 for every variable at every point that the key names, where the answer changes as elsewhere."""
    task, n_swaps = compiled.form.task, 0
    for name in settable(compiled.key):
        drawn = task.counterfactual(40, name, seed=1, weights=strata_weights(SPEC, branches=True))
        answers = drawn.expected.numpy()
        base, source = (task.render(part.examples, answers) for part in (drawn.base, drawn.source))
        assert drawn.changes.any(), name
        for swap in compiled.key.variables[name].swaps:
            found = swap_in(compiled, swap.hook, swap.places, base, source)
            assert torch.equal(found, drawn.expected), (name, swap.hook)
            n_swaps += 1
    assert n_swaps > 25


def test_swaps_hold_in_a_rotated_basis_and_fail_in_another_subspace() -> None:
    compiled = compile_model(SPEC, noise=NOISE)
    task = compiled.form.task
    for name in ("op", "array_ptr", "outcome"):
        drawn = task.counterfactual(64, name, seed=2)
        swap = compiled.key.variables[name].swaps[-1]
        found = swap_in(compiled, swap.hook, swap.places, drawn.base, drawn.source)
        assert torch.equal(found, drawn.expected)
        elsewhere = tuple(
            dataclasses.replace(place, features=tuple(range(len(place.features)))) for place in swap.places
        )
        wrong = swap_in(compiled, swap.hook, elsewhere, drawn.base, drawn.source)
        assert (wrong == drawn.expected).all(-1).float().mean() < 0.9


def test_a_variable_matters_while_it_is_live_and_never_after(compiled: Compiled) -> None:
    """Overwriting what a component wrote changes answers up to the last reader, and nothing from there on."""
    task, key = compiled.form.task, compiled.key
    base = task.render(stratified(SPEC, 51, seed=3))
    source = task.render(stratified(SPEC, 51, seed=4), step(base.examples).tokens())
    with torch.inference_mode():
        plain = task.next_state_logits(compiled.model(base.tokens)).argmax(-1)
    seen = set()
    for name in ("op", "operand", "array_ptr", "output_length", "jump_target", "outcome"):
        carrier = next(carrier for carrier in key.variables[name].carriers if carrier.kind == "written")
        for point in range(carrier.first, len(key.hooks)):
            found = swap_in(compiled, key.hooks[point], (carrier.place,), base, source)
            live = point <= carrier.last
            assert torch.equal(found, plain) != live, (name, key.hooks[point])
            seen.add(live)
    assert seen == {True, False}


def test_what_no_component_writes_has_no_place(compiled: Compiled) -> None:
    assert "steps_to_halt" not in compiled.key.variables and compiled.key.live("steps_to_halt") == []
    assert not compiled.key.variables["loop_depth"].swaps
    assert not variable(SPEC, "loop_depth").settable


@pytest.mark.parametrize(
    "noise", [NoiseConfig(), NOISE, NoiseConfig(redundant=("op",))], ids=["clean", "noisy", "twice"]
)
def test_exact_patching_finds_the_true_edges(noise: NoiseConfig) -> None:
    """Effects by the declarations and by patching the model agree on every edge, to what attention leaks."""
    compiled = compile_model(TINY, noise=noise, sharpness=16.0)
    graph = Graph.of(compiled.model)
    edges = [graph.edge(row, column) for row, column in np.argwhere(graph.mask)]
    for op in (Op.WHILE, Op.GET) if noise == NoiseConfig() else (Op.WHILE,):
        pairs = draw_pairs(compiled.form.task, op.name, 12, seed=5)
        patched_effects = exact_effects(compiled.model, pairs, edges)
        declared = true_effects(compiled.form, noise, pairs, sharpness=16.0)
        expected = np.array([declared.edges.get(edge.name, np.zeros(len(pairs))) for edge in edges])
        assert np.abs(patched_effects - expected).max() < 2e-3
        assert 5 <= (np.abs(expected) > 1).any(axis=1).sum() < 20


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_ablating_a_node_through_its_hook_does_what_the_key_says(ablation: str) -> None:
    compiled = compile_model(TINY, sharpness=16.0)
    model, task = compiled.model, compiled.form.task
    pairs = draw_pairs(task, Op.INC.name, 12, seed=6)
    declared = true_effects(compiled.form, NoiseConfig(), pairs, ablation=ablation, sharpness=16.0)
    reference = task.render(sample(TINY, 256, seed=1)).tokens
    model.set_use_attn_result(True)
    with torch.inference_mode():
        before = pairs.logit_difference(model(pairs.clean.tokens))
        corrupted, cache = model.run_with_cache(pairs.corrupted.tokens)
        _, means = model.run_with_cache(reference)
        for node, effect in declared.nodes.items():
            hook, head = _hook_of(node)
            value = {"resample": cache[hook], "mean": means[hook].mean(0), "zero": torch.zeros_like(cache[hook])}[
                ablation
            ]

            def ablate(activation: torch.Tensor, hook: object, head=head, value=value) -> torch.Tensor:
                if head is None:
                    return value.expand_as(activation)
                activation = activation.clone()
                activation[:, :, head] = value[..., head, :]
                return activation

            with model.hooks(fwd_hooks=[(hook, ablate)]):
                found = pairs.logit_difference(model(pairs.clean.tokens)) - before
            assert np.abs(found.numpy() - effect).max() < 5e-3, node
    model.set_use_attn_result(False)
    assert torch.isfinite(corrupted).all()


def _hook_of(node: str) -> tuple[str, int | None]:
    if node == "input":
        return "blocks.0.hook_resid_pre", None
    if node.startswith("m"):
        return f"blocks.{node[1:]}.hook_mlp_out", None
    layer, head = node[1:].split(".h")
    return f"blocks.{layer}.attn.hook_result", int(head)


def test_the_circuits_of_the_key_are_those_of_the_instructions() -> None:
    compiled = with_circuits(compile_model(TINY), n_pairs=4)
    key, graph = compiled.key, Graph.of(compiled.model)
    heads = {head.name: compiled.program.node(head) for head in compiled.program.heads}
    inc, jump = key.circuit("INC", outcome="RAN"), key.circuit("WHILE")
    assert f"{heads['instruction_ptr']}->{heads['op']}<q>" in inc.edges
    assert heads["match_forward"] in jump.nodes and heads["match_forward"] not in inc.nodes
    assert heads["match_backward"] in key.circuit("ENDW").nodes and heads["match_backward"] not in jump.nodes
    assert heads["array_ptr"] not in inc.nodes  # the corrupted state has the same pointer
    assert heads["array_ptr"] in key.circuit("INC", outcome="RAN", ablation="zero").nodes
    assert edge_matrix(graph, inc).sum() == len(inc.edges) and not (edge_matrix(graph, inc) & ~graph.mask).any()
    assert all(key.circuit(op.name, ablation=how).edges for op in TINY.ops for how in ("resample", "mean", "zero"))
    with pytest.raises(ValueError, match="no circuit of INC with outcome HALTED under zero"):
        key.circuit("INC", outcome="HALTED", ablation="zero")


def test_the_key_survives_the_disk(inplace: Compiled, tmp_path: Path) -> None:
    circuits = (CircuitKey("INC", None, "zero", 3, {"input->m0": 1.5}, {"m0": 2.0, "input": 1.0}),)
    written = dataclasses.replace(inplace.key, circuits=circuits)
    written.save(tmp_path)
    read = AnswerKey.load(tmp_path)
    for field in dataclasses.fields(AnswerKey):
        if field.name == "directions":
            assert torch.equal(read.directions, written.directions)
        elif field.name == "noise":
            assert NoiseConfig(**read.noise) == NoiseConfig(**written.noise)
        else:
            assert getattr(read, field.name) == getattr(written, field.name), field.name


def test_a_folder_without_a_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no compiled.json: only compiled runs have an answer key"):
        AnswerKey.load(tmp_path)
