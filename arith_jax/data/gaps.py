"""Gaps between the rows of a position table that consecutive places have."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from arith_jax.config.data import DataConfig
from arith_jax.tasks.digits import word_below


def with_gaps(
    data: DataConfig,
    key: PRNGKeyArray,
    positions: Int[Array, "b t"],
    offset: Int[Array, " b"],
) -> Int[Array, "b t"]:
    """Position ids in ascending order with rows of the table left out between them.

    An example draws how many may be left out at most, and then how many are in front of
    each place, the same in all of its numbers. So places meet that are further apart
    than any in a number of the trained lengths, and their order is all that counts.

    Args:
        data: Says how many rows a gap has at most, and how many places there are.
        key: Decides the gaps.
        positions: Ids of one example a row.
        offset: Which the ids have.

    Source:
        Randomised positional encodings (Ruoss et al. 2023, arXiv 2305.16843), here for
        places in numbers and beside plain offsets.
    """
    num_places = data.max_position_id(data.max_cell)
    words = jax.random.bits(key, (positions.shape[0], num_places + 1))
    limit = 1 + word_below(words[:, :1], data.max_gap + 1)
    left_out = jnp.cumsum(word_below(words[:, 1:], limit), axis=1)
    place = positions - offset[:, None]
    index = jnp.clip(place - 1, 0, num_places - 1)
    shift = jnp.take_along_axis(left_out, index, axis=1)
    return jnp.where(positions > 0, positions + shift, 0)
