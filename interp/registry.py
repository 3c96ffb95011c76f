"""A dict from name to constructor whose entries may be spelt "module:name" and are imported when first asked for.

So the list of what there is costs nothing, and one entry's dependencies are not everybody's: a session that never asks
for the machine never imports it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(MutableMapping[str, T], Generic[T]):
    """Names and what they stand for. `kind` is the word of the message about an unknown name."""

    def __init__(self, kind: str, entries: Mapping[str, T | str]):
        self.kind = kind
        self._entries: dict[str, T | str] = dict(entries)

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            close = difflib.get_close_matches(str(name), self._entries, n=3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UnknownNameError(f"unknown {self.kind} {name!r}; there are {', '.join(self._entries)}{hint}")
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = self._entries[name] = getattr(import_module(module), attribute)
        return entry  # type: ignore[return-value]

    def __setitem__(self, name: str, entry: T) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:  # without importing the entry
        return name in self._entries


class UnknownNameError(KeyError, ValueError):
    """A registry has no such name. The message says which it has."""

    def __str__(self) -> str:
        return str(self.args[0])
