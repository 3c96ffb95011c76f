"""Every world by its key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.registry import Registry
from interp.worlds.base import World

WORLDS: Registry[type[World]] = Registry(
    "world",
    {
        "machine": "interp.worlds.machine:MachineWorld",
        "strings": "interp.worlds.strings:StringWorld",
        "addition": "interp.worlds.addition:Addition",
        "text": "interp.worlds.text:TextWorld",
        "slots": "interp.worlds.slots:SlotWorld",
    },
)


def world_from_dict(values: Mapping[str, Any]) -> World:
    """The world that `World.to_dict` wrote: its key under "name", its settings beside it.

    Raises:
        KeyError, TypeError, ValueError: no such world, or settings that it does not take.
    """
    settings = dict(values)
    return WORLDS[settings.pop("name")].from_dict(settings)


def as_world(value: Any) -> World:
    """The world itself, or the machine that a MachineSpec stands for."""
    return value if isinstance(value, World) else WORLDS["machine"](value)  # type: ignore[call-arg]
