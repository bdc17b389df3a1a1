"""Window attention in blocks: memory and time grow linearly with the row.

With a window of Abacus ids a digit sees a few digits of each number, far apart in the
row. Sorted by Abacus id they are neighbours: every query finds its keys in its own
block of the sorted row and the blocks beside it, so the logits of whole rows never
exist.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Blocks(NamedTuple):
    """Sizes, static: tokens in a block, and symbols of a row seen by every query."""

    size: int
    symbols: int


class Band(NamedTuple):
    """Which tokens stand in each block, and which keys its queries may see.

    All are sequence indices but `place`, the place of each token in the sorted row. A
    key that does not exist, or is listed twice, has an index past the row's end.
    """

    queries: Int[Array, "b n q"]
    keys: Int[Array, "b n s"]
    place: Int[Array, "b t"]


def fitting_blocks(max_numbers: int, max_symbols: int, window: int) -> Blocks:
    """Blocks wide enough that no visible key is further than the next block.

    Args:
        max_numbers: Numbers in a row, so digits that share one Abacus id.
        max_symbols: Tokens before the row's end that are not digits.
        window: Largest difference of Abacus ids, in digits, that is visible.
    """
    reach = max_numbers * (window + 1) + max_symbols
    return Blocks(max(32, 1 << (reach - 1).bit_length()), max_symbols)


def make_band(ids: Int[Array, "b t"], blocks: Blocks) -> Band:
    """Sorts the tokens by Abacus id and lists each block's keys.

    The first `blocks.symbols` tokens that are not digits are keys of every block. Later
    ones, the padding after `EOS`, are put last and are keys of no block: what comes out
    there is finite but means nothing.

    Args:
        ids: Abacus ids without offset; 0 for tokens that are not digits.
        blocks: From `fitting_blocks`.
    """
    rows, width = ids.shape
    size, symbols = blocks
    rank = jnp.cumsum(ids == 0, axis=1)
    last = jnp.iinfo(ids.dtype).max
    order_by = jnp.where(ids > 0, ids, jnp.where(rank <= symbols, 0, last))
    order = jnp.argsort(order_by, axis=1, stable=True)
    place = jnp.argsort(order, axis=1)
    is_digit = jnp.take_along_axis(ids, order, axis=1) > 0
    digits = jnp.where(is_digit, order, width)
    num_blocks = -(-width // size)
    padding = num_blocks * size - width

    def cut(tokens: Int[Array, "b t"], before: int, after: int):
        pads = ((0, 0), (before, after))
        return jnp.pad(tokens, pads, constant_values=width).reshape(rows, -1, size)

    queries = jnp.minimum(cut(order, 0, padding), width - 1)
    around = cut(digits, size, padding + size)
    shared = jnp.where(is_digit[:, :symbols], width, order[:, :symbols])
    shared = jnp.broadcast_to(shared[:, None], (rows, num_blocks, symbols))
    keys = [around[:, :-2], around[:, 1:-1], around[:, 2:], shared]
    return Band(queries, jnp.concatenate(keys, axis=2), place)


def in_blocks(
    tokens: Array, index: Int[Array, "b n s"]
) -> Float[Array, "bn s *dims"] | Int[Array, "bn s"]:
    """Values [b t ...] of the tokens named by each block, blocks in the batch axis.

    A key past the row's end gets some other token's value: its index hides it.
    """
    rows, count, size = index.shape
    width = tokens.shape[1]
    flat = jnp.minimum(index.reshape(rows, count * size), width - 1)
    flat = flat.reshape(flat.shape + (1,) * (tokens.ndim - 2))
    picked = jnp.take_along_axis(tokens, flat, axis=1)
    return picked.reshape(rows * count, size, *tokens.shape[2:])


def in_rows(blocked: Float[Array, "bn q h c"], band: Band) -> Float[Array, "b t h c"]:
    """Values of the blocks' queries, back in the order of the row."""
    rows, _ = band.place.shape
    flat = blocked.reshape(rows, -1, *blocked.shape[2:])
    return jnp.take_along_axis(flat, band.place[:, :, None, None], axis=1)
