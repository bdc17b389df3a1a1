"""Only the tokens that are predicted: the others need no end of the last layer.

What follows the last layer's attention is computed for the targets alone. The ways from
all tokens to the targets and back are gathers, and so are their gradients: a scatter
would write one row after the other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class TargetIndex(NamedTuple):
    """The targets of every row.

    Attributes:
        places: Where in the row each target is; any place where a row has fewer.
        rank: Number of each token among the targets; -1: it is none.
    """

    places: Int[Array, "b a"]
    rank: Int[Array, "b t"]


def index_targets(mask: Bool[Array, "b t"], max_targets: int) -> TargetIndex:
    """The tokens where the mask is True, at most `max_targets` in a row."""
    count = jnp.cumsum(mask, axis=1)
    number = jnp.arange(max_targets)[None, :, None]
    places = jnp.sum(count[:, None, :] <= number, axis=-1)
    rank = jnp.where(mask, count - 1, -1)
    return TargetIndex(jnp.minimum(places, mask.shape[1] - 1), rank)


def take_rows(
    x: Float[Array, "b n d"], index: Int[Array, "b m"]
) -> Float[Array, "b m d"]:
    """Rows of every example's matrix."""
    return jnp.take_along_axis(x, index[..., None], axis=1, mode="clip")


def rows_or_zeros(
    x: Float[Array, "b a d"], targets: TargetIndex
) -> Float[Array, "b t d"]:
    """Rows of the targets at their places; zeros for other tokens."""
    rows = take_rows(x, jnp.maximum(targets.rank, 0))
    return jnp.where(targets.rank[..., None] >= 0, rows, 0)


def target_rows_or_zeros(
    x: Float[Array, "b t d"], targets: TargetIndex
) -> Float[Array, "b a d"]:
    """Rows of the targets; zeros where a row has fewer."""
    rank = jnp.take_along_axis(targets.rank, targets.places, axis=1, mode="clip")
    is_target = rank == jnp.arange(rank.shape[1])[None]
    return jnp.where(is_target[..., None], take_rows(x, targets.places), 0)


@jax.custom_vjp
def gather_targets(
    x: Float[Array, "b t d"], targets: TargetIndex
) -> Float[Array, "b a d"]:
    """The rows of the targets; any rows where there are fewer."""
    return take_rows(x, targets.places)


@jax.custom_vjp
def scatter_targets(
    x: Float[Array, "b a d"], targets: TargetIndex
) -> Float[Array, "b t d"]:
    """Rows of all tokens from those of the targets; zeros for the others."""
    return rows_or_zeros(x, targets)


gather_targets.defvjp(
    lambda x, targets: (gather_targets(x, targets), targets),
    lambda targets, d_out: (rows_or_zeros(d_out, targets), None),
)
scatter_targets.defvjp(
    lambda x, targets: (scatter_targets(x, targets), targets),
    lambda targets, d_out: (target_rows_or_zeros(d_out, targets), None),
)
