"""What of a run is shared, known and checked before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interp.pages.cards import read_card
from interp.reading import RunError, read_header, read_json, read_parquet, reading
from interp.runs import Run
from interp.runs.hub_names import (
    HUB_FILE,
    MAX_GB,
    HubError,
    in_words,
    is_shared,
    require_inside,
    require_repository,
    require_size,
)
from interp.sharing.readme import readme


@dataclass(frozen=True)
class SharedFile:
    """A file of a run, under the name that it has on a hub."""

    name: str
    path: Path
    size: int


@dataclass(frozen=True)
class PushPlan:
    """What `push` sends: whole, readable files of one run, and the card as the README."""

    run: Run
    repository: str
    files: tuple[SharedFile, ...]
    left_out: tuple[str, ...]  # what else lies in the folder, by name
    readme: str
    notice: str | None  # what the task says to a person before the run is shared

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files) + len(self.readme.encode())

    def in_words(self) -> str:
        """What would be sent, and what stays, in a line or two."""
        kinds: dict[str, int] = {}
        for file in self.files:
            kind = file.name.partition("/")[0] + "/" if "/" in file.name else file.name
            kinds[kind] = kinds.get(kind, 0) + 1
        listed = ", ".join(f"{count} in {kind}" if kind.endswith("/") else kind for kind, count in kinds.items())
        text = f"{in_words(self.size)} in {len(self.files) + 1} files: README.md, {listed}"
        return text + (f"\nstays here: {', '.join(self.left_out)}" if self.left_out else "")


def plan_push(run: Run, repository: str, *, max_gb: float = MAX_GB) -> PushPlan:
    """Choose and check the files of a run that go to OWNER/NAME. Nothing is sent.

    Raises:
        RunError: the run is not whole: a file is damaged, a card is of other weights, a link leaves the folder.
        HubError: no such name for a repository, or more than `max_gb` gigabytes.
    """
    require_repository(repository)
    files, left_out = [], []
    for path in _files(run.path):
        name = path.relative_to(run.path).as_posix()
        if not is_shared(name):
            left_out.append(name)
            continue
        require_inside(name, str(run.path))
        if not path.resolve().is_relative_to(run.path.resolve()):
            raise HubError(f"{path} is a link that leaves the run's folder; only what lies in it is shared")
        files.append(SharedFile(name, path, path.stat().st_size))
    require_size(sum(file.size for file in files), what=str(run.path), max_gb=max_gb)
    _require_whole(run, files)
    card = read_card(run.path) if (run.path / "card.json").is_file() else None
    return PushPlan(
        run=run,
        repository=repository,
        files=tuple(files),
        left_out=tuple(dict.fromkeys(name.partition("/")[0] + "/" * ("/" in name) for name in left_out)),
        readme=readme(run, card, repository=repository),
        notice=run.task.notice_before_sharing(),
    )


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in the order of their names; folders that are links are not entered."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in ("resume", HUB_FILE):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _require_whole(run: Run, files: list[SharedFile]) -> None:
    """Refuse a run that could not be opened at the other end. Raises RunError with the file's name."""
    if not any(file.name == "model.safetensors" for file in files):
        raise RunError(f"{run.weights} does not exist: a run without weights is not shared")
    for file in files:
        if file.name.endswith(".safetensors"):
            read_header(file.path)
        elif file.name.endswith(".parquet"):
            read_parquet(file.path)
        elif file.name.endswith(".json"):
            read_json(file.path, "a JSON file of a run")
        else:
            with reading(file.path, "a text in UTF-8"):
                file.path.read_text(encoding="utf-8")
    _ = run.model  # weights of another config, or of another shape, are refused here
