"""Where does an encoder–decoder fetch the instruction: in its encoder, or by cross-attention?

The instruction `op` stands in one slot of the prompt, which the instruction pointer points to. If the encoder fetches
it, other slots' outputs hold it; if cross-attention does, an answer's position reads it from its own slot. Swaps at:

    encoder, the op's own slot      what cross-attention would fetch
    encoder, all other slots        what the encoder has told them (they hold the pointer too)
    cross-attention, each layer     what the answer's positions get across
    decoder, after each layer       what they have then

1. Minimal pairs: source is base with the instruction or the pointer edited so that `op` is another. All that a swap
   carries besides is equal in both.
2. Independent pairs, by instruction, with sources of the same value as the control: the answer must stay.
"""

from __future__ import annotations

from typing import Any

from interp.interventions.by_stratum import Swap, stratum_rows
from interp.interventions.interchange import iia_sweep
from interp.interventions.scores import place_columns
from interp.results import Metric
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.tasks.sites import Site, block_names

VARIABLE = "op"


def op_sites(run: Run) -> dict[str, Site]:
    """The places of this module's docstring, by their words."""
    task, cfg = run.task, run.model.cfg
    names = task.position_names
    prompt = block_names(names[: cfg.n_prompt])
    answer = "+".join(block_names(names[cfg.n_prompt :]))
    own = task.world.variable(VARIABLE).place
    others = "+".join(block for block in prompt if block != own.partition("[")[0])
    after = f"blocks.{cfg.n_encoder - 1}.hook_resid_post"
    sites = {
        "encoder, the op's own slot": Site(after, own),
        "encoder, the pointer's slots": Site(after, "instruction_ptr"),
        "encoder, all blocks but the instructions": Site(after, others),
    }
    for layer in range(cfg.n_decoder):
        sites[f"cross-attention, decoder layer {layer}"] = Site(f"decoder_blocks.{layer}.hook_cross_attn_out", answer)
    for layer in range(cfg.n_decoder - 1):
        sites[f"decoder, after layer {layer}"] = Site(f"blocks.{cfg.n_encoder + layer}.hook_resid_post", answer)
    return sites


def measure_sides(run: Run, *, n: int, seed: int, progress: Progress = quiet) -> list[dict[str, Any]]:
    """Rows of this module's docstring, the place's words in `part`.

    Args:
        run: of an encoder–decoder about steps of the machine.
        n: examples; a quarter as many minimal pairs, and n / 64 pairs an instruction and outcome.
        seed: of pairs and bootstrap.
        progress: called with (done, total, what it is at).
    """
    sites = op_sites(run)
    words = {tuple(place_columns(site).values()): name for name, site in sites.items()}
    options: dict[str, Any] = {"seed": seed, "n_bootstrap": 300}
    progress(0, 2, f"{run.name}: minimal pairs")
    rows = iia_sweep(
        run.model,
        run.task,
        [VARIABLE],
        list(sites.values()),
        n_pairs=max(16, n // 4),
        design="minimal",
        wrong_site=False,
        **options,
    )
    progress(1, 2, f"{run.name}: by instruction")
    swaps = [Swap(site) for name, site in sites.items() if not name.startswith("cross")]  # their control: any position
    rows += stratum_rows(run.model, run.task, VARIABLE, swaps, n=max(2, n // 64), **options)
    return [{**row, "part": words[row["site"], row["position"]]} for row in rows if row["metric"] != Metric.REDRAW_RATE]
