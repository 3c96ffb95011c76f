"""Worlds: what is true, apart from how it is shown."""

from interp.worlds.base import SPLITS, Answer, Capability, Examples, Split, Strata, Variable, World, in_split
from interp.worlds.registry import WORLDS, as_world, world_from_dict
from interp.worlds.rows import Rows, RowsAnswer, hash_rows, pick, uniform

__all__ = [
    "SPLITS",
    "WORLDS",
    "Answer",
    "Capability",
    "Examples",
    "Rows",
    "RowsAnswer",
    "Split",
    "Strata",
    "Variable",
    "World",
    "as_world",
    "hash_rows",
    "in_split",
    "pick",
    "uniform",
    "world_from_dict",
]
