"""The probes that every battery tries: all of the registry, by name, with settings that keep the batteries quick."""

from typing import Any

from probes import PROBES

# A probe without an entry is tried with its defaults.
QUICK: dict[str, dict[str, Any]] = {
    "logistic_path": {"Cs": (0.01, 1.0)},
    "mlp": {"hidden": 16, "batch_size": 64, "max_epochs": 12},
}


def fresh(name: str) -> Any:
    """An unfitted probe of that name."""
    return PROBES[name](**QUICK.get(name, {}))
