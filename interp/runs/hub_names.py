"""Names on a hub of models: where a run lies there, and which of its files are shared.

Shared are the config, the card, weights, frames and circuits: files that are read without running anything. A name
that leads out of the folder is refused with its repository, whatever the file holds.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from interp.reading import RunError

HUB_FILE = "hub.json"  # in the folder of a run that was fetched: where from
MAX_GB = 1.0  # what is sent or fetched without being asked twice
SCHEME = "hf://"
_OWNER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REPOSITORY = re.compile(rf"{_OWNER_NAME}/{_OWNER_NAME}")
_ADDRESS = re.compile(rf"hf:/{{1,2}}({_OWNER_NAME}/{_OWNER_NAME})(?:@([A-Za-z0-9][A-Za-z0-9._/-]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_STEP = r"(?:steps/(?:0|[1-9][0-9]{0,17})/)?"
_PART = r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*"
_SHARED = re.compile(
    rf"config\.json|card\.json|card\.md|steps/(?:0|[1-9][0-9]{{0,17}})\.safetensors"
    rf"|{_STEP}{_PART}\.(?:safetensors|parquet)|{_STEP}circuits/(?:{_PART}/){{0,2}}{_PART}\.json"
)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")


class HubError(RunError):
    """A run could not be sent to a hub or fetched from it. The message names the repository and the reason."""


@dataclass(frozen=True)
class HubAddress:
    """Where a run lies: `hf://OWNER/NAME`, and which state of it."""

    repository: str  # OWNER/NAME
    revision: str = "main"  # a branch, a tag or a commit

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}" + (f"@{self.revision}" if self.revision != "main" else "")

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a whole commit, which never means anything else later."""
        return bool(_COMMIT.fullmatch(self.revision))

    @property
    def name(self) -> str:
        return self.repository.partition("/")[2]


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether this asks for a run on a hub; `Path` has made one slash of the two."""
    return os.fspath(path).startswith("hf:/")


def parse_address(text: str | os.PathLike[str]) -> HubAddress:
    """Read `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`. Raises HubError for anything else."""
    found = _ADDRESS.fullmatch(os.fspath(text))
    if found is None or ".." in found[0] or "//" in (found[2] or ""):
        raise HubError(f"expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION, got {os.fspath(text)[:200]!r}")
    return HubAddress(require_repository(found[1]), found[2] or "main")


def require_repository(text: str) -> str:
    """OWNER/NAME, as a hub spells it. Raises HubError for anything else."""
    if not _REPOSITORY.fullmatch(text) or any(bad in text for bad in ("..", "--")) or text.endswith((".git", ".", "-")):
        raise HubError(f"expected OWNER/NAME, letters, digits and single . _ - inside, got {text[:200]!r}")
    return text


def is_commit(text: object) -> bool:
    """Whether this is a whole commit: 40 hexadecimal digits."""
    return isinstance(text, str) and bool(_COMMIT.fullmatch(text))


def is_shared(name: str) -> bool:
    """Whether a file of a run's folder, by its name with `/`, is one that is shared."""
    return bool(_SHARED.fullmatch(name))


def is_pickle(name: str) -> bool:
    """Whether a file's name is that of weights in a form that can run code when read."""
    return name.lower().endswith(_PICKLES)


def require_inside(name: str, repository: str) -> str:
    """A file's name, if it stays in its folder on every system.

    Raises:
        HubError: it leads out of it, or holds what no file's name should.
    """
    parts = name.split("/")
    if not name or name.startswith("/") or {"", ".", ".."} & {*parts} or re.search(r"[\\\x00-\x1f\x7f]|^\w:", name):
        raise HubError(f"{repository} is refused: it names a file {name[:200]!r}, which does not stay in its folder")
    return name


def require_size(size: int, *, what: str, max_gb: float) -> None:
    """Refuse more than `max_gb` gigabytes (of 10^9 bytes).

    Raises:
        HubError: it is more.
        ValueError: max_gb is not positive.
    """
    if not max_gb > 0:
        raise ValueError(f"max_gb must be positive, got {max_gb}")
    if size > max_gb * 1e9:
        raise HubError(f"{what} is {in_words(size)}, more than {max_gb:g} GB; allow it with --max-gb (max_gb=)")


def in_words(size: int) -> str:
    """Bytes as a person says them: "1.2 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} bytes"
