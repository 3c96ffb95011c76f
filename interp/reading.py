"""Files of a run are read here: whole and of the expected kind, or refused in one sentence.

Whatever a disk, an editor or another program may leave in a file ends in `BrokenFileError`: half a file, a folder in
its place, JSON nested too deep, a header that is no object. What a file means is checked by the one who reads it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

# How pickles begin: the zip of torch.save, and the protocols 2 to 5
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_MOST_DIGITS = 18  # of a count: an int64 holds it


class RunError(Exception):
    """A run folder is missing, foreign, broken or incomplete. The message says what to do."""


class BrokenFileError(RunError, ValueError):
    """A file is not whole, or not what it should be. The message begins with its path."""


@contextlib.contextmanager
def reading(path: Path, what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn everything that reading and taking apart a file may raise into `BrokenFileError`; a missing file stays
    FileNotFoundError.

    Args:
        path: the file, which the message begins with.
        what: what it should be, such as "a whole circuit file".
        also: further exceptions that stand for a broken file.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: what is there is something else.
    """
    try:
        if path.is_dir():
            raise BrokenFileError(f"{path} is not {what} (it is a folder)")
        yield
    except (FileNotFoundError, RunError):
        raise
    except RecursionError:
        raise BrokenFileError(f"{path} is not {what} (it is nested too deep)") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, OSError, *also) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise BrokenFileError(f"{path} is not {what} ({reason or type(error).__name__})") from None


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it is not readable, not JSON, or not an object.
    """
    with reading(path, what):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError(f"an object was expected, got {type(values).__name__}")
        return values


def read_header(path: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header, after checking that the file is whole.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: truncated, a pickle, or not safetensors.
    """
    with _safetensors(path, "numpy") as handle:
        return dict(handle.metadata() or {})


def read_tensors(
    path: Path, framework: Literal["pt", "numpy"], what: str = "a whole safetensors file"
) -> tuple[dict[str, Any], dict[str, str]]:
    """Every tensor of a safetensors file by name, and the metadata in its header. `what` the file should be.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: truncated, a pickle, not safetensors, or of a dtype that `framework` lacks.
    """
    with _safetensors(path, framework, what) as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (no mapping)
        return tensors, dict(handle.metadata() or {})


@contextlib.contextmanager
def _safetensors(path: Path, framework: str, what: str = "a whole safetensors file") -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    with reading(path, what, SafetensorError):
        with open(path, "rb") as file:
            start = file.read(9)  # eight are the length of a header, which may look like a pickle; then it opens
            if start.startswith(_PICKLE_STARTS) and start[8:] != b"{":
                raise BrokenFileError(
                    f"{path} is a pickle; weights are read from safetensors only, and nothing is ever unpickled"
                )
        with safe_open(path, framework=framework) as handle:
            yield handle


def read_parquet(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """The table in a Parquet file and what `tapelens` in its metadata says of it ({} where there is nothing).

    The file is read by itself: folders above it that are named like `seed=3` add no columns.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it is not readable, or its provenance is not an object of the expected parts.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reading(path, "a readable Parquet file", pa.ArrowException):
        with pq.ParquetFile(path) as file:
            table = file.read()
        provenance = json.loads((table.schema.metadata or {}).get(b"tapelens", b"{}"))
        check_provenance(provenance)
        return table, provenance


def check_provenance(values: Any) -> None:
    """What a file says of how it was made: an object whose parts, as far as there, have the types they are read as.

    Raises:
        TypeError: something else.
    """
    if not isinstance(values, dict):
        raise TypeError(f"its provenance must be an object, got {type(values).__name__}")
    for name, kind in _PROVENANCE.items():
        if not isinstance(values.get(name), kind | None):
            raise TypeError(f"{name} of its provenance must be of type {kind.__name__}, got {values[name]!r:.60}")


_PROVENANCE: dict[str, type] = {"digest": str, "step": int, "weights": str, "settings": dict, "versions": dict}


def count(text: str) -> int:
    """A count in a header. Raises ValueError for anything but decimal digits, or more than an int64 holds."""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"a count was expected, got {text[:60]!r}")
    return int(text)
