"""Methods measure a model as it stands: with the hooks that somebody has left on it.

A hook inside a node or on what it writes (hook_z, hook_pattern, hook_mlp_out, a norm's scale, hook_embed, …) is part of
the node: every method on edges and nodes counts it. A hook on the stream between nodes makes the stream more than what
nodes write, so that no edge can be told from it: such a model is refused.
"""

from __future__ import annotations

from typing import Any

from interp.models.graph import Graph
from interp.models.hooks import live

_STREAM = (
    *("hook_resid_pre", "hook_resid_mid", "hook_resid_mid2", "hook_resid_post"),
    *("hook_attn_out", "hook_cross_attn_out", "hook_attn_in", "hook_cross_attn_in"),
)
_INPUTS = ("hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")


def taken_apart(model: Any) -> Graph:
    """The graph of a model whose stream is what its nodes write.

    Raises:
        ValueError: the model declares no graph, or something listens between its nodes.
    """
    graph = Graph.of(model)
    between = [name for name in model.hook_dict if name.rpartition(".")[2] in (*_STREAM, *_INPUTS)]
    whole = {"the model itself": model}
    parts = {name.rpartition(".")[0] for name in between} - {""}  # the blocks and their attention
    whole |= {name: model.get_submodule(name) for name in sorted(parts)}
    for name, point in {**{name: model.hook_dict[name] for name in between}, **whole}.items():
        if live(point):
            raise ValueError(
                f"a hook stands on {name}, between the nodes of the graph: what an edge carries cannot be told there; "
                "remove it, or hook what a node computes or writes instead"
            )
    return graph
