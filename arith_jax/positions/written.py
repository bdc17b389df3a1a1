"""Position ids of work that is written out: several ids a token, kept in one integer.

Two-level ids are place + `LEVEL` * line; three-level ids add `LEVEL` * `LINES` *
column. Each is 0 (none) or at least `FIRST`, so that a token without a place or a line
is far from all tokens that have one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from arith_jax.positions.abacus import abacus_positions

LEVEL, LINES, FIRST = 2**15, 2**8, 8


def line_positions(
    is_digit: Bool[Array, "b t"],
    is_token: Bool[Array, "b t"],
    is_equals: Bool[Array, "b t"],
    has_lines: Bool[Array, "#b"],
) -> Int[Array, "b t"]:
    """Two-level ids: the place of a digit, and the line of the answer it is in.

    Where `has_lines`, the answer is a sequence of lines that begin with a symbol: `=`,
    then each symbol after it. The digits after the first symbol of the prompt, the
    second operand, have a line each and no place then: line j of the answer stands
    beside the j-th of them. All other digits have places only. A symbol of the answer
    has the place before the first digit; symbols of the prompt have neither.

    Args:
        is_digit: True where the token is one of 0-9.
        is_token: True where the token is a digit, an operator or another symbol.
        is_equals: True at `=`.
        has_lines: Whether the answer has lines, per example.

    Returns:
        place + `LEVEL` * line; `split_levels` takes them apart.

    Source:
        Ours; several ids a token after Cho et al. 2024b (arXiv 2410.15787).
    """
    place = abacus_positions(is_digit)
    is_symbol = is_token & ~is_digit
    is_answer = jnp.cumsum(is_equals, axis=1) > 0
    is_second = is_digit & ~is_answer & (jnp.cumsum(is_symbol, axis=1) > 0)
    is_line_digit = is_second & has_lines[:, None]
    answer_line = jnp.cumsum(is_symbol & is_answer, axis=1)
    line = jnp.where(is_line_digit, place, answer_line)
    has_line = is_line_digit | (is_answer & has_lines[:, None])
    line = jnp.where(has_line, line - 1 + FIRST, 0)
    has_place = (is_digit | (is_answer & is_token)) & ~is_line_digit
    return jnp.where(has_place, place + FIRST, 0) + LEVEL * line


def item_positions(
    is_digit: Bool[Array, "b t"], is_equals: Bool[Array, "b t"]
) -> Int[Array, "b t"]:
    """Three-level ids of a list and its insertion sort: place, line and column.

    The prompt is a list of items, each a key, a symbol, the digits of a number and the
    symbol that ends it. Item i has line i; its digits have places, and there are no
    columns. Line i of the answer has a symbol, the first one `=`, and then i keys, in
    columns. It stands beside item i at the place of that number's last digit. What
    comes after the last line is numbered on.

    Args:
        is_digit: True where the token is one of 0-9.
        is_equals: True at `=`.

    Returns:
        place + `LEVEL` * (line + `LINES` * column), as in `split_levels`.
    """
    place = abacus_positions(is_digit)
    place = jnp.where(place > 0, place + FIRST, 0)
    is_answer = jnp.cumsum(is_equals, axis=1) > 0
    before = jnp.pad(is_digit, ((0, 0), (1, 0)))[:, :-1]
    ends = (before & ~is_digit).astype(jnp.int32)
    item = jnp.cumsum(ends, axis=1) - ends
    count = jnp.cumsum(is_answer, axis=1) - 1
    # Line i begins after (i - 1)(i + 2) / 2 tokens; 0.5 keeps the root above a square.
    line = ((jnp.sqrt(8.0 * count + 9.5) - 1) / 2).astype(jnp.int32)
    column = count - (line - 1) * (line + 2) // 2
    line = jnp.where(is_answer, line - 1, item) + FIRST
    items = jnp.where(is_answer, 0, place + LEVEL * line)
    last_place = largest_place(items, line)
    answer = last_place + LEVEL * (line + LINES * (column + FIRST))
    return jnp.where(is_answer, answer, items)


def largest_place(ids: Int[Array, "b s"], line: Int[Array, "b t"]) -> Int[Array, "b t"]:
    """Largest place in each line, among three-level ids."""
    place, line_of_id, _ = split_levels(ids, 3)
    is_in_line = line_of_id[:, None, :] == line[:, :, None]
    return jnp.max(jnp.where(is_in_line, place[:, None, :], 0), axis=2)


def split_levels(
    ids: Int[Array, "*dims"], num_levels: int
) -> tuple[Int[Array, "*dims"], ...]:
    """Places and lines of two-level ids; and columns of three-level ones."""
    place, line = ids % LEVEL, ids // LEVEL
    if num_levels == 2:
        return place, line
    return place, line % LINES, line // LINES


def next_line_position(
    previous: Int[Array, " b"], is_digit: Bool[Array, " b"], is_token: Bool[Array, " b"]
) -> Int[Array, " b"]:
    """Two-level id of a generated token from that of the token before it."""
    place, line = split_levels(previous, 2)
    symbol = jnp.where(is_token, FIRST, 0)
    place = jnp.where(is_digit, jnp.maximum(place, FIRST) + 1, symbol)
    return place + LEVEL * jnp.where(line > 0, line + (is_token & ~is_digit), 0)


def next_item_position(
    previous: Int[Array, " b"], ids: Int[Array, "b s"]
) -> Int[Array, " b"]:
    """Three-level id of a generated token of an insertion sort.

    Args:
        previous: Id of the token before it, `=` or a later one.
        ids: Ids of all tokens before it, 0 elsewhere.
    """
    _, line, column = split_levels(previous, 3)
    # Line i has i keys.
    ends = column > line
    line, column = line + ends, jnp.where(ends, FIRST, column + 1)
    place = largest_place(ids, line[:, None])[:, 0]
    return place + LEVEL * (line + LINES * column)
