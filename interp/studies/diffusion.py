"""Models that write otherwise, asked how they come to an answer: each run what its kind can be asked.

Of one step: masked diffusion filling.py, continuous diffusion denoised.py, encoder–decoders sides.py. Of whole runs:
filled_runs.py, where models of one pass stand beside those that fill in.
"""

from __future__ import annotations

import pandas as pd

from interp.ranges import counted
from interp.results import read_frame, rows_frame
from interp.runs import Run
from interp.studies.holding import Progress, quiet

FILE = "diffusion.parquet"


def kept_or_measured(run: Run, *, n: int, seed: int, fresh: bool = False, progress: Progress = quiet) -> pd.DataFrame:
    """The rows of RUN/diffusion.parquet where they are of these weights, n and seed; else measured, and written there.

    Rows that these weights have of another n or seed stay: what is asked for is measured and left beside them.

    Args:
        run, n, seed, progress: of `measure_diffusion`.
        fresh: measure in any case, and replace what is there.
    """
    asked = {"n": n, "seed": seed}
    path, stays = run.path / FILE, False
    if path.exists() and not fresh:
        frame = read_frame(path)
        found = frame.attrs["provenance"]
        stays = found.get("digest") == run.config.digest and found.get("step") == run.step
        if stays and found.get("settings") == asked:
            return frame
    rows = measure_diffusion(run, n=n, seed=seed, progress=progress)
    if stays:
        return rows
    run.write_frame("diffusion", rows, settings=asked)
    return read_frame(path)


@counted(n=1)
def measure_diffusion(run: Run, *, n: int = 1_000, seed: int = 3, progress: Progress = quiet) -> pd.DataFrame:
    """Rows about how a run's model comes to its answers.

    Args:
        run: a masked or continuous diffusion model, or an encoder–decoder, about steps of the machine; or any model
            of whole runs.
        n: held-out examples of each part; pairs are fewer, see the parts.
        seed: of examples, pairs, noise and bootstrap.
        progress: called with (done, total, what it is at).

    Raises:
        ValueError: a model that writes from left to right, or a task without a prompt and an answer behind it.
    """
    from interp.studies.denoised import measure_denoised
    from interp.studies.filled_runs import measure_runs
    from interp.studies.filling import measure_filling
    from interp.studies.sides import measure_sides

    model = run.model
    if run.task.lengths(run.task.sample(1, seed=seed)) is not None:
        return run.identified(rows_frame(measure_runs(run, n=n, seed=seed, progress=progress)))
    if not (run.task.whole_answers and run.task.shows_answer and "op" in run.task.swappable()):
        raise ValueError(f"asked are models of one step of the machine that show the answer; got {run.task.name}")
    if model.decides_for_good:
        rows = measure_filling(run, n=n, seed=seed, progress=progress)
    elif model.denoising_orders:
        rows = measure_denoised(run, n=n, seed=seed, progress=progress)
    elif model.has_sides:
        rows = measure_sides(run, n=n, seed=seed, progress=progress)
    else:
        raise ValueError(
            f"the architecture {run.config.model.architecture} neither fills in an answer nor reads its prompt by "
            "cross-attention"
        )
    return run.identified(rows_frame(rows))
