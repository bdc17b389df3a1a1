"""Matrices of the model: how they begin, products with one, rows of one.

Imports `model_config`.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from arith_jax.model_config import ModelConfig


def deepnorm_gain(config: ModelConfig) -> float:
    """Initial gain of values, projections and MLPs: (8 N)^(-1/4), N layers in depth.

    Source:
        Wang et al. 2022 (DeepNorm) for decoders; the original's `deepnorm-straight`.
    """
    return (8 * config.layers * config.recurrences) ** -0.25


def xavier(gain: float) -> nn.initializers.Initializer:
    """Normal with std gain * sqrt(2 / (fan_in + fan_out))."""
    return nn.initializers.variance_scaling(gain**2, "fan_avg", "normal")


def matrix_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Initialiser of every matrix but queries and keys."""
    if config.init == "deepnorm":
        return xavier(deepnorm_gain(config))
    return nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def qkv_init(config: ModelConfig) -> nn.initializers.Initializer:
    """Initialiser of the [d, 3, f] kernel of queries, keys and values.

    Source:
        The original scales the last third of the ROWS of its fused matrix by the value
        gain. Where rows are grouped by head (its `self-attention`, used by FIRE and
        RoPE) that hits all of the last heads and not the values:
        `qkv_gain_quirk` does the same.
    """
    value_gain = deepnorm_gain(config) if config.init == "deepnorm" else 1.0

    def init(key: PRNGKeyArray, shape: tuple[int, ...], dtype: Any = jnp.float32):
        # d -> f are square here, so xavier and fan-in scaling agree at gain 1.
        rows = jnp.arange(3 * shape[2]).reshape(3, shape[2])
        if config.qkv_gain_quirk:
            part, column = jnp.divmod(rows, shape[2])
            head, place = jnp.divmod(column, config.head_width)
            rows = (3 * head + part) * config.head_width + place
        gains = jnp.where(rows < 2 * shape[2], 1.0, value_gain).astype(dtype)[None]
        return jax.random.normal(key, shape, dtype) * gains * shape[0] ** -0.5

    return init


class Linear(nn.Module):
    """A matrix, no bias, float32 parameters, computed in the dtype of its input."""

    features: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "*dims d"]) -> Float[Array, "*dims f"]:
        """The product with the matrix."""
        shape = (x.shape[-1], self.features)
        return x @ self.param("kernel", self.kernel_init, shape).astype(x.dtype)


class Embed(nn.Module):
    """A table of vectors, one for each id; float32.

    On a GPU the gradient is a product with one-hot ids: a scatter would add to the
    same few rows one after the other, each time in another order.
    """

    config: ModelConfig
    num: int

    @nn.compact
    def __call__(self, ids: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """The vectors; NaN for an id past the table."""
        width = self.config.width
        initial = nn.initializers.normal(width**-0.5)
        table = self.param("embedding", initial, (self.num, width))
        if jax.default_backend() != "gpu":
            return jnp.take(table, ids, axis=0)
        exact = self.config.dtype == "float32"
        return rows_of(jax.lax.Precision.HIGHEST if exact else None, table, ids)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def rows_of(
    precision: jax.lax.Precision | None,
    table: Float[Array, "n d"],
    ids: Int[Array, "b t"],
) -> Float[Array, "b t d"]:
    """Rows of a table; `precision` is that of the gradient's product."""
    del precision
    return jnp.take(table, ids, axis=0)


def rows_forward(precision: Any, table: Array, ids: Array) -> tuple[Array, Any]:
    """The rows, and what the backward pass needs."""
    return rows_of(precision, table, ids), (ids, table.shape[0])


def rows_backward(precision: Any, kept: Any, d_rows: Array) -> tuple[Array, None]:
    """Gradient of `rows_of` to the table."""
    ids, num = kept
    one_hot = jax.nn.one_hot(ids, num, dtype=d_rows.dtype)
    return jnp.einsum("btn,btd->nd", one_hot, d_rows, precision=precision), None


rows_of.defvjp(rows_forward, rows_backward)
