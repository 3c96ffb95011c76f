"""What a slot machine made of tensors is: its memory, its controller, how hard it is, and what it learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from interp.configuration import later
from interp.models.config import TransformerConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotMachineConfig(TransformerConfig):
    """A memory of distributions at the end of the sequence, and the transformer that writes it: the controller.

    Raises:
        ValueError: as TransformerConfig; or a value is out of range; the message names the field.
    """

    architecture: str = "slot_machine"  # key in MODELS
    attention_dir: Literal["causal", "bidirectional"] = "bidirectional"
    n_slots: int  # of memory; they are the last so many positions
    base: int = 10  # of the arithmetic
    n_values: int = 20  # that a content can have; they are the first so many tokens
    max_steps: int = 64  # executed at most; the steps of the machine's hooks
    execution: Literal["hard", "soft"] = "hard"  # hard: every choice is the likeliest, gradients go straight through
    temperature: float = 1.0  # of the plan's distributions, and what counter, addresses and results are sharpened by
    alu: Literal["table", "learned"] = "table"  # what computes the operators on contents
    d_alu: int = 128  # of the learned one: its hidden units
    plan_weight: float = 1.0  # of the loss of the plan: every field of every slot
    trace_weight: float = 0.0  # of the loss of the executed trace: contents and counter after every step
    answer_weight: float = 0.0  # of the loss of what the answer's slots hold in the end
    plan_given: bool = False  # the true plan is executed, not the controller's, in training and in `answer`
    backprop_steps: int = 0  # gradients flow through the last so many steps; 0: all
    pointer_reach: int = later(0)  # addresses so near to the slot are told apart by how far off they are; 0: none

    has_slots: ClassVar[bool] = True  # a memory of slots, which its hooks show step by step

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attention_dir != "bidirectional":
            raise ValueError(f"the controller needs attention_dir='bidirectional'; got {self.attention_dir!r}")
        for name, low, high in (
            ("n_slots", 2, self.n_ctx - 1), ("n_values", 8, self.d_vocab), ("base", 2, self.n_values),
            ("max_steps", 1, 100_000), ("d_alu", 1, 100_000), ("backprop_steps", 0, self.max_steps),
            ("pointer_reach", 0, 1000),
        ):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}; got {value!r}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0; got {self.temperature!r}")
        for name, allowed in (("execution", ("hard", "soft")), ("alu", ("table", "learned"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}; got {getattr(self, name)!r}")
        for name in ("plan_weight", "trace_weight", "answer_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0; got {getattr(self, name)!r}")

    @property
    def has_graph(self) -> bool:
        """False: between the controller and the answer lies the execution."""
        return False
