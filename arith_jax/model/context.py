"""Where queries and keys are: what attention must know besides their content."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from arith_jax.kernels.attention import segment_bounds
from arith_jax.model import banded
from arith_jax.positions.abacus import of_segment
from arith_jax.positions.schemes import Levels, Scheme


class Tokens(NamedTuple):
    """Where some tokens are.

    Attributes:
        index: Place in their segment.
        levels: What their position ids consist of, without offset.
        segment: Tokens see their own segment only; None: there is one in each row.
    """

    index: Int[Array, "#b t"]
    levels: Levels
    segment: Int[Array, "b t"] | None = None


class Context(NamedTuple):
    """Queries, the keys that they may see, and how to find them.

    Attributes:
        query: Where the queries are.
        key: Where the keys are.
        table_row: Rows of the queries in a table of positions, offset included.
        bounds: First token of each segment, and the row's length, for kernels.
        band: Blocks of tokens with neighbouring ids, in which attention works.
    """

    query: Tokens
    key: Tokens
    table_row: Int[Array, "b t"]
    bounds: Int[Array, "b n"] | None = None
    band: banded.Band | None = None


def make_context(
    scheme: Scheme,
    positions: Int[Array, "b t"],
    *,
    segment: Int[Array, "b t"] | None = None,
    num_segments: int = 1,
    blocks: banded.Blocks | None = None,
) -> Context:
    """Context of whole rows: every token is a query and a key.

    Args:
        scheme: That numbered the tokens.
        positions: Position ids, any offset included.
        segment: Number of each token's segment, from 0; None: one segment.
        num_segments: How many there are; static.
        blocks: Sizes of blocks to attend in; None: whole rows.

    Raises:
        ValueError: If rows of several segments, or ids that cannot be sorted, are to be
            attended to in blocks.
    """
    index = jnp.arange(positions.shape[1])[None, :]
    bounds = None
    if num_segments == 1:
        segment = None
    if segment is not None:
        bounds = segment_bounds(segment, num_segments)
        index = index - of_segment(bounds[:, :-1], segment)
    ids = scheme.remove_offset(positions, segment, num_segments)
    query = Tokens(index, scheme.query_levels(ids), segment)
    key = Tokens(index, scheme.key_levels(ids), segment)
    band = None
    if blocks is not None:
        if segment is not None or not scheme.is_sortable:
            raise ValueError(
                "attention in blocks is for rows of one segment, numbered by 'abacus'; "
                f"got {num_segments} segments, {scheme.name!r}"
            )
        band = banded.make_band(ids, blocks)
    table_row = scheme.query_levels(positions)[0]
    return Context(query, key, table_row, bounds=bounds, band=band)


def cached_context(
    scheme: Scheme,
    query: tuple[Int[Array, "#b t"], Int[Array, "b t"]],
    key: tuple[Int[Array, "#b s"], Int[Array, "b s"]],
) -> Context:
    """Context of some tokens against cached ones.

    Args:
        scheme: That numbered the tokens.
        query: Index in the row and position id, without offset, of each query.
        key: The same of each key.
    """
    return Context(
        Tokens(query[0], scheme.query_levels(query[1])),
        Tokens(key[0], scheme.key_levels(key[1])),
        scheme.query_levels(query[1])[0],
    )


def visible(
    scheme: Scheme, context: Context, window: int | None
) -> Bool[Array, "#b t s"]:
    """Which keys a query may attend to: itself and its past, as the scheme allows.

    Args:
        scheme: That numbered the tokens.
        context: Queries and keys.
        window: Of the first level of ids; None: nothing is hidden by it.
    """
    query, key = context.query, context.key
    mask = key.index[:, None, :] <= query.index[:, :, None]
    if query.segment is not None and key.segment is not None:
        mask = mask & (key.segment[:, None, :] == query.segment[:, :, None])
    return mask & scheme.visible(query.levels, key.levels, window)


def block_context(context: Context, band: banded.Band) -> Context:
    """Context of the blocks of a band, which take the place of the rows."""
    rows = band.queries.shape[0] * band.queries.shape[1]

    def tokens(source: Tokens, index: Int[Array, "b n s"]) -> Tokens:
        levels = tuple(banded.in_blocks(level, index) for level in source.levels)
        return Tokens(index.reshape(rows, -1), levels)

    return Context(
        tokens(context.query, band.queries),
        tokens(context.key, band.keys),
        banded.in_blocks(context.table_row, band.queries),
    )
