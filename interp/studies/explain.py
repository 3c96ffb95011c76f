"""A few sentences about an instruction's circuit, put together from what was measured and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.circuits.overlap import Sharing
from interp.runs.circuit_files import Circuit

_NAMED = 3  # heads that are told about


def explain(
    circuit: Circuit,
    *,
    roles: Sequence[Mapping[str, Any]] = (),
    shared: Sharing | None = None,
    dissociation: Mapping[str, Any] | None = None,
) -> str:
    """The circuit in words.

    Args:
        circuit: what was found.
        roles: of its heads, as dicts of `HeadRole`'s fields.
        shared: what the circuits of the machine's instructions share.
        dissociation: the detail of a dissociation that this instruction was part of (`dissociation_detail`).
    """
    point = min(circuit.faithfulness, key=lambda each: abs(each.n_edges - circuit.size))
    null = "" if point.null_mean is None else f", random circuits of that size {point.null_mean:z.2f}"
    text = [
        f"{circuit.op}: {circuit.n_connected} of {len(circuit.edges)} edges keep {point.estimate:.2f} of what the "
        f"model does{null} ({circuit.ablation} ablation, n = {circuit.n})."
    ]
    nodes = [node for node in circuit.nodes if node.kind in ("head", "mlp") and node.in_circuit and node.effect]
    nodes.sort(key=lambda node: node.effect or 0.0)
    gap = circuit.m_clean - circuit.m_corrupted
    if nodes and gap > 0:
        listed = ", ".join(
            f"{node.id} ({-(node.effect or 0.0) / gap:.0%} of the logit difference)" for node in nodes[:3]
        )
        text.append(f"Taken from the other run of a pair, what costs it most is {listed}.")
    named = [role for role in roles if role["variable"] is not None]
    named.sort(key=lambda role: role["effect"])
    for role in named[:_NAMED]:
        text.append(
            f"{_node(role)} brings {role['variable']}, attending from {_words(role['from_block'])} to "
            f"{_words(role['to_block'])} ({role['attention']:.0%} of its attention; swapped, {role['iia']:.0%} of "
            "answers follow)."
        )
    if roles and not named:
        text.append(f"None of the {len(roles)} heads looked at moves a variable of the world for certain.")
    if shared is not None and circuit.op in shared.ops and len(shared.ops) > 1:
        mine = shared.of(circuit.op)
        text.append(
            f"Of its {len(mine)} edges {len(set(shared.shared()) & set(mine))} are in the circuits of all "
            f"{len(shared.ops)} instructions and {len(shared.own(circuit.op))} in no other."
        )
    if dissociation is not None and circuit.op in dissociation["ops"]:
        text.append(_own_part(circuit.op, dissociation))
    return " ".join(text)


def _own_part(op: str, found: Mapping[str, Any]) -> str:
    place = found["ops"].index(op)
    losses = dict(zip(found["ops"], found["loss"][place], strict=True))
    mine = losses.pop(op)
    worst = max(losses, key=lambda name: losses[name])
    mean = sum(losses.values()) / len(losses)
    units = {"node": "nodes", "neuron": "neurons", "subspace": "directions"}[found["level"]]
    return (
        f"Without the {found['size']} {units} most its own it loses {mine:.0%} of its logit difference; the other "
        f"instructions lose {mean:.0%} on average, {worst} most ({losses[worst]:.0%})."
    )


def _node(role: Mapping[str, Any]) -> str:
    return f"a{role['layer']}.h{role['head']}"


def _words(positions: str) -> str:
    """A set of positions in words."""
    if positions == "all":
        return "every position"
    if positions == "brackets":
        return "the brackets"
    if "[@" in positions:
        block, pointer = positions[:-1].split("[@")
        return f"the slot of {block} at {pointer}"
    return positions if positions.endswith("]") else f"the slots of {positions}"
