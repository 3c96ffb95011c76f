"""The file that a sweep is made from: which runs, which verbs on each, how long, and with what.

    verbs = ["train", "eval", "probe"]     # train comes first; what can be missing is the rest

    [grid]                                 # every combination of these
    preset = ["trace", "trace_gru"]
    seed = [0, 1, 2]
    training.adamw_lr = [1e-3, 3e-3]

    [[runs]]                               # or one by one; with a grid: each in every place of the grid
    preset = "trace"
    architecture = "transformer"
    model.positional_embedding_type = "path"
    name = "trace_path"

    [set]                                  # the same for all
    training.steps_along = 4

    [options.probe]                        # of a verb
    n = 4000

    [budget]                               # one of records, seconds, steps: what each training gets
    records = 100_000

    [resources]                            # of each run
    cpus = 1

A run is told by `preset`, `task`, `architecture`, `seed`, and any field of its settings: `training.…`, `model.…`,
`options.…` (of the task), `machine.…` (of the world).
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.ranges import require_count, require_number
from interp.studies.sweep_stages import STAGES, TRAIN, VERBS

if TYPE_CHECKING:
    from interp.runs import RunConfig

_PLAIN = ("preset", "task", "architecture", "seed")
_GROUPS = ("training", "model", "options", "machine")
_TABLES = ("name", "out", "verbs", "retries", "grid", "runs", "set", "options", "budget", "resources")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=+-]{0,119}")


@dataclass(frozen=True)
class Budget:
    """What each training gets, in one unit; none: what its preset says."""

    records: int | None = None
    seconds: float | None = None
    """Of one machine's measured steps: the number of steps is fixed by a short probe when the sweep is planned, and
    stays, so that a run is still a function of its config."""
    steps: int | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in vars(self).values()) > 1:
            raise ValueError("a budget is given in one of records, seconds and steps")
        for name in ("records", "steps"):
            if getattr(self, name) is not None:
                require_count(f"budget {name}", getattr(self, name))
        if self.seconds is not None:
            require_number("budget seconds", self.seconds, above=0)

    def applied(self, config: RunConfig, *, step_seconds: float | None = None) -> RunConfig:
        """The run with the steps that its budget pays for, at least one.

        Raises:
            ValueError: a budget in seconds, and no `step_seconds`.
        """
        steps = self.steps
        if self.records is not None:
            steps = max(1, self.records // config.training.batch_size)
        if self.seconds is not None:
            if step_seconds is None:
                raise ValueError("a budget in seconds needs the measured seconds of a step")
            steps = max(1, int(self.seconds / step_seconds))
        return config if steps is None else replace(config, training=replace(config.training, steps=steps))


@dataclass(frozen=True)
class Resources:
    """What each run takes; threads: of PyTorch, the cpus unless said."""

    cpus: int = 1
    gpus: float = 0.0
    threads: int = 0

    def __post_init__(self) -> None:
        require_count("resources cpus", self.cpus)
        require_number("resources gpus", self.gpus, least=0)
        require_count("resources threads", self.threads, least=0)

    @property
    def n_threads(self) -> int:
        """PyTorch threads of a run."""
        return self.threads or self.cpus


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: its name, which is its folder's, and the settings that make it."""

    name: str
    settings: Mapping[str, Any]

    def config(self, *, threads: int) -> RunConfig:
        """What it is made of, before any budget; trained with `threads` where its settings do not say another number.

        Raises:
            ValueError: a name or a value that there is not; the sentence begins with the run's name.
        """
        from interp.training import PRESETS
        from interp.training.rebuilt import rebuilt
        from interp.worlds import world_from_dict

        told = dict(self.settings)
        parts: dict[str, dict[str, Any]] = {group: {} for group in _GROUPS}
        for key, value in told.items():
            group, dot, name = key.partition(".")
            if dot:
                parts[group][name] = tuple(value) if isinstance(value, list) else value
        parts["training"].setdefault("threads", threads)
        if "seed" in told:
            parts["training"]["seed"] = told["seed"]
        try:
            config = PRESETS[told["preset"]]
            world, machine = config.world, parts.pop("machine")
            if unknown := set(machine) - set(world.settings()):
                raise ValueError(f"machine.{min(unknown)} is none of {', '.join(world.settings())}")
            if machine:
                world = world_from_dict({"name": world.name, **world.to_dict(), **machine})
            return rebuilt(config, world, task=told.get("task"), architecture=told.get("architecture"), **parts)
        except (ValueError, TypeError) as error:
            raise ValueError(f"run {self.name}: {error}") from None


@dataclass(frozen=True)
class SweepSpec:
    """A whole sweep. `options` holds each verb's options as its dataclass."""

    name: str
    out: Path
    cells: tuple[Cell, ...]
    verbs: tuple[str, ...] = (TRAIN,)
    options: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget = Budget()
    resources: Resources = Resources()
    retries: int = 2


def read_spec(path: Path) -> SweepSpec:
    """Read a sweep's file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not TOML, or says what cannot be; the sentence names the file and the place.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    try:
        return spec_from(values, name=path.stem)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def spec_from(values: Mapping[str, Any], *, name: str) -> SweepSpec:
    """A sweep from what its file holds. Raises ValueError as `read_spec`."""
    _known("the file", values, _TABLES)
    name = values.get("name", name)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name must be letters, digits and _ . = + -, got {name!r}")
    verbs = values.get("verbs", [TRAIN])
    if not isinstance(verbs, list) or not verbs or (unknown := [verb for verb in verbs if verb not in VERBS]):
        raise ValueError(f"verbs must be some of {', '.join(VERBS)}, got {verbs if not verbs else unknown!r}")
    retries = values.get("retries", SweepSpec.retries)
    require_count("retries", retries, least=0)
    return SweepSpec(
        name=name,
        out=Path(values.get("out", f"runs/{name}")),
        cells=_cells(values),
        verbs=tuple(verb for verb in VERBS if verb in verbs or verb == TRAIN),
        options=_options(values.get("options", {})),
        budget=Budget(**_fields("budget", values, Budget)),
        resources=Resources(**_fields("resources", values, Resources)),
        retries=retries,
    )


def _known(where: str, values: Mapping[str, Any], names: Sequence[str]) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must be a table, got {values!r}")
    if unknown := [name for name in values if name not in names]:
        raise ValueError(f"{where} has no {unknown[0]!r}; there are {', '.join(names)}")


def _fields(table: str, values: Mapping[str, Any], kind: type) -> dict[str, Any]:
    found = values.get(table, {})
    _known(f"[{table}]", found, [each.name for each in fields(kind)])
    return dict(found)


def _options(tables: Mapping[str, Any]) -> dict[str, Any]:
    _known("[options]", tables, list(STAGES))
    found = {}
    for verb, values in tables.items():
        try:
            found[verb] = STAGES[verb].asked(values)
        except ValueError as error:
            raise ValueError(f"[options.{verb}] {error}") from None
    return found


def _cells(values: Mapping[str, Any]) -> tuple[Cell, ...]:
    """Every combination of the grid, with every run of the list; what is set for all below both."""
    common, grid = (_settings(f"[{name}]", values.get(name, {})) for name in ("set", "grid"))
    listed = [_settings("[[runs]]", each, more=("name",)) for each in values.get("runs", [{}])]
    for key, several in grid.items():
        if not isinstance(several, list) or not several:
            raise ValueError(f"[grid] {key} must be a list of values, got {several!r}")
    cells: dict[str, Cell] = {}
    for each in listed:
        if twice := set(each) & set(grid):
            raise ValueError(f"{min(twice)} stands in [grid] and in [[runs]]; it can vary in one of them")
        for combination in itertools.product(*grid.values()):
            varied = {name: value for name, value in each.items() if name != "name"}
            at = dict(zip(grid, combination, strict=True))
            settings = {**common, **varied, **at}
            if not isinstance(settings.get("preset"), str):
                raise ValueError('every run needs a preset, such as preset = "quickstart"')
            require_count("seed", settings.get("seed", 0), least=0)
            name = _cell_name(each.get("name"), varied, at, settings)
            if name in cells:
                raise ValueError(f"two runs are named {name}; give those of [[runs]] a name each")
            cells[name] = Cell(name, settings)
    return tuple(cells.values())


def _settings(where: str, table: Any, *, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """A table's settings with their full names: `training.steps = 5` reads as a table inside a table in TOML.

    Raises:
        ValueError: a name that no run can be told.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} must be a table, got {table!r}")
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, Mapping) else {key: value}
    for key in flat:
        group, dot, name = key.partition(".")
        if not (key in (*_PLAIN, *more) or (dot and group in _GROUPS and name)):
            raise ValueError(
                f"{where} has no {key!r}; there are {', '.join(_PLAIN)}, and fields such as training.steps"
            )
    return flat


def _cell_name(given: str | None, varied: Mapping[str, Any], at: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Its own name, or what it is made of; then its place in the grid; the seed last, always.

    A name does not depend on how many values the grid has, so that a sweep that grows keeps what it has.
    """
    told = {**({} if given else varied), **at}
    parts = [given or str(settings["preset"])]
    for key, value in told.items():
        if key in ("seed", "preset"):
            continue
        shown = "-".join(map(str, value)) if isinstance(value, list) else str(value)
        parts.append(shown if key in _PLAIN else f"{key.partition('.')[2]}={shown}")
    if given and "preset" in at:
        parts.insert(1, str(at["preset"]))
    name = "_".join([*parts, f"s{settings.get('seed', 0)}"])
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a folder; give the run a name in [[runs]]")
    return name
