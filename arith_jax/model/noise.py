"""What disturbs attention in training, so that it learns to leave out far digits.

All that a longer problem adds is digits that are further away. Each of these shows some
of that without showing a longer problem.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from arith_jax.config.training import Noise
from arith_jax.model.context import Context
from arith_jax.positions.schemes import out_of_window


def noise_logits(
    noise: Noise, draw_key: Callable[[], PRNGKeyArray], context: Context, window: int
) -> Float[Array, "#b #t #s"]:
    """What is added to the logits of every head.

    Args:
        noise: Key noise, and copies of far digits: attention to so many equal keys is
            that to one whose logit is larger by the logarithm of their number.
        draw_key: Gives a new key for each draw.
        context: Queries and keys.
        window: Digits whose places differ by more are far.
    """
    query, key = context.query.levels[0], context.key.levels[0]
    logits = jnp.zeros((1, 1, 1))
    if noise.key_noise > 0:
        drawn = jax.random.uniform(draw_key(), key.shape)
        logits = logits + noise.key_noise * drawn[:, None, :]
    if noise.max_far_copies > 1:
        drawn = jax.random.uniform(draw_key(), (key.shape[0], 1, 1))
        is_far = out_of_window(query, key, window)
        copies = jnp.where(is_far, math.log(noise.max_far_copies) * drawn, 0.0)
        logits = logits + copies
    return logits


def is_far_in_others(context: Context, window: int) -> Bool[Array, "b t t"]:
    """Which earlier digits of a row's other problems are far from a token.

    From a digit, by the rows of a table that they have, offset included: that of each
    problem is its own, so that digits meet that are further apart than those of one
    problem ever are. From a symbol, by their places alone: it needs the first digits
    of its own problem, and those of others would be no different.

    Args:
        context: Of whole rows of several problems.
        window: Digits whose rows differ by more are far.
    """
    row, place = context.table_row, context.key.levels[0]
    segment = context.query.segment
    assert segment is not None
    token = jnp.arange(row.shape[1])
    is_earlier = token[None, None, :] < token[None, :, None]
    is_other = segment[:, :, None] != segment[:, None, :]
    is_far = out_of_window(row, row, window)
    is_far = jnp.where((row > 0)[:, :, None], is_far, (place > window)[:, None, :])
    return is_earlier & is_other & is_far
