"""Schedules by fraction of the budget, AdamW, and Muon chosen by parameter name."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from optax.contrib import MuonDimensionNumbers, muon

from arith_jax.config.training import OptimConfig

# Matrices inside the layers; their leading axis is the layer (nn.scan).
MUON_NAMES = {
    "qkv_kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=3),
    "kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=2),
}
# Not decayed: norms, every bias, the scale of normalised queries.
UNDECAYED_NAMES = ("scale", "bias", "qk_scale")
# The original counts the budget used up in this many parts.
BUDGET_PARTS = 12_000_000


class Schedule(NamedTuple):
    """What the schedules say at one step; made on the host.

    Attributes:
        multiplier: Factor on the learning rates.
        num_micro_batches: Micro-batches of an update that begins here; None: one.
    """

    multiplier: Float[Any, ""] | float
    num_micro_batches: Any


def lr_multiplier(config: OptimConfig, fraction: float) -> float:
    """Factor on both learning rates: warm-up from 0, constant, linear to the final.

    Args:
        config: `warmup`, `decay_start` as fractions of the budget.
        fraction: Part of the budget used up, 0 to 1.

    Source:
        The original's "budget-constant": warm-up 0.1, decay from 0.9 to 0.
    """
    warm = fraction / max(config.warmup, 1e-9)
    left = (1 - fraction) / max(1 - config.decay_start, 1e-9)
    falling = config.final_learning_rate + (1 - config.final_learning_rate) * left
    return min(max(min(warm, falling), 0.0), 1.0)


def num_micro_batches(config: OptimConfig, fraction: float) -> int:
    """Micro-batches per update: a linear ramp from one to all at `ramp_until`.

    Source:
        The original's batch ramp, boundaries included: its line is computed from whole
        parts of the budget, floored, plus one, at most the batch size.
    """
    if config.ramp_until <= 0:
        return config.max_micro_batches
    parts = int(BUDGET_PARTS * fraction)
    # In this order, which rounds some multiples of a micro-batch down.
    slope = config.batch_size / (BUDGET_PARTS * config.ramp_until)
    reached = math.floor(parts * slope / config.micro_batch_size) + 1
    return min(reached, config.max_micro_batches)


def schedule(config: OptimConfig, fraction: float) -> Schedule:
    """Both schedules at a fraction of the budget."""
    return Schedule(
        lr_multiplier(config, fraction),
        num_micro_batches(config, fraction),
    )


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


def muon_dimensions(params: Any) -> Any:
    """Which axes of each stacked matrix are its rows and columns."""
    return jax.tree.map(
        lambda name: MUON_NAMES[name.split("/")[-1]], parameter_names(params)
    )


def optimizer_labels(params: Any) -> Any:
    """The optimizer of each parameter: muon or adamw."""
    return jax.tree.map(
        lambda name: "muon" if is_muon(name) else "adamw", parameter_names(params)
    )


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay applies to."""
    return jax.tree.map(is_decayed, parameter_names(params))


def make_optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW, or Muon for matrices and AdamW for the rest.

    Rates are the peak rates: the train step multiplies the result by `lr_multiplier`,
    which knows the budget; weight decay is scaled with it, as in PyTorch.

    Source:
        AdamW as in the original (decay on all but norms and biases). Muon: Jordan et
        al. 2024 through optax.contrib, Nesterov 0.95, 5 Newton-Schulz steps.
    """
    rule = optax.adamw(
        config.learning_rate,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    if config.optimizer == "muon":
        matrices = muon(
            config.muon_learning_rate,
            weight_decay=config.weight_decay,
            muon_weight_dimension_numbers=muon_dimensions,
        )
        rule = optax.partition({"muon": matrices, "adamw": rule}, optimizer_labels)
    clip = config.clip_norm if config.clip_norm > 0 else math.inf
    return optax.chain(optax.clip_by_global_norm(clip), rule)


def ema_update(
    config: OptimConfig, ema: Any, params: Any, num_updates: Int[Array, ""]
) -> Any:
    """Exponential moving average of the weights.

    The decay grows with the number of updates, (1 + u) / (10 + u) at most, so that the
    average does not remember the initial weights in short runs.
    """
    decay = jnp.minimum(config.ema_decay, (1.0 + num_updates) / (10.0 + num_updates))
    return optax.incremental_update(params, ema, 1 - decay)
