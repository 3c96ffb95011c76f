"""Everything that decides a training run, besides the task and the model."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from interp.configuration import later
from interp.ranges import require_fields


@dataclass(frozen=True)
class DataSource:
    """Records on the disk that a run is trained on, instead of fresh ones from the machine."""

    path: str
    """A folder of shards, or NAME.npy of the original project; it may move, the digest says what is meant."""
    digest: str
    """16 hex digits that identify the contents."""


@dataclass(frozen=True)
class StartingPoint:
    """A run whose weights a training begins with, instead of random ones."""

    path: str
    """Its folder; it may move, the digest says what is meant."""
    digest: str
    """Of its config: 16 hex digits."""
    step: int
    """Its optimizer step."""


@dataclass(frozen=True)
class TrainingConfig:
    """Training settings. A run is a function of these, the task and the model: the same config, the same weights."""

    steps: int = 8000
    """Optimizer steps in all; the learning-rate schedule is laid over them."""
    batch_size: int = 32
    """Records a step, drawn fresh from the machine; small batches learn more per record."""
    seed: int = 0
    """Seeds the weights and the stream of records."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon, for the hidden matrices."""
    adamw_lr: float = 3e-3
    """Peak learning rate of AdamW, for embeddings, unembedding, norms and biases."""
    weight_decay: float = 0.01
    """Decoupled weight decay of both optimizers."""
    warmup_steps: int = 100
    """Steps of linear warm-up from zero."""
    decay_fraction: float = 0.5
    """Share of the steps, at the end, over which the rates fall linearly to zero."""
    gradient_clip: float = 1.0
    """Largest global gradient norm."""
    balance: Literal["natural", "op_outcome", "branches"] = "branches"
    """Which strata are drawn equally often: none, op x outcome, or these with loops split by whether they jump."""
    loop_weight: float = 3.0
    """How much more often WHILE and ENDW are drawn than other opcodes; loops are learned last."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Autocast precision of the forward pass; weights and optimizer stay float32."""
    threads: int = 2
    """PyTorch threads, at most: the better of one and this many is found as the training goes. With 1 the weights are a
    function of the config to the last bit; with more, up to the order of floating-point sums."""
    eval_every: int = 500
    """Steps between evaluations on held-out programs."""
    eval_states: int = 1500
    """States of each evaluation, spread evenly over op x outcome."""
    checkpoint_every: int = 500
    """Steps between resumable checkpoints: what a kill loses at most."""
    optimizer: Literal["muon", "adamw"] = later("muon")
    """muon: Muon for the hidden matrices and AdamW for the rest. adamw: AdamW for everything, at adamw_lr."""
    schedule: Literal["linear", "cosine", "wsd"] = later("linear")
    """How the rate falls; see `interp.training.schedule`."""
    ema_decay: float = later(0.0)
    """Above 0: average the weights over about 1 / (1 - ema_decay) steps; the average is evaluated and saved."""
    steps_along: int = later(0)
    """How many checkpoints to keep along the run, log-spaced, in steps/."""
    adaptive: float = later(0.0)
    """Share of the records that is drawn where the model still errs, by op x outcome x branch and jump distance."""
    curriculum: Literal["none", "language", "sizes"] = later("none")
    """Stages before the whole: a growing language, or a padded machine's growing sizes; see `training.curriculum`."""
    stage_threshold: float = later(0.95)
    """Macro exact match on a stage's held-out programs at which the next stage begins."""
    stage_share: float = later(0.15)
    """Share of the steps after which the next stage begins in any case."""
    validation: bool = later(False)
    """Leave the validation units (hash % 20 == 1) out of training, and follow it on them; what is chosen is chosen
    there, so that evaluation is read once. Runs made before had no such split."""
    objective: Literal["likelihood", "reward", "rejection"] = later("likelihood")
    """likelihood: of the world's answers. reward: policy gradient on sampled answers that the world judges. rejection:
    likelihood of the sampled answers that are right. The last two begin with the weights of --start."""
    group: int = later(8)
    """Of reward and rejection: answers that are sampled to each prompt."""
    judged: Literal["outcome", "process"] = later("outcome")
    """Of reward: the final answer alone is judged, or each written step."""
    kl: float = later(0.02)
    """Of reward: weight of the divergence from the weights of --start."""
    compile: bool = later(False)
    """Train through torch.compile; the model that is saved and analysed is the same."""

    def __post_init__(self) -> None:
        at_least_one = ("steps", "batch_size", "threads", "eval_every", "eval_states", "checkpoint_every", "group")
        least = {"seed": 0, "warmup_steps": 0, "steps_along": 0} | dict.fromkeys(at_least_one, 1)
        require_fields(self, of="training ", **least)
        for name in ("muon_lr", "adamw_lr", "gradient_clip", "loop_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"training {name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.decay_fraction <= 1:
            raise ValueError(f"training decay_fraction must lie in [0, 1], got {self.decay_fraction}")
        for name in ("weight_decay", "kl"):
            if getattr(self, name) < 0:
                raise ValueError(f"training {name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"training ema_decay must lie in [0, 1), got {self.ema_decay}")
        if not 0 <= self.adaptive <= 1:
            raise ValueError(f"training adaptive must lie in [0, 1], got {self.adaptive}")
        for name in ("stage_threshold", "stage_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"training {name} must lie in (0, 1], got {getattr(self, name)}")
        if self.adaptive and self.balance != "branches":
            raise ValueError(f"training adaptive needs balance 'branches', got {self.balance!r}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"training {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    @property
    def training_split(self) -> Literal["train", "fit"]:
        """What batches are drawn from: all but evaluation, or all but evaluation and validation."""
        return "fit" if self.validation else "train"

    @property
    def choosing_split(self) -> Literal["evaluation", "validation"]:
        """What the curve along training and a curriculum's gate are measured on."""
        return "validation" if self.validation else "evaluation"

    @classmethod
    def from_dict(cls, values: dict) -> TrainingConfig:
        """Rebuild from JSON. Raises ValueError on a field that this version does not know."""
        known = {field.name for field in fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown training settings {sorted(unknown)}")
        return cls(**values)


_CHOICES: dict[str, tuple[str, ...]] = {
    "balance": ("natural", "op_outcome", "branches"),
    "precision": ("float32", "bfloat16"),
    "optimizer": ("muon", "adamw"),
    "curriculum": ("none", "language", "sizes"),
    "schedule": ("linear", "cosine", "wsd"),
    "objective": ("likelihood", "reward", "rejection"),
    "judged": ("outcome", "process"),
}
