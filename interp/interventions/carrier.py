"""What a model carries past a position, as one vector, and what it answers when that vector is another.

All carrier hooks of a model are laid side by side, layer by layer: a state at one position, [n, size], or, of a model
that carries keys and values, one such row for each position so far, [n, pos, size]. With every element put in place,
what comes after depends on this vector and on later tokens alone (`state.carrier_swapped` is the exact test), so any
part of it can be exchanged without another part moving.

A model with a state reads on from its cache, which costs the positions behind the edit alone and lets gradients
through; the others are run again with hooks at every carrier.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp.interventions.declared import axes_of

_ROWS = 64  # a forward pass in which carriers are listened to


@dataclass(frozen=True)
class Carrier:
    """How the carriers of a model are laid side by side."""

    hooks: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]  # of one position, without batch and pos
    axes: tuple[tuple[str, ...], ...]  # their names
    layers: tuple[int, ...]
    is_state: bool  # one position holds everything

    @classmethod
    @torch.no_grad()
    def of(cls, model: Any) -> Carrier:
        """Of a model, from a pass over one token.

        Raises:
            ValueError: it declares no carrier.
        """
        if not (hooks := model.carrier_hooks()):
            raise ValueError("the model declares no carrier: its positions also look ahead, or it names none")
        shapes: dict[str, tuple[int, ...]] = {}

        def see(activation: Tensor, hook: Any) -> None:
            shapes[hook.name] = tuple(_by_position(model, hook.name, activation).shape[2:])

        with model.hooks(fwd_hooks=[(name, see) for name in hooks]):
            model(torch.zeros(1, 1, dtype=torch.long, device=model.device))
        axes = tuple(tuple(a for a in axes_of(model, name) if a not in ("batch", "pos", "key_pos")) for name in hooks)
        layers = tuple(model.layer_of(name) for name in hooks)
        return cls(tuple(hooks), tuple(shapes[name] for name in hooks), axes, layers, model.carries_state)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """Floats of one position."""
        return sum(self.sizes)

    def split(self, carried: Tensor) -> dict[str, Tensor]:
        """By hook, [..., size] to [..., *shape]."""
        parts = carried.split(self.sizes, dim=-1)
        named = zip(self.hooks, parts, self.shapes, strict=True)
        return {name: part.unflatten(-1, shape) for name, part, shape in named}

    @torch.no_grad()
    def read(self, model: Any, tokens: Tensor, at: Tensor) -> Tensor:
        """What the model carries past position at[i] of each row.

        Args:
            model: the hooked model; hooks that stand on it count.
            tokens: long [n, pos].
            at: long [n].

        Returns:
            [n, size] of a state; else [n, longest, size], of positions up to the last that is asked for.
        """
        found = []
        span = int(at.max()) + 1
        for start in range(0, len(tokens), _ROWS):
            some, places = tokens[start : start + _ROWS, :span], at[start : start + _ROWS]
            kept: dict[str, Tensor] = {}

            def keep(activation: Tensor, hook: Any, places: Tensor = places, kept: dict[str, Tensor] = kept) -> None:
                view = _by_position(model, hook.name, activation)
                kept[hook.name] = (view[torch.arange(len(view)), places] if self.is_state else view).clone()

            with model.hooks(fwd_hooks=[(name, keep) for name in self.hooks]):
                model(some)
            lead = 1 if self.is_state else 2
            found.append(torch.cat([kept[name].flatten(lead) for name in self.hooks], dim=-1))
        return torch.cat(found)

    @torch.no_grad()
    def answers(self, model: Any, tokens: Tensor, at: Tensor, carried: Tensor, until: Tensor) -> Tensor:
        """What the model says behind at[i], given that it carries `carried` there, long [n, pos]; -1 elsewhere.

        Args:
            model: the hooked model.
            tokens: long [n, pos].
            at: long [n], the position whose carrier is put in.
            carried: as `read` returns.
            until: long [n], the last position that is asked for.
        """
        said = torch.full_like(tokens, -1)
        order = (until - at).argsort()  # of like length together
        for rows in order.split(_ROWS * (4 if self.is_state else 1)):
            if self.is_state:
                length = int((until[rows] - at[rows]).max())
                logits = self.logits(model, tokens[rows], at[rows], carried[rows], length)
                places = at[rows, None] + 1 + torch.arange(length)
                inside = places <= until[rows, None]
                said[rows[:, None].expand_as(places)[inside], places[inside]] = logits.argmax(-1)[inside]
            else:
                span = int(until[rows].max()) + 1
                put = partial(self._put, model=model, parts=self.split(carried[rows]), at=at[rows])
                with model.hooks(fwd_hooks=[(name, put) for name in self.hooks]):
                    logits = model(tokens[rows, :span])
                places = torch.arange(span)
                inside = (places > at[rows, None]) & (places <= until[rows, None])
                said[rows, :span] = torch.where(inside, logits.argmax(-1), -1)
        return said

    def logits(self, model: Any, tokens: Tensor, at: Tensor, carried: Tensor, length: int) -> Tensor:
        """Of a model with a state: logits [n, length, d_vocab] at the `length` positions behind at[i]; differentiable.

        Rows that end before are read on at their last token.
        """
        places = (at[:, None] + 1 + torch.arange(length)).clamp(max=tokens.shape[1] - 1)
        cache = model.cache_holding(self.split(carried))
        return model(tokens.gather(1, places), past_kv_cache=cache)

    def _put(self, activation: Tensor, hook: Any, *, model: Any, parts: dict[str, Tensor], at: Tensor) -> Tensor:
        patched = activation.clone()
        view = _by_position(model, hook.name, patched)
        span = min(parts[hook.name].shape[1], view.shape[1])
        inside = torch.arange(span) <= at[:, None]
        view[:, :span][inside] = parts[hook.name][:, :span][inside].to(view.dtype)
        return patched

    def floats(self, at: Tensor) -> int:
        """Floats carried past the positions `at`, on average."""
        return self.size if self.is_state else round(self.size * float((at + 1).double().mean()))

    def places(self) -> Iterator[tuple[str, int, slice]]:
        """(hook, layer, where it stands in the vector) of each carrier."""
        start = 0
        for name, layer, size in zip(self.hooks, self.layers, self.sizes, strict=True):
            yield name, layer, slice(start, start + size)
            start += size


def _by_position(model: Any, hook: str, activation: Tensor) -> Tensor:
    """A view [batch, pos, …]."""
    axes = axes_of(model, hook)
    axis = next((axes.index(name) for name in ("pos", "key_pos") if name in axes), None)
    if axis is None:
        raise ValueError(f"the carrier {hook} has no axis of positions; its axes are {', '.join(axes)}")
    return activation.movedim(axis, 1)
