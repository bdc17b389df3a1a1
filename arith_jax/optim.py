"""Schedules by fraction of the budget, AdamW, and Muon chosen by parameter name."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax.contrib import MuonDimensionNumbers, scale_by_muon

# Matrices inside the layers; their leading axis is the layer (nn.scan).
MUON_NAMES = {
    "qkv_kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=3),
    "kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=2),
}
# Not decayed: norms, every bias, the scale of normalised queries.
UNDECAYED_NAMES = ("scale", "bias", "qk_scale")


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer and schedules; the knobs are described in `configs/base.py`."""

    optimizer: str
    learning_rate: float
    muon_learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    clip_norm: float
    warmup: float
    decay_start: float
    final_learning_rate: float
    ema_decay: float
    batch_size: int
    micro_batch_size: int
    ramp_until: float

    def __post_init__(self):
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(
                f"optim.optimizer={self.optimizer!r} is unknown; allowed: adamw, muon"
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
        if self.micro_batch_size < 1 or self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"optim.batch_size={self.batch_size} is not a multiple of "
                f"optim.micro_batch_size={self.micro_batch_size}; change one of them"
            )

    @property
    def accumulates(self) -> bool:
        """Whether one update takes more than one micro-batch, at the end at least."""
        return self.batch_size > self.micro_batch_size


def lr_multiplier(
    config: OptimConfig, fraction: Float[Array, ""] | float
) -> Float[Array, ""] | float:
    """Factor on both learning rates: warm-up from 0, constant, linear to the final.

    Args:
        config: `warmup`, `decay_start` as fractions of the budget.
        fraction: Part of the budget used up, 0 to 1; of a Python number the host
            works the factor out, without waiting for a device.

    Source:
        The original's "budget-constant": warm-up 0.1, decay from 0.9 to 0.
    """
    warm = fraction / max(config.warmup, 1e-9)
    left = (1 - fraction) / max(1 - config.decay_start, 1e-9)
    final = config.final_learning_rate
    falling = final + (1 - final) * left
    if isinstance(fraction, float):
        return min(max(min(warm, falling), 0.0), 1.0)
    return jnp.clip(jnp.minimum(warm, falling), 0.0, 1.0)


def micro_batches(
    config: OptimConfig, fraction: Float[Array, ""] | float
) -> Int[Array, ""]:
    """Micro-batches per update: a linear ramp from one to all at `ramp_until`.

    Source:
        The original's batch ramp: floor of the line, plus one, at most the batch size.
    """
    most = config.batch_size // config.micro_batch_size
    if config.ramp_until <= 0:
        return jnp.asarray(most, jnp.int32)
    reached = jnp.floor(most * fraction / config.ramp_until) + 1
    return jnp.minimum(reached, most).astype(jnp.int32)


def parameter_names(params: Any) -> Any:
    """The tree with every leaf replaced by its path, joined with slashes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join(entry.key for entry in path), params
    )


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to the parameter of this path."""
    return name.split("/")[-1] not in UNDECAYED_NAMES


def is_muon(name: str) -> bool:
    """Whether Muon updates the parameter of this path: the matrices of the layers."""
    parts = name.split("/")
    return parts[0] == "layers" and parts[-1] in MUON_NAMES and "fire" not in parts


def dimension_numbers(updates: Any) -> Any:
    """Which axes of each stacked kernel are rows and columns of a matrix."""
    return jax.tree.map(
        lambda name: MUON_NAMES[name.split("/")[-1]], parameter_names(updates)
    )


def scale_by_shape(updates: Any) -> Any:
    """Multiplies orthogonalised updates [..., in, out] by sqrt(max(1, out / in)).

    Source:
        Jordan et al. 2024; optax has the same inside `muon` but does not export it.
    """
    return jax.tree.map(
        lambda u: math.sqrt(max(1.0, u.shape[-1] / u.shape[1])) * u, updates
    )


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW, or Muon for matrices and AdamW for the rest.

    Rates are the peak rates: the train step multiplies the result by `lr_multiplier`,
    which knows the budget; weight decay is scaled with it, as in PyTorch.

    Source:
        AdamW as in the original (decay on all but norms and biases). Muon: Jordan et
        al. 2024 through optax.contrib, Nesterov 0.95, 5 Newton-Schulz steps.
    """

    def decayed(updates: Any) -> Any:
        return jax.tree.map(is_decayed, parameter_names(updates))

    adamw = optax.adamw(
        config.learning_rate,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decayed,
    )
    if config.optimizer == "muon":
        muon = optax.chain(
            scale_by_muon(weight_dimension_numbers=dimension_numbers),
            optax.stateless(lambda updates, _: scale_by_shape(updates)),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(config.muon_learning_rate),
        )

        def labels(params: Any) -> Any:
            return jax.tree.map(
                lambda name: "muon" if is_muon(name) else "adamw",
                parameter_names(params),
            )

        rule = optax.partition({"muon": muon, "adamw": adamw}, labels)
    else:
        rule = adamw
    clip = config.clip_norm if config.clip_norm > 0 else math.inf
    return optax.chain(optax.clip_by_global_norm(clip), rule)


def ema_update(
    config: OptimConfig, ema: Any, params: Any, updates: Int[Array, ""]
) -> Any:
    """Exponential moving average of the weights.

    The decay grows with the number of updates, (1 + u) / (10 + u) at most, so that the
    average does not remember the initial weights in short runs.
    """
    decay = jnp.minimum(config.ema_decay, (1.0 + updates) / (10.0 + updates))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, params)
