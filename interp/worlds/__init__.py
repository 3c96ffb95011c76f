"""Worlds: what is true, apart from how it is shown."""

from interp.worlds.base import SPLITS, Answer, Capability, Examples, Split, Strata, Variable, World, in_split
from interp.worlds.registry import WORLDS, as_world, world_from_dict

__all__ = [
    "SPLITS",
    "WORLDS",
    "Answer",
    "Capability",
    "Examples",
    "Split",
    "Strata",
    "Variable",
    "World",
    "as_world",
    "in_split",
    "world_from_dict",
]
