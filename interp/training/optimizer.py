"""Muon for hidden matrices with AdamW for the rest, or AdamW alone, behind one interface whose state is tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interp.runs.training_config import TrainingConfig
from interp.training.schedule import rate_at


class _Float32Orthogonalization(TorchFunctionMode):
    """Muon casts to bfloat16 before its Newton-Schulz iteration; inside this mode the cast keeps float32.

    On processors without bfloat16 arithmetic the cast makes the optimizer cost more than the model (measured: 120 ms
    against 9 ms a step for 200,000 parameters), and the same run on two kinds of processor would differ.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.bfloat16:
            return args[0].clone()
        return func(*args, **(kwargs or {}))


class Optimizers:
    """The optimizers of a model, stepped and saved together.

    Muon (Jordan et al. 2024) takes what the model names as its `hidden_matrices`; AdamW takes embeddings, unembedding,
    norms and biases, or everything with `optimizer="adamw"`. Their state is read and written as named tensors, so that
    checkpoints need no pickle.
    """

    prefixes = ("muon/", "adamw/")

    def __init__(self, model: nn.Module, config: TrainingConfig):
        named = dict(model.named_parameters())
        declared = getattr(model, "hidden_matrices", None)  # a plain module's are its 2-D weights inside the blocks
        found = declared() if declared else [p for n, p in named.items() if n.startswith("blocks.") and p.ndim == 2]
        matrices = {id(p) for p in found} if config.optimizer == "muon" else set()
        hidden = {name: p for name, p in named.items() if id(p) in matrices}
        rest = {name: p for name, p in named.items() if name not in hidden}
        self._config = config
        self._names = {id(p): name for name, p in named.items()}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        if hidden:
            self._optimizers["muon"] = torch.optim.Muon(
                list(hidden.values()), lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="original"
            )
        self._optimizers["adamw"] = torch.optim.AdamW(
            list(rest.values()), lr=config.adamw_lr, weight_decay=config.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self._peak = {"muon": config.muon_lr, "adamw": config.adamw_lr}

    def step(self, step: int) -> None:
        """Apply the gradients with the rates of 0-based `step`, then clear them."""
        rate = rate_at(self._config, step)
        for key, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._peak[key] * rate
            with _Float32Orthogonalization():
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _slots(self) -> Iterator[tuple[str, str, torch.optim.Optimizer, nn.Parameter]]:
        for key, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield key, self._names[id(parameter)], optimizer, parameter

    def state_tensors(self) -> dict[str, Tensor]:
        """Every state tensor under `optimizer/parameter/slot`."""
        tensors = {}
        for key, name, optimizer, parameter in self._slots():
            for slot, value in optimizer.state[parameter].items():
                tensors[f"{key}/{name}/{slot}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave. Raises ValueError naming a tensor that fits no parameter."""
        slots = {f"{key}/{name}": (optimizer, parameter) for key, name, optimizer, parameter in self._slots()}
        for name, value in tensors.items():
            owner, _, slot = name.rpartition("/")
            if owner not in slots:
                raise ValueError(f"optimizer state {json.dumps(name)} belongs to no parameter of this model")
            optimizer, parameter = slots[owner]
            optimizer.state[parameter][slot] = value.to(parameter.device, copy=True)
