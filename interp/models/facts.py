"""Facts that a model declares about itself, so that methods ask for them instead of reading names."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from torch import nn
from transformer_lens.hook_points import HookPoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from interp.models.fast_pass import FastPass
    from interp.models.graph import Graph

_LAYER = re.compile(r"(?:^|\.)blocks\.(\d+)\.")


def with_input_axis(model: Any, hook: str, axes: tuple[str, ...]) -> tuple[str, ...]:
    """The axes of a hook point; ln1's with the further one, `head` or `reader`, that they have while one of its block's
    split inputs is listened to."""
    place, ln1, _ = hook.partition(".ln1.")
    further = model.get_submodule(place).input_axis() if ln1 else None
    return axes if further is None else (*axes[:2], further, *axes[2:])


class ModelFacts:
    """The defaults; an architecture replaces what differs.

    `declared_axes` names the axes of the activation at each hook point by the end of the point's name, the longest end
    that is declared: "q_norm.hook_scale" before "hook_scale".
    """

    cfg: Any
    hook_dict: dict[str, HookPoint]
    aliases: dict[str, str]
    declared_axes: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  # a constant of the class

    def axes(self, hook: str) -> tuple[str, ...]:
        """Names of an activation's axes, in order.

        They are what the next forward pass fires with the hooks and switches of now. Names in use: batch, pos, head,
        query_pos, key_pos, d_model, d_head, d_mlp, scale (of size 1), and reader (the heads' queries, keys and values,
        3 * n_heads). Axes of positions of one side of a model with two have its name before theirs: prompt_pos.

        Args:
            hook: a hook point's name or alias, switched on or off.

        Raises:
            ValueError: there is no such hook point.
        """
        parts = self.hook_name(hook).split(".")
        for start in range(len(parts)):
            axes = self.declared_axes.get(".".join(parts[start:]))
            if axes is not None:
                return axes
        raise ValueError(f"the architecture {self.cfg.architecture!r} declares no axes for hook point {hook!r}")

    def hook_name(self, hook: str) -> str:
        """A hook point's own name, from that or an alias. Raises ValueError, with close names, where there is none."""
        if hook not in self.hook_dict and hook not in self.aliases:
            close = difflib.get_close_matches(hook, self.hook_dict, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise ValueError(f"the model has no hook point {hook!r}{hint}")
        return self.aliases.get(hook, hook)

    def layer_of(self, hook: str) -> int | None:
        """The layer that a hook point belongs to, from 0; None outside the layers. ValueError for an unknown hook."""
        found = _LAYER.search(self.hook_name(hook))
        return None if found is None else int(found[1])

    def residual_hooks(self) -> tuple[str, ...]:
        """The residual stream before the first layer and after each, n_layers + 1 names; () where there is none.

        Each is a whole cut: with every position of one of them taken from another run, the logits are that run's.
        """
        return ()

    def step_hooks(self) -> tuple[str, ...]:
        """What each step of a loop hands to the next, in order, where layers are run again and again; else ()."""
        return ()

    @property
    def max_loop_steps(self) -> int | None:
        """How often the shared layers can be run, see `looping` of such a model; None where nothing is looped."""
        return None

    def carrier_hooks(self) -> tuple[str, ...]:
        """All that later positions learn of earlier ones: () where positions also look ahead.

        With these taken from another run at all positions before p, the logits from p on are what that run gives where
        its tokens from p on are the same.
        """
        return ()

    @property
    def carries_state(self) -> bool:
        """Whether what the carriers hold at one position is all that later ones learn of everything before: a state.

        False where each position's carriers tell of that position alone, as keys and values do.
        """
        return False

    def readout_hooks(self) -> tuple[str, ...]:
        """What each layer reads at a position from earlier ones and adds to the residual stream; () where unknown.

        An edit there changes that position's answer and reaches later positions only through layers above.
        """
        return ()

    def attention_hooks(self) -> tuple[str, ...]:
        """The attention patterns, [batch, head, query_pos, key_pos], rows summing to 1; () where there are none.

        Their positions are a record's once `on_record` has placed them.
        """
        return ()

    def on_record(self, hook: str, activation: Tensor) -> Tensor:
        """An activation with its axes of positions stretched over all n_ctx of a record; itself where they are so.

        Only a hook that fires on one part of a record, as on one side of an encoder–decoder, has fewer.

        Args:
            hook: where it was taken.
            activation: of a whole record.
        """
        return activation

    def first_position(self, hook: str) -> int:
        """The position of the record that the first entry along a hook's axis of positions (of queries) is about."""
        return 0

    def effective_attention_hooks(self, layer: int) -> tuple[str, ...]:
        """What `effective_attention` needs of a layer; () where its reads are no weighted sums of values."""
        return ()

    def effective_attention(self, layer: int, activations: Mapping[str, Tensor]) -> Tensor:
        """How much of each position's value a read holds, [batch, head, query_pos, key_pos]; a heuristic, see
        effective_attention.py.

        Args:
            layer: one with `effective_attention_hooks`.
            activations: of one run, by those hooks.
        """
        raise ValueError(f"what the architecture {self.cfg.architecture!r} reads is no weighted sum of values")

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices from hidden vectors to hidden vectors, which Muon may train; by default those in `blocks`."""
        assert isinstance(self, nn.Module)
        return [p for name, p in self.named_parameters() if name.startswith("blocks.") and p.ndim == 2]

    @property
    def is_causal(self) -> bool:
        """Whether no position learns of later ones, so that tokens can be written one after the other."""
        return bool(self.carrier_hooks())

    @property
    def can_enter_layers(self) -> bool:
        """Whether forward takes start_at_layer and stop_at_layer."""
        return False

    def new_cache(self, batch: int) -> Any:
        """What `past_kv_cache` of forward takes, empty, to read a batch piece by piece; None where it takes none."""
        return None

    @property
    def max_denoising_steps(self) -> int | None:
        """In how many passes at most an answer can be filled in; None where it is not made by denoising."""
        return None

    has_sides: bool = False
    """Whether the prompt is read on a side of its own, and the answer's side reads it by cross-attention."""

    denoising_orders: tuple[str, ...] = ()
    """The ways in which an answer is filled in over several passes, see `filled_in`; () where it is not."""

    denoising_limit: str = "passes"
    """What `max_denoising_steps` counts, for messages."""

    decides_for_good: bool = False
    """Whether a pass decides tokens once and for all, so that there is an order in which they are decided."""

    def filled_in(
        self, prompt: Tensor, steps: int, order: str, *, remask: bool = False, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Answers to prompts [batch, n_prompt] in so many passes, and the pass that decided each token, long
        [batch, n_answer] both.

        Args:
            prompt: integers.
            steps: passes, from 1 to `max_denoising_steps`.
            order: one of `denoising_orders`.
            remask: whether tokens may be undone again, where that means anything.
            seed: of what is drawn.
        """
        raise ValueError(f"a {self.cfg.architecture} gives its answer in one pass: it is not filled in")

    def drafts(self, task: Any, batch: Any) -> Any:
        """The answer to a batch of one after each pass over it, `interp.models.drafts.Drafts`, where a model goes over
        its answer more than once (`ModelConfig.drafts_in`)."""
        raise ValueError(f"a {self.cfg.architecture} gives its answer in one pass: it has no drafts")  # type: ignore[attr-defined]

    @property
    def has_residual_parts(self) -> bool:
        """Whether what is written to the residual stream has the hook points, and the weights the names, by which
        TransformerLens's ActivationCache takes a stream apart into heads, MLPs and neurons."""
        return False

    def graph(self) -> Graph | None:
        """What writes to the residual stream and what reads from it; None where the model is not made so.

        A model that declares one has the hook points that `interp.models.graph` names for its nodes.
        """
        return None

    def fast_pass(self) -> FastPass | None:
        """The model's own arithmetic, layer by layer, past its hook points; None where it offers none, and while
        anything listens that would miss it."""
        return None

    @property
    def longest(self) -> int | None:
        """The most tokens that forward takes, n_ctx unless the architecture says otherwise; None: unbounded."""
        return self.cfg.n_ctx


def on_sides(activation: Tensor, axes: tuple[str, ...], *, n_prompt: int, n_ctx: int) -> Tensor:
    """An activation with its axes of one side's positions, such as prompt_pos, stretched over a record; 0 elsewhere."""
    for axis, name in enumerate(axes):
        if not name.endswith("pos") or name in ("pos", "query_pos", "key_pos"):
            continue
        first = 0 if name.startswith("prompt") else n_prompt
        shape = list(activation.shape)
        shape[axis] = n_ctx
        placed = activation.new_zeros(shape)
        placed.narrow(axis, first, activation.shape[axis]).copy_(activation)
        activation = placed
    return activation
