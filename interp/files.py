"""Files that appear whole or not at all, and places that can be written to, known before the work begins."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` on success, removed on any failure.

    The data is flushed to the disk before the rename, so that a crash leaves the old file or the new one. Who may read
    the file is what the umask says, also where a library writes through a private file of its own.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as handle:  # the umask cannot be asked for without changing it: see what it makes
            mode = os.fstat(handle.fileno()).st_mode & 0o777
        yield temporary
        os.chmod(temporary, mode)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any] | Sequence[Any], *, indent: int | None = 1) -> None:
    """Write JSON, indented (None: all on one line), whole or not at all."""
    with atomic_path(path) as temporary:
        separators = (",", ":") if indent is None else None
        temporary.write_text(json.dumps(value, indent=indent, separators=separators) + "\n", encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    with atomic_path(target) as place:
        shutil.copyfile(source, place)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's contents, 64 hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def require_folder(path: Path) -> None:
    """Refuse a folder that files could not be written into, there or to be made. Nothing is left behind.

    Raises:
        OSError: the sentence says what is in the way.
    """
    there = Path(path)
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise OSError(f"cannot write into {path}: {there} is not a folder")
    try:  # permission bits do not tell of read-only file systems, nor do they bind everybody
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(f"cannot write into {path}: {there} takes no new files ({error.strerror or error})") from None


def require_file(path: Path) -> None:
    """Refuse a file that could not be written, there or to be made. Raises OSError, as `require_folder`."""
    if Path(path).is_dir():
        raise OSError(f"cannot write {path}: it is a folder")
    require_folder(Path(path).parent)
