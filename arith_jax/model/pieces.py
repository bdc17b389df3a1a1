"""Attention of some queries or blocks at a time, so that their logits stay small."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

# Of a head in a row at a time: rows of more than 4,096 tokens are done in pieces.
MAX_LOGITS = 2**24
# A CPU keeps the logits of so many blocks in its cache: rows of 30,720 tokens take half
# the time. Other devices need all blocks to be busy.
CPU_BLOCKS = 16


def queries_at_a_time(num_queries: int, num_keys: int) -> int:
    """How many queries keep the logits of a head within `MAX_LOGITS`.

    All of them, or a power of two.
    """
    if num_queries * num_keys <= MAX_LOGITS:
        return num_queries
    return 1 << (max(1, MAX_LOGITS // num_keys).bit_length() - 1)


def blocks_at_a_time(num_blocks: int) -> int:
    """How many blocks to compute at a time."""
    return CPU_BLOCKS if jax.default_backend() == "cpu" else num_blocks


def in_pieces(
    layer: nn.Module, weigh: Callable[..., Array], whole: Any, axis: int, size: int
) -> Array:
    """What a function makes of arrays, computed piece by piece.

    Args:
        layer: Whose parameters the function needs.
        weigh: Of the layer and the parts of `whole`; its result has the axis, too.
        whole: A tuple of trees of arrays of one length along the axis.
        axis: That is cut into pieces.
        size: Of a piece; if it is all there is, there is no loop.
    """
    length = jax.tree.leaves(whole)[0].shape[axis]
    if size >= length:
        return weigh(layer, *whole)
    num_pieces = -(-length // size)

    def split(x: Array) -> Array:
        padding = [(0, 0)] * x.ndim
        padding[axis] = (0, num_pieces * size - length)
        x = jnp.pad(x, padding, mode="edge")
        x = x.reshape(*x.shape[:axis], num_pieces, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    def weigh_piece(layer: nn.Module, carry: None, piece: Any) -> tuple[None, Array]:
        return carry, weigh(layer, *piece)

    scan = nn.scan(
        weigh_piece, variable_broadcast="params", split_rngs={"params": False}
    )
    _, out = scan(layer, None, jax.tree.map(split, whole))
    out = jnp.moveaxis(out, 0, axis)
    out = out.reshape(*out.shape[:axis], -1, *out.shape[axis + 2 :])
    return jax.lax.slice_in_dim(out, 0, length, axis=axis)
