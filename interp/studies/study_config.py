"""What a study of circuits measures, and how hard."""

from __future__ import annotations

from dataclasses import dataclass, fields

from interp.circuits.config import CircuitConfig
from interp.ranges import require_fields
from interp.stage_options import Ablation, CircuitOptions, Level, Measure
from interp.studies.along import AlongConfig
from interp.studies.dissociation import DissociationConfig
from interp.studies.evidence import EvidenceConfig


@dataclass(frozen=True)
class StudyConfig:
    """What to measure, and how hard."""

    circuit: CircuitConfig = CircuitConfig()  # noqa: RUF009 (frozen)
    freezes: bool = CircuitOptions.freezes  # also a circuit for each of the further contrasts: the ways to freeze
    measure: tuple[Measure, ...] = CircuitOptions.measure
    levels: tuple[Level, ...] = CircuitOptions.levels
    ablations: tuple[Ablation, ...] = CircuitOptions.ablations  # of parts
    along: bool = CircuitOptions.along  # also every checkpoint that the run kept
    paths: tuple[str, ...] = CircuitOptions.paths
    n_heads: int = 3  # heads an instruction whose role is measured
    n_role_pairs: int = 12
    n_edges: int = 20  # of highest |score|, an instruction, that are kept pair by pair
    n_exact_pairs: int = CircuitOptions.n_exact_pairs  # of approximations, positions, routes and paths
    n_search_pairs: int = CircuitOptions.n_search_pairs  # of the ACDC-style search
    n_routed: int = 30  # edges of highest |score|, an instruction, that are followed from place to place
    dissociation: DissociationConfig = DissociationConfig()  # noqa: RUF009
    evidence: EvidenceConfig = EvidenceConfig()  # noqa: RUF009
    checkpoints: AlongConfig = AlongConfig()  # noqa: RUF009

    def __post_init__(self) -> None:
        require_fields(self, n_heads=1, n_role_pairs=1, n_edges=1, n_exact_pairs=1, n_search_pairs=0, n_routed=1)

    @classmethod
    def asked(cls, options: CircuitOptions) -> StudyConfig:
        """What the stage `circuit` is asked, and everything else as it is by default."""
        own = {field.name for field in fields(cls)} & {field.name for field in fields(options)}
        scored = {field.name for field in fields(CircuitConfig)} & {field.name for field in fields(options)} - own
        circuit = CircuitConfig(**{name: getattr(options, name) for name in scored})
        return cls(circuit=circuit, **{name: getattr(options, name) for name in own})
