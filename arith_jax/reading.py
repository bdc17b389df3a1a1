"""Which tokens' logits are read: the others need no end of the last layer.

Only the answer is predicted, so what follows the last layer's attention is computed
for its tokens alone. The ways from all tokens to those and back are gathers, and so are
their gradients: a scatter would write one row after the other.
Imports nothing of the package.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Read(NamedTuple):
    """The tokens that are read, of every row.

    `places` are theirs in the row; where a row has fewer, any place. `rank` is the
    number of each token among them; -1: it is not read.
    """

    places: Int[Array, "b a"]
    rank: Int[Array, "b t"]


def read_where(mask: Bool[Array, "b t"], most: int) -> Read:
    """The tokens where the mask is True, at `most` so many in a row."""
    count = jnp.cumsum(mask, axis=1)
    number = jnp.arange(most)[None, :, None]
    places = jnp.sum(count[:, None, :] <= number, axis=-1)
    rank = jnp.where(mask, count - 1, -1)
    return Read(jnp.minimum(places, mask.shape[1] - 1), rank)


def rows_at(
    x: Float[Array, "b n d"], index: Int[Array, "b m"]
) -> Float[Array, "b m d"]:
    """Rows of every example's matrix."""
    return jnp.take_along_axis(x, index[..., None], axis=1, mode="clip")


def spread(x: Float[Array, "b a d"], read: Read) -> Float[Array, "b t d"]:
    """What was read in its place, and zeros."""
    found = rows_at(x, jnp.maximum(read.rank, 0))
    return jnp.where(read.rank[..., None] >= 0, found, 0)


def collect(x: Float[Array, "b t d"], read: Read) -> Float[Array, "b a d"]:
    """What is read, and zeros where a row has less."""
    rank = jnp.take_along_axis(read.rank, read.places, axis=1, mode="clip")
    is_read = rank == jnp.arange(rank.shape[1])[None]
    return jnp.where(is_read[..., None], rows_at(x, read.places), 0)


@jax.custom_vjp
def take(x: Float[Array, "b t d"], read: Read) -> Float[Array, "b a d"]:
    """The rows of the tokens that are read; where a row has fewer, any."""
    return rows_at(x, read.places)


@jax.custom_vjp
def put_back(x: Float[Array, "b a d"], read: Read) -> Float[Array, "b t d"]:
    """Rows of all tokens from those that are read; zeros for the others."""
    return spread(x, read)


take.defvjp(
    lambda x, read: (take(x, read), read),
    lambda read, d_out: (spread(d_out, read), None),
)
put_back.defvjp(
    lambda x, read: (put_back(x, read), read),
    lambda read, d_out: (collect(d_out, read), None),
)
