"""A run's weights: safetensors whose header names the config's digest and the step, checked when they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.commands import command as command_line
from interp.files import atomic_path
from interp.reading import BrokenFileError, RunError, read_header, read_tensors, reading
from interp.runs.origin import versions
from interp.runs.run_config import RunConfig

if TYPE_CHECKING:  # a run's files do not need torch
    import torch

STEPS = "steps"
_ROUNDED = ("bfloat16", "float16", "float64")  # what the header of a weights file may declare beside the model's own


def weights_header(file: Path) -> dict[str, str]:
    """The metadata in a safetensors file's header, after checking that the file is whole.

    Raises:
        RunError: missing, truncated, a pickle, or not safetensors.
    """
    try:
        return read_header(file)
    except FileNotFoundError:
        resume = command_line("train", "--resume", "--out", file.parent)
        raise RunError(f"{file} does not exist: the run has no trained weights yet; make them with: {resume}") from None
    except BrokenFileError as error:
        raise BrokenFileError(f"{error}; restore it or train again") from None


def save_weights(
    file: Path, model: torch.nn.Module, config: RunConfig, *, step: int, dtype: torch.dtype | None = None
) -> None:
    """Write a model's weights as safetensors, whole or not at all; the header carries digest, step and versions.

    dtype: what to round them to, and to say so in the header (default: as they are).
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    tensors = {name: (t.to(dtype) if t.is_floating_point() else t).contiguous() for name, t in tensors.items()}
    header = {"digest": config.digest, "step": str(step), "versions": json.dumps(versions())}
    if dtype is not None:
        header["dtype"] = str(dtype).removeprefix("torch.")
    with atomic_path(file) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_model(config: RunConfig, file: Path, *, vocab: tuple[str, ...]) -> Any:
    """Build the configured model and fill it from `file`. Raises RunError when they do not belong together."""
    header = weights_header(file)
    if header.get("digest") != config.digest:
        raise RunError(f"{file} belongs to config {header.get('digest')}, but config.json says {config.digest}")
    from interp.models import build_model

    model = build_model(config.model)
    tensors, _ = read_tensors(file, "pt")
    unsaid = "bfloat16" if file.parent.name == STEPS else None
    require_dtypes(file, tensors, model, declared=header.get("dtype", unsaid))
    with reading(file, "a file of weights that fits the configured model", RuntimeError):
        model.load_state_dict(tensors)
    model.vocab = vocab
    return model.eval()


def require_dtypes(
    file: Path, tensors: Mapping[str, torch.Tensor], model: torch.nn.Module, *, declared: str | None = None
) -> None:
    """Refuse weights of another kind than the model's: PyTorch would turn integers and complex numbers into floats.

    declared: to what the file says that its floating-point numbers were rounded (`save_weights`); checkpoints along a
    run, in `steps/`, are bfloat16, and those made before headers named a dtype do not say so.

    Raises:
        RunError: a tensor has neither the model's dtype nor the declared one.
    """
    for name, own in model.state_dict().items():
        found = tensors[name].dtype if name in tensors else own.dtype
        rounded = own.is_floating_point() and declared in _ROUNDED and str(found) == f"torch.{declared}"
        if found != own.dtype and not rounded:
            raise RunError(f"{file} holds {name} as {found}; the configured model has {own.dtype}")
