"""Speed: bench."""

from __future__ import annotations

import json
import logging
from typing import Annotated, Literal

import tyro

from interp.console import say


def bench(
    what: Annotated[
        Literal["machine", "training", "models", "throughput", "probes", "circuits", "text", "app"],
        tyro.conf.Positional,
    ],
    *,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Speed as ratios to a named peer, measured in the same run (above 1: ours is better).

    Args:
        what: which benchmark.
        json_output: print only a JSON list of rows on standard output.
    """
    from importlib import import_module

    logging.basicConfig(format="%(message)s")  # to standard error
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    rows = import_module(f"benchmarks.{what}").rows()
    if json_output:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        if row["ratio"] is None:  # one of the two could not be measured
            continue
        say(
            f"{row['name']}: {row['ratio']:.2f}x  (ours {row['ours']:.4g}, {row['peer_name']} {row['peer']:.4g} "
            f"{row['unit']})"
        )
