"""Everything that `tapelens circuit` measures on a run, one resumable job after the other.

    circuits         a circuit a contrast: an instruction, a way to freeze circuits/NAME.json
    roles            what the circuit's strongest heads do                 circuits/roles/NAME.json
    edges            its strongest edges, pair by pair                     circuits/edges/NAME.json
    dissociation     own and shared parts, ablated                         circuits/dissociation/LEVEL.ABLATION.json
    evidence         nulls, examples, completeness, stability              circuits/evidence/NAME.json
    approximations   methods against exact patching of every edge          circuits/approximations/NAME.json
    positions        edges resolved by position                            circuits/positions/NAME.json
    routes           edges from the place of their message to its effect   circuits/routes/NAME.json
    paths            path patching of named paths                          circuits/paths/NAME.json
    along            circuits at the run's checkpoints                     circuits/along/STEP.json

Every job writes its file when it is done and is skipped when the file is there, measured on the same weights with the
same settings; `circuits.parquet` holds the rows of all files that are current, `circuits/summary.json` sentences made
from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch

from interp.circuits import find_circuit
from interp.circuits.attention import attention_patterns, can_average, write_attention
from interp.circuits.overlap import matrices, sharing, sharing_rows
from interp.circuits.pairs import Pairs, draw_pairs, main_contrasts, other_contrasts
from interp.circuits.paths import parse_path, path_effects
from interp.circuits.positions import position_rows
from interp.circuits.roles import head_roles
from interp.circuits.routes import edge_routes, place_names, routes_detail, strongest_edges
from interp.circuits.standing import taken_apart
from interp.results import Aggregation, Method, Metric, rows_frame
from interp.runs import Run, provenance
from interp.runs.circuit_files import Circuit, circuit_path, circuit_rows, read_circuit, write_circuit
from interp.runs.findings import Finding, current_finding, findings, write_finding
from interp.stage_options import ABLATIONS, LEVELS, Ablation, CircuitOptions, Level
from interp.studies.along import circuits_at
from interp.studies.approximations import compare_approximations
from interp.studies.circuit_summary import write_summary
from interp.studies.dissociation import dissociate, dissociation_detail, dissociation_rows
from interp.studies.evidence import gather_evidence
from interp.studies.examples import edge_examples
from interp.studies.study_config import StudyConfig

KINDS = ("roles", "edges", "dissociation", "evidence", "approximations", "positions", "routes", "paths", "along")
_COST = {  # rough seconds a job at the default size, so that the bar tells the time left
    "circuit": 25,
    "roles": 5,
    "edges": 2,
    "dissociation": 20,
    "evidence": 60,
    "approximations": 60,
    "positions": 5,
    "routes": 4,
    "paths": 1,
    "along": 20,
}


_Found = tuple[list[dict[str, Any]], dict[str, Any]]  # rows of the tidy frame, and what does not fit into rows
_Measure = Callable[[str, Callable[[float], None]], _Found]


@dataclass(frozen=True)
class _Job:
    kind: str
    name: str
    settings: dict[str, Any]
    run: Callable[[Callable[[float], None]], _Found]


def study(
    run: Run,
    *,
    ops: Sequence[str] = (),
    config: StudyConfig = StudyConfig(),  # noqa: B008 (frozen)
    seed: int = CircuitOptions.seed,
    fresh: bool = False,
    progress: Callable[[float, float, str], None] | None = None,
) -> pd.DataFrame:
    """Measure what is asked for and not there yet; returns the run's circuits frame.

    Args:
        run: a run of a transformer.
        ops: names of contrasts to find circuits of; the task's main ones, all opcodes, by default.
        config: what to measure.
        seed: of everything random.
        fresh: measure again what was asked for.
        progress: called with (work done, of how much, what is going on).

    Raises:
        ValueError: an unknown instruction, level, ablation or path, or no checkpoints where they are asked for.
    """
    return _Study(run, ops, config, seed, fresh, progress or (lambda done, total, at: None)).frame()


class _Study:
    def __init__(self, run: Run, ops: Sequence[str], config: StudyConfig, seed: int, fresh: bool, progress: Any):
        self.run, self.config, self.seed, self.fresh = run, config, seed, fresh
        self.known, self.further = list(main_contrasts(run.task)), list(other_contrasts(run.task))
        for name in ops:
            run.task.contrast(name)  # raises where there is none
        self.slugs = {name: contrast.slug for name, contrast in run.task.contrasts().items()}
        self.names = list(ops) or [*self.known, *(self.further if config.freezes else [])]
        for field, allowed in (("levels", LEVELS), ("ablations", ABLATIONS)):
            if wrong := [value for value in getattr(config, field) if value not in allowed]:
                raise ValueError(f"{field} must be among {', '.join(allowed)}; got {wrong[0]!r}")
        if config.along and not run.steps:
            raise ValueError(
                f"{run.path} keeps no checkpoints; train with --training.steps-along N to have circuits along the run"
            )
        self.graph = taken_apart(run.model)
        self.paths = [parse_path(self.graph, text) for text in config.paths]
        self.progress = progress
        self.circuits: dict[str, Circuit] = {}

    def header(self, settings: dict[str, Any]) -> dict[str, Any]:
        found = provenance(self.run.config, step=self.run.step, settings={**settings, "seed": self.seed})
        return json.loads(json.dumps(found))

    def frame(self) -> pd.DataFrame:
        header = self.header(self.config.circuit.settings())
        self._read_circuits(header)
        missing = [name for name in self.names if name not in self.circuits]
        jobs = self._jobs()
        total = sum(_COST["circuit"] for _ in missing) + sum(_COST[job.kind] for job in jobs)
        done = 0.0
        for name in missing:
            circuit = find_circuit(
                self.run.model,
                self.run.task,
                name,
                config=self.config.circuit,
                seed=self.seed,
                progress=self._report(done, "circuit", total, name),
            )
            write_circuit(circuit_path(self.run.path, self.slugs[name]), circuit, provenance=header)
            self.circuits[name] = circuit
            done += _COST["circuit"]
        self._attention(header)
        self._write(header)
        for job in jobs:
            rows, detail = job.run(self._report(done, job.kind, total, f"{job.kind} {job.name}"))
            stamp = self.header(job.settings)
            write_finding(self.run.path, job.kind, job.name, rows, detail, provenance=stamp)
            done += _COST[job.kind]
            self._write(header)
        return self.run.frame("circuits")

    def _report(self, done: float, kind: str, total: float, label: str) -> Callable[[float], None]:
        return lambda share: self.progress(done + share * _COST[kind], total, label)

    def _read_circuits(self, header: dict[str, Any]) -> None:
        for name in self.known + self.further:
            try:
                circuit, found = read_circuit(circuit_path(self.run.path, self.slugs[name]))
            except (FileNotFoundError, ValueError):
                continue
            same = all(found.get(key) == header[key] for key in ("digest", "step", "settings"))
            if same and not (self.fresh and name in self.names):
                self.circuits[name] = circuit

    def _attention(self, header: dict[str, Any]) -> None:
        file = self.run.path / "attention.safetensors"
        if self.fresh or not file.exists():
            summary = attention_patterns(self.run.model, self.run.task, seed=self.seed)
            write_attention(file, summary, provenance=header)

    def _jobs(self) -> list[_Job]:
        wanted = [job for kind in KINDS for job in getattr(self, f"_{kind}")()]
        path = self.run.path
        return [
            job
            for job in wanted
            if self.fresh or not current_finding(path, job.kind, job.name, provenance=self.header(job.settings))
        ]

    def _asked(self, kind: str) -> bool:
        return kind in self.config.measure

    def _each(self, kind: str, names: Sequence[str], settings: dict[str, Any], measure: _Measure) -> list[_Job]:
        """A job an instruction."""
        return [_Job(kind, self.slugs[name], settings, partial(measure, name)) for name in names]

    def _few_pairs(self, name: str) -> Pairs:
        """Pairs that every edge is patched on."""
        return draw_pairs(self.run.task, name, self.config.n_exact_pairs, seed=self.seed, half=1)

    def _roles(self) -> list[_Job]:
        circuit = self.config.circuit.settings()
        settings = {"n_heads": self.config.n_heads, "n": self.config.n_role_pairs, "circuit": circuit}

        def measure(name: str, report: Callable[[float], None]) -> _Found:
            nodes = [node for node in self.circuits[name].nodes if node.kind == "head" and node.in_circuit]
            nodes.sort(key=lambda node: -abs(node.effect or 0.0))
            heads = [(int(node.layer or 0), int(node.head or 0)) for node in nodes[: self.config.n_heads]]
            if not heads:
                return [], {"roles": []}
            options: dict[str, Any] = {"heads": heads, "n": self.config.n_role_pairs, "seed": self.seed}
            try:
                roles = head_roles(self.run.model, self.run.task, name, progress=report, **options)
            except ValueError as error:  # on a tiny machine no variable may change the answer often enough
                return [], {"roles": [], "none": str(error)}
            return [], {"roles": [_finite(asdict(role)) for role in roles]}

        measurable = self._asked("roles") and self.run.task.has_strata  # roles are of single steps
        names = [name for name in self.names if name in self.known] if measurable else []
        return self._each("roles", names, settings, measure)

    def _edges(self) -> list[_Job]:
        circuit, n_edges = self.config.circuit, self.config.n_edges
        settings = {"n_edges": n_edges, "n": circuit.n_exact_pairs, "circuit": circuit.settings()}

        def measure(name: str, report: Callable[[float], None]) -> _Found:
            options: dict[str, Any] = {"n_edges": n_edges, "n_pairs": circuit.n_exact_pairs, "seed": self.seed}
            found = edge_examples(self.run.model, self.run.task, self.circuits[name], progress=report, **options)
            return [], found.detail()

        return self._each("edges", self.names if self._asked("edges") else [], settings, measure)

    def _dissociation(self) -> list[_Job]:
        if not self._asked("dissociation") or len(self.known) < 2:
            return []

        def measure(level: Level, ablation: Ablation, report: Callable[[float], None]) -> _Found:
            options: dict[str, Any] = {"level": level, "ablation": ablation, "config": self.config.dissociation}
            found = dissociate(self.run.model, self.run.task, seed=self.seed, progress=report, **options)
            return dissociation_rows(found), dissociation_detail(found)

        settings = asdict(self.config.dissociation)
        return [
            _Job("dissociation", f"{level}.{ablation}", settings, partial(measure, level, ablation))
            for ablation in self.config.ablations
            for level in self.config.levels
        ]

    def _evidence(self) -> list[_Job]:
        def measure(name: str, report: Callable[[float], None]) -> _Found:
            options: dict[str, Any] = {"config": self.config.evidence, "seed": self.seed, "progress": report}
            return gather_evidence(self.run.model, self.run.task, self.circuits[name], **options)

        settings = {**asdict(self.config.evidence), "circuit": self.config.circuit.settings()}
        return self._each("evidence", self.names if self._asked("evidence") else [], settings, measure)

    def _approximations(self) -> list[_Job]:
        def measure(name: str, report: Callable[[float], None]) -> _Found:
            options: dict[str, Any] = {"steps": self.config.circuit.steps, "n_search": self.config.n_search_pairs}
            return compare_approximations(self.run.model, self._few_pairs(name), progress=report, **options)

        settings = {"n": self.config.n_exact_pairs, "n_search": self.config.n_search_pairs}
        return self._each("approximations", self.names if self._asked("approximations") else [], settings, measure)

    def _positions(self) -> list[_Job]:
        def measure(name: str, report: Callable[[float], None]) -> _Found:
            return position_rows(self.run.model, self._few_pairs(name), steps=self.config.circuit.steps), {}

        settings = {"n": self.config.n_exact_pairs, "steps": self.config.circuit.steps}
        return self._each("positions", self.names if self._asked("positions") else [], settings, measure)

    def _routes(self) -> list[_Job]:
        circuit, n_routed = self.config.circuit, self.config.n_routed
        settings = {"n": self.config.n_exact_pairs, "n_edges": n_routed, "circuit": circuit.settings()}

        def measure(name: str, report: Callable[[float], None]) -> _Found:
            pairs = self._few_pairs(name)
            edges = strongest_edges(self.graph, matrices(self.circuits[name])[0], n_routed)
            found = edge_routes(self.run.model, pairs, edges, seed=self.seed, progress=report)
            with torch.no_grad():
                m_clean = float(pairs.logit_difference(self.run.model(pairs.clean.tokens)).mean())
            return [], routes_detail(found, place_names(self.run.task), n=len(pairs), m_clean=m_clean)

        measurable = self._asked("routes") and can_average(self.run.task)
        return self._each("routes", self.names if measurable else [], settings, measure)

    def _paths(self) -> list[_Job]:
        def measure(name: str, report: Callable[[float], None]) -> _Found:
            pairs = self._few_pairs(name)
            key: dict[str, Any] = {
                "op": name,
                "method": Method.PATH_PATCHING,
                "granularity": "path",
                "ablation": "resample",
                "metric": Metric.EFFECT,
                "aggregation": Aggregation.MEAN,
                "n": len(pairs),
            }
            effects = [float(path_effects(self.run.model, pairs, [path]).mean()) for path in self.paths]
            return [{**key, "site": path.name, "estimate": m} for path, m in zip(self.paths, effects, strict=True)], {}

        settings = {"paths": [path.name for path in self.paths], "n": self.config.n_exact_pairs}
        return self._each("paths", self.names if self.paths else [], settings, measure)

    def _along(self) -> list[_Job]:
        settings = {**asdict(self.config.checkpoints), "circuit": self.config.circuit.settings(), "ops": self.names}

        def job(step: int) -> _Job:
            def run(report: Callable[[float], None]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
                then = self.run.at_step(step)
                final = [self.circuits[name] for name in self.names]
                rows = circuits_at(
                    then.model,
                    self.run.task,
                    final,
                    config=self.config.checkpoints,
                    seed=self.seed,
                    progress=report,
                )
                return [{**row, "checkpoint_step": step} for row in rows], {}

            return _Job("along", str(step), settings, run)

        return [job(step) for step in self.run.steps] if self.config.along else []

    def _current(self, kind: str, header: dict[str, Any]) -> list[Finding]:
        """The findings of a kind on these weights; of those about a circuit, the ones about the circuits found so."""
        circuit = {key: value for key, value in header["settings"].items() if key != "seed"}
        found = findings(self.run.path, kind, digest=header["digest"], step=self.run.step)
        return [each for each in found if each.provenance["settings"].get("circuit", circuit) == circuit]

    def _write(self, header: dict[str, Any]) -> None:
        """The frame and the sentences, from all files that are current."""
        circuits = [self.circuits[name] for name in self.known + self.further if name in self.circuits]
        rows = [row for circuit in circuits for row in circuit_rows(circuit)]
        of_ops = [circuit for circuit in circuits if circuit.op in self.known]
        shared = sharing(of_ops) if len(of_ops) > 1 else None
        if shared is not None:
            rows += sharing_rows(shared)
        here = {kind: self._current(kind, header) for kind in KINDS}
        rows += [row for kind in KINDS for each in here[kind] for row in each.rows]
        self.run.write_frame("circuits", rows_frame(rows), settings=header["settings"])
        roles = {each.name: each.detail["roles"] for each in here["roles"]}
        write_summary(
            self.run,
            circuits,
            shared,
            roles={name: roles.get(slug, ()) for name, slug in self.slugs.items()},
            dissociations={each.name: each.detail for each in here["dissociation"]},
            provenance=header,
        )


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    """nan, which JSON lacks, as None."""
    return {key: None if isinstance(value, float) and value != value else value for key, value in values.items()}
