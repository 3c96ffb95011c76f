"""Fetching a run from a hub: `interp.load("hf://OWNER/NAME@REVISION")`.

1. The revision is resolved to a commit, which is what is fetched and kept.
2. Every name in the repository must stay in its folder; of the files, those of a run are fetched and nothing else.
3. The size is said, and more than the limit refused; the config comes first, so that a foreign repository is refused
   before its weights are on the way.
4. Each file is held against the hash that the hub lists. The folder appears whole or not at all: an interrupted
   fetch keeps its whole files beside it, and the same call goes on from there.

A commit that is here already is opened without asking anybody.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from interp.files import write_json
from interp.reading import RunError, read_json
from interp.runs.hub_access import asking, endpoint, hub
from interp.runs.hub_names import (
    HUB_FILE,
    MAX_GB,
    HubAddress,
    HubError,
    in_words,
    is_commit,
    is_pickle,
    is_shared,
    parse_address,
    require_inside,
    require_size,
)

_CONFIG_BYTES = 1_000_000
_BLOCK = 1 << 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file as a hub lists it."""

    name: str
    size: int
    digest: str  # hexadecimal
    is_sha256: bool  # of the contents; if not, git's own hash of them


def fetch(address: str | os.PathLike[str], *, max_gb: float = MAX_GB) -> Path:
    """The folder of a run on a hub, fetched if it is not here yet.

    Args:
        address: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`.
        max_gb: how many gigabytes it may be.

    Raises:
        HubError: the address is none, the hub cannot be reached or refuses, the repository is no run of TapeLens or is
            broken, or it is larger than `max_gb`.
    """
    asked = parse_address(address)
    if asked.is_commit and (folder := _folder(asked)).is_dir():
        return folder
    commit, files = _listed(asked)
    folder = _folder(commit)
    if folder.is_dir():
        return folder
    size = sum(file.size for file in files)
    # A warning, so that it is seen where nobody has set up logging: this is a person's line and disk.
    _log.warning("fetching %s: %d files, %s", commit, len(files), in_words(size))
    require_size(size, what=str(commit), max_gb=max_gb)
    parts = folder.with_name(f".{folder.name}.part")
    for file in sorted(files, key=lambda each: each.name != "config.json"):  # the config first
        _get(commit, file, parts)
        if file.name == "config.json":
            _require_run(commit, parts, weights=False)
    _require_run(commit, parts, weights=True)
    shutil.rmtree(parts / ".cache", ignore_errors=True)  # the client's own notes
    source = {"repository": asked.repository, "commit": commit.revision, "asked": asked.revision}
    write_json(parts / HUB_FILE, source | {"endpoint": endpoint()})
    if not folder.is_dir():  # another process may have been quicker
        os.replace(parts, folder)
    return folder


def source_of(folder: Path) -> str | None:
    """Where the run in `folder` was fetched from, `hf://OWNER/NAME@COMMIT`; None for one that was not."""
    try:
        values = read_json(folder / HUB_FILE, "a note of where a run was fetched from")
    except (FileNotFoundError, RunError):
        return None
    repository, commit = values.get("repository"), values.get("commit")
    return str(HubAddress(str(repository), str(commit))) if repository and is_commit(commit) else None


def _folder(address: HubAddress) -> Path:
    """Where a commit of a repository lies on this machine; the folder is named as the run."""
    from huggingface_hub import constants

    owner = address.repository.partition("/")[0]
    return Path(constants.HF_HOME) / "tapelens" / owner / address.revision / address.name


def _listed(address: HubAddress) -> tuple[HubAddress, list[RemoteFile]]:
    """The commit behind an address, and its files that a run is made of. Raises HubError."""
    with asking(f"{address} cannot be opened"):
        info = hub().model_info(address.repository, revision=address.revision, files_metadata=True)
    if not is_commit(info.sha):
        raise HubError(f"{address} is refused: the hub names no commit for it")
    commit = HubAddress(address.repository, str(info.sha))
    names = [require_inside(each.rfilename, str(commit)) for each in info.siblings or ()]
    for needed in ("config.json", "model.safetensors"):
        if needed not in names:
            pickles = [name for name in names if is_pickle(name)]
            but = f" (it has {pickles[0][:80]!r}, and nothing is ever unpickled)" if pickles else ""
            raise HubError(f"{commit} is no run of TapeLens: it holds no {needed}{but}")
    files = []
    for each in info.siblings or ():
        if not is_shared(each.rfilename):
            continue
        size = each.lfs.size if each.lfs is not None else each.size
        digest = each.lfs.sha256 if each.lfs is not None else each.blob_id
        if not isinstance(size, int) or size < 0 or not isinstance(digest, str):
            raise HubError(f"{commit} is refused: the hub tells neither size nor hash of {each.rfilename[:200]!r}")
        files.append(RemoteFile(each.rfilename, size, digest, each.lfs is not None))
    if next(file.size for file in files if file.name == "config.json") > _CONFIG_BYTES:
        raise HubError(f"{commit} is no run of TapeLens: its config.json is larger than {in_words(_CONFIG_BYTES)}")
    return commit, files


def _get(commit: HubAddress, file: RemoteFile, parts: Path) -> None:
    """One file into `parts`, whole and as listed; one that is there already is kept. Raises HubError."""
    target = parts / file.name
    if _is_whole(target, file):
        return
    with asking(f"{file.name} of {commit} did not arrive"):
        target.unlink(missing_ok=True)
        hub().hf_hub_download(commit.repository, file.name, revision=commit.revision, local_dir=parts)
    if not _is_whole(target, file):
        target.unlink(missing_ok=True)
        raise HubError(f"{file.name} of {commit} is damaged: what arrived is not what the hub lists; try again")


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Whether what lies there has the listed size and hash."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size != file.size:
        return False
    # Git hashes a short header before the contents
    digest = hashlib.sha256() if file.is_sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest() == file.digest


def _blocks(path: Path) -> Iterable[bytes]:
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            yield block


def _require_run(commit: HubAddress, folder: Path, *, weights: bool) -> None:
    """Refuse a folder whose config, or whose weights, are not those of a run. Raises HubError."""
    from interp.runs.folder import read_config
    from interp.runs.weights import weights_header

    try:
        config = read_config(folder)
        if weights and (found := weights_header(folder / "model.safetensors").get("digest")) != config.digest:
            raise RunError(f"model.safetensors belongs to config {found}, but config.json says {config.digest}")
    except RunError as error:
        reason = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), "it")
        raise HubError(f"{commit} is no run that this version reads: {reason}") from None
