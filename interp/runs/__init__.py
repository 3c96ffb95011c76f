"""Run folders: a trained model with everything that was measured of it, as files that carry where they come from."""

from interp.runs.folder import (
    FRAMES,
    NEXT_STATE_TASKS,
    STEPS,
    Run,
    RunConfig,
    RunError,
    frame_command,
    hardware,
    load,
    provenance,
    read_config,
    require_dtypes,
    save_weights,
    versions,
    weights_header,
    write_config,
)

__all__ = [
    "FRAMES",
    "NEXT_STATE_TASKS",
    "STEPS",
    "Run",
    "RunConfig",
    "RunError",
    "frame_command",
    "hardware",
    "load",
    "provenance",
    "read_config",
    "require_dtypes",
    "save_weights",
    "versions",
    "weights_header",
    "write_config",
]
