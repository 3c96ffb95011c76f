"""The interpreter as a program: all passes, in order, over one residual stream."""

from __future__ import annotations

import numpy as np

from interp.compiled import passes
from interp.compiled.components import Pass, Program
from interp.compiled.form import ROLES, Form, embedding_positions

N_LAYERS = 3


def interpreter(form: Form, *, sharpness: float = 12.0, gain: float = 10.0) -> Program:
    """The program that takes one step of the machine.

    Args:
        form: the machine and the task.
        sharpness: by how many nats the key attended to outscores every other.
        gain: by how much the logit of the right token exceeds every other's, up to what `sharpness` leaks.

    Raises:
        ValueError: sharpness or gain is not positive.
    """
    for name, value in (("sharpness", sharpness), ("gain", gain)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, got {value}")
    steps = [Pass(spaces=_embedded(form)), *_passes(form, sharpness=sharpness)]
    spaces = {name: size for step in steps for name, size in step.spaces.items() if size}
    token = np.zeros((form.spec.d_vocab, sum(spaces.values())))
    token[:, : form.spec.d_vocab] = np.eye(form.spec.d_vocab)
    return Program(
        task=form.task_name,
        spaces=spaces,
        tokens=token,
        positions=embedding_positions(form, spaces),
        answer=form.answer,
        gain=gain,
        n_layers=N_LAYERS,
        heads=tuple(head for step in steps for head in step.heads),
        gates=tuple(gate for step in steps for gate in step.gates),
        constants=tuple(constant for step in steps for constant in step.constants),
    )


def _embedded(form: Form) -> dict[str, int]:
    """The subspaces that the embedding fills; `token` first."""
    spaces = {"token": form.spec.d_vocab, "index": form.n_indices, "role": len(ROLES)}
    if form.causal:
        spaces |= {"slot_index": form.n_indices, "slot_role": 6, "answer": form.spec.d_vocab}
    return spaces


def _passes(form: Form, *, sharpness: float) -> list[Pass]:
    steps = [passes.addresses(form, sharpness=sharpness)]
    if form.n_levels:
        steps += [passes.depth(form, sharpness=sharpness), passes.level(form, sharpness=sharpness)]
    steps += [passes.fetch(form, sharpness=sharpness), passes.outcome(form)]
    steps.append(passes.written_slots(form))
    if form.n_levels:
        steps += [passes.branch(form), passes.partner(form, sharpness=sharpness)]
    if form.spec.io and form.spec.n_input:
        steps.append(passes.next_input(form, sharpness=sharpness))
    if form.causal:
        steps.append(passes.keep(form, sharpness=sharpness))
    return [*steps, passes.write(form)]
