"""A compiled model and its answer key as a run folder, on which every tool works as on a trained one."""

from __future__ import annotations

from pathlib import Path

from interp.compiled.build import Compiled
from interp.compiled.config import KEY_FILE
from interp.reading import RunError
from interp.runs.folder import Run, load, write_config
from interp.runs.run_config import RunConfig
from interp.runs.training_config import TrainingConfig
from interp.runs.weights import save_weights
from interp.worlds import as_world


def require_place(out: Path, *, fresh: bool) -> None:
    """Refuse a folder that holds a run already, unless it is a compiled one and `fresh` is set. Raises RunError."""
    if (out / "config.json").exists():
        if not (out / KEY_FILE).exists():
            raise RunError(f"{out} holds a trained run; give another --out")
        if not fresh:
            raise RunError(f"{out} holds a compiled run already; --fresh replaces it, with what was measured on it")


def compile_run(compiled: Compiled, out: Path, *, fresh: bool = False, command: str | None = None) -> Run:
    """Write a compiled model and its key as the run folder `out`.

    Raises:
        RunError: the folder holds a run already, and `fresh` is not set; or one that was trained.
    """
    require_place(out, fresh=fresh)
    if (out / "config.json").exists():
        for frame in [*out.glob("*.parquet"), *out.glob("circuits/*.json"), *out.glob("report.html")]:
            frame.unlink()
    out.mkdir(parents=True, exist_ok=True)
    seed = compiled.model.cfg.seed
    world, training = as_world(compiled.form.spec), TrainingConfig(seed=seed)
    config = RunConfig(compiled.form.task_name, world, compiled.model.cfg, training)
    save_weights(out / "model.safetensors", compiled.model, config, step=0)
    compiled.key.save(out)
    write_config(out, config, command=command)
    return load(out)
