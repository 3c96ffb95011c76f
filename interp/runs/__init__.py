"""Run folders: a trained model with everything that was measured of it, as files that carry where they come from."""

from interp.reading import RunError
from interp.runs.folder import FRAMES, Run, frame_command, load, read_config, write_config
from interp.runs.origin import hardware, provenance, versions
from interp.runs.run_config import NEXT_STATE_TASKS, STREAM_TASKS, WRITING_TASKS, RunConfig
from interp.runs.weights import STEPS, require_dtypes, save_weights, weights_header

__all__ = [
    "FRAMES",
    "NEXT_STATE_TASKS",
    "STEPS",
    "STREAM_TASKS",
    "WRITING_TASKS",
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
