"""How hard to look for a circuit, and in which way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from interp.circuits.scorers import SCORERS
from interp.ranges import require_count, require_number
from interp.stage_options import ABLATIONS, GRIDS, Ablation, CircuitOptions, Grid
from probes.scores import MIN_GROUPS


@dataclass(frozen=True)
class CircuitConfig:
    """How hard to look. The defaults take about ten seconds an opcode on two cores for a model of 4 x 4 heads."""

    n_pairs: int = CircuitOptions.n_pairs  # pairs to score on, and as many of other programs to evaluate on
    steps: int = CircuitOptions.steps  # midpoints of EAP-IG
    n_sizes: int = 12  # circuit sizes on a log axis
    n_null: int = 10  # random circuits a size
    n_null_pairs: int = 24  # pairs that random circuits are run on
    n_exact: int = 40  # edges of highest |score| to patch exactly
    n_exact_pairs: int = 48  # pairs for exact patching of edges and nodes
    ablation: Ablation = "resample"
    threshold: float = 0.9  # of faithfulness
    n_reference: int = 256  # held-out states that mean ablation averages over
    n_bootstrap: int = 1000
    method: str = CircuitOptions.method  # a name of SCORERS
    grid: Grid = CircuitOptions.grid  # of circuit sizes; "mib" for figures that compare with the benchmark's

    def __post_init__(self) -> None:
        if self.method not in SCORERS:
            raise ValueError(f"method must be one of {', '.join(SCORERS)}; got {self.method!r}")
        if self.grid not in GRIDS:
            raise ValueError(f"grid must be one of {', '.join(GRIDS)}; got {self.grid!r}")
        if self.ablation not in ABLATIONS:
            raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}; got {self.ablation!r}")
        require_number("threshold", self.threshold, above=0, most=1)
        for name in ("n_null", "n_exact", "n_pairs", "n_exact_pairs"):
            require_count(name, getattr(self, name), least=0)
        for name in ("n_pairs", "n_exact_pairs"):  # effects of single parts get intervals from both
            if getattr(self, name) < MIN_GROUPS:
                raise ValueError(
                    f"{name} must be at least {MIN_GROUPS}, fewer pairs give no interval; got {getattr(self, name)}"
                )
        for name in ("steps", "n_sizes", "n_null_pairs", "n_reference", "n_bootstrap"):
            require_count(name, getattr(self, name))

    def settings(self) -> dict[str, Any]:
        """What files are stamped with: every field, but of those that came later only what differs from the default."""
        found = asdict(self)
        for name in ("method", "grid"):
            if found[name] == type(self).__dataclass_fields__[name].default:
                del found[name]
        return found
