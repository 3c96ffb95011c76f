"""The slot machine: hard execution is the symbolic machine's, soft comes to it, gradients are those of differences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interp.models import MODELS, build_model, resize
from interp.models.slot_machine import SlotMachine
from interp.models.slot_machine_config import SlotMachineConfig
from interp.models.slot_machine_training import objective, plan_loss
from interp.models.slot_memory import N_KINDS, State, TableALU, harden, modes, step
from interp.tasks import TASKS
from interp.training.slot_presets import resized_for, slot_machine_for
from interp.worlds.slots import SlotWorld
from interp.worlds.slots_programs import COMPILERS

FORMS = [(name, form) for name, each in COMPILERS.items() for form in ("looped", "straight")[: 1 + each.has_straight]]


def small(world: SlotWorld, **changes: Any) -> SlotMachine:
    model = build_model(slot_machine_for(world, n_layers=1, n_heads=1, d_model=8, **changes)).eval()
    assert isinstance(model, SlotMachine)
    return model


def onehots(world: SlotWorld, states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Symbolic states [batch, step, width] as a machine of tensors holds them."""
    s, v = world.spec.n_slots, world.spec.n_values
    parts, sizes = states.split([s, s, s, s, s, 1, 1, 1], dim=-1), (N_KINDS, s, s, s, v)
    memory = torch.cat([F.one_hot(part, n) for part, n in zip(parts[:5], sizes, strict=True)], dim=-1)
    registers = [F.one_hot(part[..., 0], n) for part, n in zip(parts[5:], (s, 2, s), strict=True)]
    return {"memory": memory, "pc": registers[0], "registers": torch.cat(registers[1:], dim=-1)}


@pytest.mark.parametrize(("program", "form"), FORMS)
def test_hard_execution_is_the_symbolic_machine_after_every_step(program: str, form: str) -> None:
    world = SlotWorld(program=program, size=4, form=form)
    task, model = TASKS["slots"](world, None), small(world, scattered=False)
    batch = task.sample(6, seed=0)
    n_steps = model.cfg.max_steps
    with torch.enable_grad():
        run = model(batch.tokens, memory=task.memories(batch), returned="run")
    expected = onehots(world, task.trace(batch, n_steps))
    assert torch.equal(run.trace["memory"], expected["memory"][:, 1:].float())
    assert torch.equal(run.trace["registers"], expected["registers"][:, 1:].float())
    assert torch.equal(run.trace["pc"], expected["pc"][:, :-1].float())
    with torch.no_grad():  # the way without a trace, which stops where all stand still
        answers = task.answer(lambda tokens: model(tokens, memory=task.memories(batch)), batch)
    assert (answers.numpy() == world.answer(batch.examples).values).all()


def test_freezes_too() -> None:
    """Random memories, most of which freeze at once: tensors and symbols stay together for eight steps."""
    world = SlotWorld(size=1)
    rng, spec = np.random.default_rng(0), world.spec
    from cython_vm import slots

    rows = rng.integers(0, spec.limits(), size=(300, spec.width)).astype(np.int32)
    model = small(world, max_steps=8)
    run = model(torch.zeros(300, model.cfg.n_ctx, dtype=torch.long), memory=torch.from_numpy(rows), returned="run")
    expected = onehots(world, torch.from_numpy(slots.record(spec, rows, 8).astype(np.int64)))
    assert torch.equal(run.trace["memory"], expected["memory"][:, 1:].float())
    assert torch.equal(run.trace["registers"], expected["registers"][:, 1:].float())
    assert torch.equal(run.trace["pc"], expected["pc"][:, :-1].float())


def planned_logits(world: SlotWorld, memory: torch.Tensor, margin: float) -> list[torch.Tensor]:
    """Logits of a plan in which the true entry of every field leads by `margin` on average, and noise is added."""
    s, v = world.spec.n_slots, world.spec.n_values
    generator = torch.Generator().manual_seed(0)
    parts, sizes = memory.split([s, s, s, s, s, 1, 1, 1], dim=-1), (N_KINDS, s, s, s, v)
    found = [margin * F.one_hot(part, n).double() for part, n in zip(parts[:5], sizes, strict=True)]
    return [each + 0.3 * torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in found]


def softly(world: SlotWorld, logits: list[torch.Tensor], n_steps: int, temperature: float) -> State:
    """Soft execution of a plan from these logits."""
    kinds, following, left, right, contents = (F.softmax(each / temperature, dim=-1) for each in logits)
    n, s = len(kinds), world.spec.n_slots
    pc = F.one_hot(torch.ones(n, dtype=torch.long), s).double()
    carry, free = (F.one_hot(torch.zeros(n, dtype=torch.long), size).double() for size in (2, s))
    state = State(kinds, torch.stack([following, left, right], dim=1), contents, pc, carry, free)
    alu = TableALU(world.spec.base, world.spec.n_values)
    for _ in range(n_steps):
        bits = modes(world.spec.n_values)
        state = step(state, alu, bits, hard=False, temperature=temperature, seen=lambda name, value: value)
    return state


def test_soft_execution_comes_to_the_hard_one_as_the_temperature_falls() -> None:
    world = SlotWorld(size=2)
    task = TASKS["slots"](world, None)
    batch = task.sample(8, seed=0)
    n_steps = int(task.n_steps(batch).max())
    logits = planned_logits(world, task.memories(batch), margin=3.0)
    final = onehots(world, task.trace(batch, n_steps)[:, -1:])["memory"][:, 0]
    apart = [
        float((softly(world, logits, n_steps, temperature).memory() - final).abs().sum(-1).mean())
        for temperature in (1.0, 0.5, 0.2, 0.05)
    ]
    assert apart == sorted(apart, reverse=True) and apart[-1] < 1e-6 < 0.1 < apart[0]


def tiny() -> tuple[SlotWorld, list[torch.Tensor]]:
    """A plan of eight slots that adds two digits in a straight line, as logits."""
    world = SlotWorld(size=1, form="straight", base=2, n_values=8)
    assert world.spec.n_slots == 8
    task = TASKS["slots"](world, None)
    return world, planned_logits(world, task.memories(task.sample(1, seed=0, split="all")), margin=2.0)


def test_gradients_are_those_of_finite_differences() -> None:
    """Soft, float64, eight slots, 20 steps: every field of every slot, relative error at most 1e-5."""
    world, logits = tiny()
    weights = torch.randn(world.spec.n_values, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def outcome(*plan: torch.Tensor) -> torch.Tensor:
        return (softly(world, list(plan), 20, 1.0).contents @ weights).square().sum()

    leaves = [each.clone().requires_grad_() for each in logits]
    outcome(*leaves).backward()
    for number, leaf in enumerate(leaves):
        assert leaf.grad is not None
        numeric = torch.zeros_like(leaf)
        for at in np.ndindex(*leaf.shape):
            ends = []
            for move in (1e-5, -1e-5):
                moved = [each.detach().clone() for each in leaves]
                moved[number][at] += move
                ends.append(outcome(*moved))
            numeric[at] = (ends[0] - ends[1]) / 2e-5
        assert (leaf.grad - numeric).norm() / numeric.norm() <= 1e-5


def test_gradients_through_two_hundred_steps_are_finite() -> None:
    world, logits = tiny()
    leaves = [each.clone().requires_grad_() for each in logits]
    softly(world, leaves, 200, 1.0).contents.square().sum().backward()
    norms = [float(each.grad.norm()) for each in leaves if each.grad is not None]
    assert len(norms) == 5 and np.isfinite(norms).all() and max(norms) > 1e-6


def test_choices_are_onehot_and_their_gradient_goes_straight_through() -> None:
    x = torch.tensor([[0.2, 0.5, 0.3]], requires_grad=True)
    hard = harden(x)
    assert hard.tolist() == [[0.0, 1.0, 0.0]]
    (hard * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[1.0, 2.0, 3.0]]


def test_an_edit_of_the_memory_runs_on_as_the_world_says() -> None:
    """The carry, a content and a pointer are set at a step; the rest of the run is the symbolic machine's."""
    world = SlotWorld(size=3)
    task, model = TASKS["slots"](world, None), small(world)
    base, source = task.sample(20, seed=1), task.sample(20, seed=2)
    s, v, at = world.spec.n_slots, world.spec.n_values, 6  # the second place's addition comes next
    slot = world.program.names.index("a[1]")
    pointer = world.program.names.index("q")
    memory, other = (task.memories(each) for each in (base, source))
    with torch.no_grad():
        _, cache = model.run_with_cache(source.tokens, memory=other)

        def swap(hook_name: str, part: Any) -> np.ndarray:
            def edit(act: torch.Tensor, hook: Any) -> torch.Tensor:
                act[:, at - 1][part] = cache[hook_name][:, at - 1][part]
                return act

            def answered(tokens: torch.Tensor) -> torch.Tensor:
                with model.hooks(fwd_hooks=[(hook_name, edit)]):
                    return model(tokens, memory=memory)

            return task.answer(answered, base).numpy()

        cases = {
            "carry": swap("hook_registers", np.s_[:, :2]),
            f"content[{slot}]": swap("hook_memory", np.s_[:, slot, -v:]),
            f"next[{pointer}]": swap("hook_memory", np.s_[:, pointer, N_KINDS : N_KINDS + s]),
        }
    for name, found in cases.items():
        values = world.read(source.examples, name, at)
        expected = world.answer(base.examples, do={name: values}, at=at)
        assert expected.valid.all() and (found == expected.values).all(), name
    plain = world.answer(base.examples).values
    assert (cases["carry"] != plain).any() and (cases[f"content[{slot}]"] != plain).any()


def test_a_model_of_longer_numbers_has_the_same_weights() -> None:
    model = small(SlotWorld(size=5))
    world = SlotWorld(size=9)
    longer = resize(model, resized_for(model.cfg, world))
    assert longer.cfg.n_slots == world.spec.n_slots and longer.cfg.max_steps == 6 * 9 + 1
    theirs = model.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in longer.state_dict().items())
    batch = TASKS["slots"](world, None).sample(2, seed=0)
    assert longer(batch.tokens).shape == (2, longer.cfg.n_ctx, longer.cfg.d_vocab)


def test_losses_are_zero_at_the_truth_and_reach_what_they_should() -> None:
    world = SlotWorld(size=1)
    task = TASKS["slots"](world, None)
    batch, generator = task.sample(4, seed=0), torch.Generator().manual_seed(0)
    parts = [1e3 * each.float() for each in planned_logits(world, task.memories(batch), margin=10.0)]
    plan = build_model(slot_machine_for(world))(batch.tokens, returned="plan")
    free = 1e3 * F.one_hot(torch.zeros(4, dtype=torch.long), world.spec.n_slots).float()
    told = plan._replace(kinds=parts[0], pointers=torch.stack(parts[1:4], dim=1), contents=parts[4], free=free)
    assert plan_loss(told, task.memories(batch)) < 1e-6 < plan_loss(plan, task.memories(batch))
    for weights, learned in (
        ({"plan_weight": 1.0}, {"unembed_kind", "pointer_keys"}),
        ({"plan_weight": 0.0, "answer_weight": 1.0, "execution": "soft"}, {"unembed_kind", "pointer_keys"}),
        ({"plan_weight": 0.0, "trace_weight": 1.0, "execution": "soft"}, {"unembed_kind", "pointer_keys"}),
        (
            {"plan_weight": 0.0, "answer_weight": 1.0, "execution": "soft", "plan_given": True, "alu": "learned"},
            {"alu"},
        ),
    ):
        model = small(world, **weights)
        objective(model, task, batch, generator).backward()
        reached = {
            name.partition(".")[0]
            for name, each in model.named_parameters()
            if each.grad is not None and each.grad.abs().max() > 0
        }
        assert learned <= reached, weights
        assert ("blocks" in reached) == (not weights.get("plan_given"))


def test_what_is_wrong_is_said() -> None:
    world = SlotWorld(size=1)
    cfg = slot_machine_for(world)
    for changes, message in (
        ({"attention_dir": "causal"}, "the controller needs attention_dir='bidirectional'; got 'causal'"),
        ({"n_slots": 1}, "n_slots must be an integer from 2"),
        ({"max_steps": 0}, "max_steps must be an integer from 1"),
        ({"temperature": 0.0}, "temperature must be above 0; got 0.0"),
        ({"execution": "warm"}, "execution must be one of"),
        ({"answer_weight": -1.0}, "answer_weight must be at least 0; got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            replace(cfg, **changes)
    model, task = build_model(cfg), TASKS["slots"](world, None)
    tokens = task.sample(2, seed=0).tokens
    with pytest.raises(ValueError, match="tokens must be a prompt and"):
        model(tokens[:, :-1])
    with pytest.raises(ValueError, match="n_steps must be from 1 to max_steps = 7; got 9"):
        model(tokens, n_steps=9)
    with pytest.raises(ValueError, match="memory must be integers"):
        model(tokens, memory=tokens)
    assert "the task step has none" in str(MODELS["slot_machine"].suits(TASKS["step"]))
    assert isinstance(cfg, SlotMachineConfig)
