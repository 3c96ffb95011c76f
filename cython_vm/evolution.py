"""Programs evolved for behaviour worth learning, with the machine as the judge.

MAP-Elites (J.-B. Mouret and J. Clune, "Illuminating search spaces by mapping elites", 2015), on the archive of pyribs
(B. Tjanaka et al., GECCO 2023): a grid over what programs do, where every cell keeps the best program that does it.

1. A batch of children is made by varying programs of the archive (`variation`), and some are drawn uniformly.
2. The machine runs each on a panel of inputs, to its halt, to a proven endless loop or to a limit (`behaviour`).
3. The grid's axes are the halting runs' loop iterations (mean, and how many different numbers), different outputs,
   values read and printed; a last axis keeps apart programs that compute different functions, by a hash of which
   input gives which output.
4. In a cell the program of highest quality stays: share of inputs on which it halts × share of it that is executed.
   Programs below `min_quality` are not admitted.

Making archives needs pyribs; reading one and sampling from it needs NumPy alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cython_vm.arguments import check_kind
from cython_vm.behaviour import BEHAVIOUR, begin, behaviour_of, draw_inputs, draw_programs, quality
from cython_vm.fate import check_steps
from cython_vm.programs import program_hash
from cython_vm.reachable import Exclusion, draw_reachable, draw_steps
from cython_vm.sampling import sample
from cython_vm.shards import whole_file
from cython_vm.spec import MachineSpec
from cython_vm.splits import in_split
from cython_vm.states import States
from cython_vm.validity import valid_programs
from cython_vm.variation import vary

_FORMAT = 1
_FRESH = 16  # one child in so many is drawn uniformly
_BUFFER_STEPS = 7  # longer buffers are told apart in so many steps
_RANGES = {"batch_size": (16, 2**20), "n_inputs": (1, 256), "max_steps": (1, 10**6), "variants": (1, 256)}


@dataclass(frozen=True)
class EvolutionConfig:
    """How to search. Raises ValueError on a field that is out of range."""

    seed: int = 0
    batch_size: int = 4096  # programs a generation
    n_inputs: int = 16  # inputs that every program is run on; one panel for the whole search
    max_steps: int = 500  # of one run
    min_quality: float = 0.5  # programs below are not kept
    variants: int = 8  # programs kept for one behaviour, each computing another function

    def __post_init__(self) -> None:
        for name, (low, high) in {"seed": (0, 2**63), **_RANGES}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")
            object.__setattr__(self, name, int(value))
        if not isinstance(self.min_quality, (int, float)) or not 0 <= self.min_quality < 1:
            raise ValueError(f"min_quality must be at least 0 and below 1, got {self.min_quality!r}")


@dataclass(frozen=True, eq=False)
class ProgramArchive:
    """Programs found by a search, in the order of their cells. All arrays are [n]."""

    spec: MachineSpec
    config: EvolutionConfig
    generation: int  # generations done
    cells: NDArray[np.int64]  # the cell of the grid that each program holds
    programs: NDArray[np.uint8]  # [n, n_instructions]
    behaviour: NDArray[np.void]  # records of `BEHAVIOUR`, on the panel `inputs`

    def __len__(self) -> int:
        return len(self.programs)

    @property
    def inputs(self) -> NDArray[np.uint8]:
        """The panel: uint8 [n_inputs, n_input]."""
        return draw_inputs(self.spec, self.config.n_inputs, seed=self.config.seed)

    @property
    def quality(self) -> NDArray[np.float64]:
        """From 0 to 1, 1 = halts on every input and executes every instruction."""
        return quality(self.behaviour)

    @property
    def evaluations(self) -> int:
        """Runs made so far: one program on one input, to its halt, a proven endless loop, or the limit."""
        return self.generation * self.config.batch_size * self.config.n_inputs

    def members(self, split: str = "all") -> NDArray[np.int64]:
        """Which programs belong to a split, by `program_hash % 20` as in `sample`; int64 [members]."""
        silent = np.zeros((len(self), self.spec.n_input), dtype=np.uint8)
        return np.flatnonzero(in_split(program_hash(begin(self.spec, self.programs, silent)), split))

    def save(self, path: str | Path) -> None:
        """Write one .npz file, without pickled objects, under a temporary name that is then renamed."""
        path = Path(path)
        about = {"format": _FORMAT, "spec": self.spec.to_dict(), "config": asdict(self.config)}
        text = json.dumps(about | {"generation": self.generation, "numpy": np.__version__}, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            arrays = {"cells": self.cells, "programs": self.programs, "behaviour": self.behaviour}
            np.savez_compressed(file, about=np.array(text), **arrays)

    @staticmethod
    def load(path: str | Path) -> ProgramArchive:
        """Read what `save` wrote. Raises ValueError naming the file where it is truncated, foreign or inconsistent."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                cells, programs, behaviour = (file[name] for name in ("cells", "programs", "behaviour"))
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']}, this version reads {_FORMAT}")
            spec, config = MachineSpec(**about["spec"]), EvolutionConfig(**about["config"])
            if programs.dtype != np.uint8 or programs.shape != (len(cells), spec.n_instructions):
                raise ValueError(f"programs are {programs.dtype} {list(programs.shape)}")
            if behaviour.dtype != BEHAVIOUR or len(behaviour) != len(cells) or not valid_programs(spec, programs).all():
                raise ValueError("its records do not fit its machine")
            return ProgramArchive(spec, config, int(about["generation"]), cells, programs, behaviour)
        except FileNotFoundError:
            raise
        except Exception as error:  # zipfile, zlib, JSON and NumPy each raise their own
            raise ValueError(f"{path} is not an archive of programs: {error}") from None


def evolve(
    spec: MachineSpec,
    n_generations: int,
    *,
    config: EvolutionConfig | None = None,
    archive: ProgramArchive | None = None,
    on_generation: Callable[[ProgramArchive], None] | None = None,
) -> ProgramArchive:
    """Search until n_generations are done, from the start or from where `archive` stands (then with its config).

    The result depends only on (spec, config, n_generations): a search that was interrupted, saved and continued gives
    the archive of one that was not. `on_generation` gets the archive after each generation.
    """
    check_kind("spec", spec, MachineSpec)
    check_steps("n_generations", n_generations)
    if config is not None:
        check_kind("config", config, EvolutionConfig)
    if archive is not None:
        check_kind("archive", archive, ProgramArchive)
    if archive is None:
        archive = _empty(spec, config or EvolutionConfig())
    elif archive.spec != spec or config not in (None, archive.config):
        raise ValueError(f"the archive given is of {archive.spec}, {archive.config}; asked for {spec}, {config}")
    remaining = max(0, n_generations - archive.generation)
    for later in islice(generations(archive), remaining):
        archive = later
        if on_generation is not None:
            on_generation(archive)
    return archive


def generations(archive: ProgramArchive) -> Iterator[ProgramArchive]:
    """The archive after each further generation, without end. The archives given are not changed."""
    from ribs.archives import GridArchive

    spec, config = archive.spec, archive.config
    inputs, dims = archive.inputs, _dims(spec, config)
    grid = GridArchive(
        solution_dim=spec.n_instructions,
        dims=dims,
        ranges=[(0, size) for size in dims],
        solution_dtype=np.uint8,
        extra_fields={"behaviour": ((), BEHAVIOUR)},
        seed=0,
    )

    def admit(programs: NDArray[np.uint8], behaviour: NDArray[np.void]) -> None:
        if len(programs):
            grid.add(programs, quality(behaviour), _measures(spec, config, behaviour), behaviour=behaviour)

    admit(archive.programs, archive.behaviour)
    while True:
        rng = np.random.default_rng([config.seed, archive.generation])
        programs = _children(archive, rng)
        behaviour = behaviour_of(spec, programs, inputs, max_steps=config.max_steps)
        good = quality(behaviour) >= max(config.min_quality, 1e-9)
        admit(programs[good], behaviour[good])
        elites: Any = grid.data(["index", "solution", "behaviour"])
        order = np.argsort(elites["index"])
        archive = ProgramArchive(
            spec,
            config,
            archive.generation + 1,
            elites["index"][order].astype(np.int64),
            elites["solution"][order],
            elites["behaviour"][order],
        )
        yield archive


def sample_evolved(
    archive: ProgramArchive,
    n: int,
    *,
    seed: int,
    start: int = 0,
    split: str = "all",
    at: str = "reachable",
    exclude: Collection[Exclusion] = (),
    max_steps: int = 1000,
) -> States:
    """Rows start … start + n − 1 of a stream of states of evolved programs.

    A program is drawn uniformly from the archive's members in `split`, and a full input as `draw_inputs` does. at:
    "start" for the start of the run, "reachable" for one of its states as in `sample_reachable` (`exclude` and
    `max_steps` are its). Row i depends only on (archive, seed, start + i, split, at, exclude, max_steps).
    """
    check_kind("archive", archive, ProgramArchive)
    if not isinstance(at, str) or at not in ("start", "reachable"):
        raise ValueError(f'at must be "start" or "reachable", got {at!r}')
    members = archive.members(split)
    if len(members) == 0:
        raise ValueError(f"the archive holds no program of the {split!r} split; evolve more generations")
    spec = archive.spec
    sample(spec, 0, seed=seed, start=start)  # complains about these arguments

    def begun(stream: int, first: int, count: int) -> States:
        choice = draw_steps(
            np.full(count, len(members)), stream ^ 0x5EED, np.arange(count, dtype=np.uint64) + np.uint64(first)
        )
        return begin(spec, archive.programs[members[choice]], draw_inputs(spec, count, seed=stream, start=first))

    if at == "start":
        return begun(seed, start, check_steps("n", n))
    return draw_reachable(begun, n, seed=seed, start=start, max_steps=max_steps, exclude=exclude)


def _empty(spec: MachineSpec, config: EvolutionConfig) -> ProgramArchive:
    programs = np.zeros((0, spec.n_instructions), dtype=np.uint8)
    return ProgramArchive(spec, config, 0, np.zeros(0, dtype=np.int64), programs, np.zeros(0, dtype=BEHAVIOUR))


def _children(archive: ProgramArchive, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The programs of the next generation: uniform ones, then varied members, parents and mates drawn uniformly."""
    spec, size = archive.spec, archive.config.batch_size
    n_fresh = size if len(archive) == 0 else size // _FRESH
    seed = int(rng.integers(2**63))
    fresh = draw_programs(spec, n_fresh, seed=seed)
    parents, mates = rng.integers(max(1, len(archive)), size=(2, size - n_fresh))
    return np.concatenate([fresh, vary(spec, archive.programs[parents], archive.programs[mates], rng)])


def _dims(spec: MachineSpec, config: EvolutionConfig) -> tuple[int, ...]:
    """Cells along each axis: iterations, different iterations, different outputs, reads, prints, variant."""
    counts = int(np.log2(config.n_inputs)) + 1
    iterations = 1 + int(2 * np.log2(1 + config.max_steps // 2)) if spec.loops else 1
    reads, prints = (min(size, _BUFFER_STEPS) + 1 if spec.io else 1 for size in (spec.n_input, spec.n_output))
    return iterations, counts, counts, reads, prints, config.variants


def _measures(spec: MachineSpec, config: EvolutionConfig, behaviour: NDArray[np.void]) -> NDArray[np.float64]:
    """The grid coordinates of programs, [n, 6], in the middle of cells: loop iterations in half octaves, different
    iterations and outputs in octaves, reads and prints rounded (in 7 steps where a buffer is longer)."""
    axes = [
        2 * np.log2(1 + behaviour["loop_iterations"]),
        np.log2(np.maximum(behaviour["distinct_iterations"], 1)),
        np.log2(np.maximum(behaviour["distinct_outputs"], 1)),
        np.rint(behaviour["reads"] * min(spec.n_input, _BUFFER_STEPS) / max(spec.n_input, 1)),
        np.rint(behaviour["prints"] * min(spec.n_output, _BUFFER_STEPS) / max(spec.n_output, 1)),
        behaviour["function"] % np.uint64(config.variants),
    ]
    return np.stack(
        [np.minimum(np.floor(axis), size - 1) + 0.5 for axis, size in zip(axes, _dims(spec, config), strict=True)],
        axis=1,
    )
