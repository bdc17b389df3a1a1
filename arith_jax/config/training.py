"""How a model is trained: loss, optimizer, budget."""

import dataclasses
import math
from typing import NamedTuple

from arith_jax.checks import MAX_INT, check_choice, check_range, check_types


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The progressive loss; `configs/base.py` describes the keys.

    Attributes:
        alpha: Weight of the pass of random depth; the rest is a pass of full depth.
        max_backprop: Largest number of recurrences with gradient.
        reduction: mean over the counted tokens; none: over all positions.
        throttle: The original's constant factor for looped models.
    """

    alpha: float = 1.0
    max_backprop: int = 1
    reduction: str = "mean"
    throttle: bool = False

    def __post_init__(self):
        check_types("loss", type(self), vars(self))
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"loss.alpha={self.alpha}: must be between 0 and 1")
        check_range("loss", self, 1, MAX_INT, "max_backprop")
        check_choice("loss", self, reduction=("mean", "none"))


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer and schedules; `configs/base.py` describes the keys."""

    optimizer: str = "muon"
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 0.5
    warmup: float = 0.05
    decay_start: float = 0.5
    final_learning_rate: float = 0.03
    ema_decay: float = 0.99
    batch_size: int = 512
    micro_batch_size: int = 512
    ramp_until: float = 0.0

    def __post_init__(self):
        check_types("optim", type(self), vars(self))
        check_choice("optim", self, optimizer=("adamw", "muon"))
        rates = ("learning_rate", "muon_learning_rate", "final_learning_rate")
        others = ("eps", "weight_decay", "clip_norm", "ramp_until")
        check_range("optim", self, 0.0, math.inf, *rates, *others)
        check_range("optim", self, 1, MAX_INT, "batch_size", "micro_batch_size")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"optim.{name}={getattr(self, name)}: must be at least 0 and "
                    "below 1"
                )
        if not 0 <= self.warmup <= self.decay_start <= 1:
            raise ValueError(
                f"optim.warmup={self.warmup} and optim.decay_start="
                f"{self.decay_start}: must be 0 <= warmup <= decay_start <= 1"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"optim.ema_decay={self.ema_decay}: must be 0 (off) or below 1"
            )
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"optim.batch_size={self.batch_size} is not a multiple of "
                f"optim.micro_batch_size={self.micro_batch_size}; change one of them"
            )

    @property
    def max_micro_batches(self) -> int:
        """Micro-batches of an update once the batch has its full size."""
        return self.batch_size // self.micro_batch_size


class Noise(NamedTuple):
    """What disturbs attention in training: see `model.noise`.

    Attributes:
        key_noise: Logits of each key get U(0, this).
        max_far_copies: Each digit beyond the window counts as many times as a number
            from 1 to this says, log-uniform, one for a row: as if there were more.
        far_problems: Whether digits of the other problems in a row are seen where they
            are beyond the window, as those of a longer problem would be.
    """

    key_noise: float = 0.0
    max_far_copies: float = 1.0
    far_problems: bool = False

    @property
    def is_on(self) -> bool:
        """Whether anything is disturbed."""
        return self != NO_NOISE


NO_NOISE = Noise()


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Budget and rhythm; `configs/base.py` describes the keys."""

    steps: int = 0
    minutes: float = 0.0
    key_noise: float = 0.0
    max_far_copies: float = 1.0
    far_problems: bool = False
    log_every: int = 10
    checkpoint_minutes: float = 5.0
    keep_checkpoints: int = 2
    tensorboard: bool = False
    wandb: str = ""
    skip_nonfinite: bool = False
    init_from: str = ""

    def __post_init__(self):
        check_types("train", type(self), vars(self))
        check_range("train", self, 0, MAX_INT, "steps")
        numbers = ("minutes", "key_noise", "checkpoint_minutes")
        check_range("train", self, 0.0, math.inf, *numbers)
        check_range("train", self, 1.0, math.inf, "max_far_copies")
        check_range("train", self, 1, MAX_INT, "log_every")
        check_range("train", self, 0, MAX_INT, "keep_checkpoints")
        if (self.steps > 0) == (self.minutes > 0):
            raise ValueError(
                f"train.steps={self.steps} and train.minutes={self.minutes}: "
                "exactly one must be above 0; set the other to 0"
            )

    @property
    def noise(self) -> Noise:
        """What disturbs attention."""
        return Noise(self.key_noise, self.max_far_copies, self.far_problems)
