"""Initial values of matrices."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from arith_jax.config.model import ModelConfig

Initializer = nn.initializers.Initializer
lecun_normal = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def deepnorm_gain(depth: int) -> float:
    """Initial gain of values, projections and MLPs: (8 N)^(-1/4), N layers in depth.

    Source:
        Wang et al. 2022 (DeepNorm) for decoders; the original's `deepnorm-straight`.
    """
    return (8 * depth) ** -0.25


def xavier(gain: float) -> Initializer:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out))."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "normal")


def matrix_init(config: ModelConfig) -> Initializer:
    """Initializer of every matrix but queries and keys."""
    if config.mcleish.deepnorm:
        return xavier(deepnorm_gain(config.depth))
    return lecun_normal


def qkv_init(
    value_gain: float = 1.0, num_heads: int = 1, *, by_head: bool = False
) -> Initializer:
    """Initializer of the [d, 3, f] kernel of queries, keys and values.

    Args:
        value_gain: Of the values; 1 for queries and keys.
        num_heads: Heads that share the columns.
        by_head: Puts the gain where the original's `self-attention`, used by FIRE and
            RoPE, puts it: it scales the last third of the rows of its fused matrix,
            which are grouped by head there, so that the last heads are hit as a whole
            instead of all values.
    """

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32):
        # d -> f are square here, so Xavier and fan-in scaling agree at gain 1.
        width = shape[2]
        rows = jnp.arange(3 * width).reshape(3, width)
        if by_head:
            head_width = width // num_heads
            part, column = jnp.divmod(rows, width)
            head, place = jnp.divmod(column, head_width)
            rows = (3 * head + part) * head_width + place
        gains = jnp.where(rows < 2 * width, 1.0, value_gain).astype(dtype)[None]
        return jax.random.normal(key, shape, dtype) * gains * shape[0] ** -0.5

    return init


def qkv_init_of(config: ModelConfig) -> Initializer:
    """The `qkv_init` of a model."""
    gain = deepnorm_gain(config.depth) if config.mcleish.deepnorm else 1.0
    by_head = config.mcleish.qkv_gain_quirk
    return qkv_init(gain, config.num_heads, by_head=by_head)
