"""Tables of vectors for tokens and positions."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from arith_jax.config.model import Execution


class Embed(nn.Module):
    """A table of vectors, one for each id; float32.

    Attributes:
        num_embeddings: Rows of the table.
        features: Numbers of a vector.
        execution: With kernels the gradient is a product with one-hot ids: on a GPU a
            scatter would add to the same few rows one after the other, each time in
            another order.
    """

    num_embeddings: int
    features: int
    execution: Execution = Execution()

    @nn.compact
    def __call__(self, ids: Integer[Array, "*b t"]) -> Float[Array, "*b t d"]:
        """The vectors; NaN for an id that the table does not have."""
        initial = nn.initializers.normal(self.features**-0.5)
        shape = (self.num_embeddings, self.features)
        table = self.param("embedding", initial, shape, jnp.float32)
        ids = ids.astype(jnp.int32)
        # A negative id would count from the end of the table.
        ids = jnp.where(ids < 0, self.num_embeddings, ids)
        if not self.execution.kernels:
            return jnp.take(table, ids, axis=0)
        is_exact = self.execution.dtype == "float32"
        precision = jax.lax.Precision.HIGHEST if is_exact else None
        return table_rows(precision, table, ids)


class AbacusEmbedding(Embed):
    """A learned vector for each Abacus id; row 0 is for tokens that are not digits.

        >>> is_digit = jnp.array([[True, True, False, True]])
        >>> table = AbacusEmbedding(num_embeddings=128, features=16)
        >>> positions = abacus_positions(is_digit)
        >>> variables = table.init(jax.random.key(0), positions)
        >>> table.apply(variables, positions).shape
        (1, 4, 16)

    Add the result to the embeddings of the tokens. The table needs a row for every
    position: the largest offset of training plus the longest number, plus one. A
    position past it is NaN, so that it cannot go unnoticed.

    Attributes:
        num_embeddings: Rows of the table.
        features: Numbers of a vector.
        execution: How the device computes it.

    Source:
        McLeish et al. 2024, section 3; mcleish7/arithmetic `abacus.py` @ 86022a5,
        which also adds row 0 to everything that is not a digit.
    """


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def table_rows(
    precision: jax.lax.Precision | None,
    table: Float[Array, "n d"],
    ids: Int[Array, "*b t"],
) -> Float[Array, "*b t d"]:
    """Rows of a table; `precision` is that of the gradient's product."""
    del precision
    return jnp.take(table, ids, axis=0)


def table_rows_forward(
    precision: Any, table: Array, ids: Array
) -> tuple[Array, tuple[Array, int]]:
    """The rows, and what the backward pass needs."""
    return table_rows(precision, table, ids), (ids, table.shape[0])


def table_rows_backward(
    precision: Any, residuals: tuple[Array, int], d_rows: Array
) -> tuple[Array, None]:
    """Gradient of `table_rows` to the table."""
    ids, num_rows = residuals
    one_hot = jax.nn.one_hot(ids, num_rows, dtype=d_rows.dtype)
    return jnp.einsum("...tn,...td->nd", one_hot, d_rows, precision=precision), None


table_rows.defvjp(table_rows_forward, table_rows_backward)
