"""A small machine, random models on it, and a model that is understood by hand: it copies its input."""

from typing import Any

import pytest
import torch

from cython_vm import MachineSpec
from interp.models import HookedModel, TransformerConfig, build_model
from interp.tasks import TASKS, Task

torch.set_num_threads(1)

SPEC = MachineSpec(n_instructions=5, n_cells=4, n_input=2, n_output=2, bits=2)


@pytest.fixture(scope="session", params=["step_inplace", "step"])
def task(request) -> Task:
    return TASKS[request.param](SPEC)


@pytest.fixture(scope="session")
def inplace() -> Task:
    return TASKS["step_inplace"](SPEC)


def random_model(task: Any, *, seed: int = 0, n_layers: int = 2, n_heads: int = 2, d_model: int = 16) -> HookedModel:
    """Initial weights, made large enough that every part matters."""
    config = TransformerConfig(
        d_vocab=task.spec.d_vocab,
        n_ctx=task.n_ctx,
        n_layers=n_layers,
        n_heads=n_heads,
        d_model=d_model,
        qk_norm=True,
        attention_dir=task.attention_dir,
        positional_embedding_type="block",
        position_roles=task.position_roles,
        position_indices=task.position_indices,
        init_range=0.5,
        seed=seed,
    )
    return build_model(config).eval()


@pytest.fixture(scope="session")
def model(task) -> HookedModel:
    return random_model(task)


@pytest.fixture(scope="session")
def copier(inplace) -> HookedModel:
    """Predicts S_{t+1} = S_t: tokens are one-hot directions and nothing is added. Right exactly on frozen steps."""
    size = inplace.spec.d_vocab
    config = TransformerConfig(
        d_vocab=size,
        n_ctx=inplace.n_ctx,
        n_layers=2,
        n_heads=1,
        d_model=size,
        normalization_type=None,
        attention_dir="bidirectional",
        positional_embedding_type="none",
        use_bias=False,
    )
    copier = build_model(config).eval()
    with torch.no_grad():
        for name, parameter in copier.named_parameters():
            parameter.copy_(torch.eye(size)) if name in ("embed.W_E", "unembed.weight") else parameter.zero_()
    return copier
