"""Where a training runs: one device, or several processes that `torchrun` started, through accelerate.

Every process draws the whole batch (the machine is quick) and learns from its own rows; gradients are summed, so that
the run is that of one process with the same batch, but for the order of floating-point sums.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor, nn

from interp.tasks import Batch


def is_main_process() -> bool:
    """Whether this process is the one that shows and writes; known before a training begins."""
    return int(os.environ.get("RANK", "0")) == 0


class Devices:
    """The processes of a training, of which this is one.

    Args:
        batch_size: records of a step, over all processes.

    Raises:
        ValueError: they cannot be shared equally.
    """

    def __init__(self, batch_size: int):
        self.accelerator = Accelerator(cpu=not torch.cuda.is_available())
        self.rank, self.n = self.accelerator.process_index, self.accelerator.num_processes
        if batch_size % self.n:
            raise ValueError(f"training batch_size must be a multiple of the {self.n} processes, got {batch_size}")
        self.rows = slice(self.rank * batch_size // self.n, (self.rank + 1) * batch_size // self.n)

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def main(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.accelerator.is_main_process

    def wrapped(self, model: nn.Module, *, compiled: bool) -> Any:
        """The model to call in training; gradients are averaged over processes. Analyse the model itself."""
        wrapped = self.accelerator.prepare_model(model)
        return torch.compile(wrapped) if compiled else wrapped

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch, its tensors on the process's device."""
        rows = batch.examples if self.n == 1 else batch.examples[self.rows]
        tokens, targets, mask = (
            each[self.rows].to(self.device) for each in (batch.tokens, batch.targets, batch.loss_mask)
        )
        return Batch(tokens, targets, mask, rows)

    def on_cpu(self, model: Any) -> Any:
        """The model as a function from tokens to logits on the CPU, whatever its own device."""
        if self.device.type == "cpu":
            return model
        return lambda tokens: model(tokens.to(self.device)).cpu()

    def total(self, value: Tensor) -> float:
        """The sum of a number over the processes."""
        return float(self.accelerator.reduce(value.detach(), reduction="sum"))  # type: ignore[arg-type]

    def gathered(self, values: Tensor) -> NDArray[Any]:
        """The values of all processes, [batch], in the order of the batch's rows."""
        return np.asarray(self.accelerator.gather(values).cpu())  # type: ignore[union-attr]

    def of_main(self, value: Any) -> Any:
        """What the main process has, on every process."""
        return broadcast_object_list([value])[0] if self.n > 1 else value

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()
