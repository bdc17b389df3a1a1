"""Position ids of work that is written out: several ids a token, kept in one integer.

Ids of two levels are place + `PLACES[2]` * line; those of three have another level
above, place + `PLACES[3]` * (line + `LINES` * column). Each is 0 (none) or at least
`FIRST`, so that a token without a place or a line is far from all tokens that have one.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from arith_jax.positions.abacus import abacus_positions

# Numbers of places, by levels: with the lines and columns above them, 31 bits.
PLACES = {2: 2**15, 3: 2**11}
# Lines of ids of three levels; there are 256 columns, or groups.
LINES = 2**12
FIRST = 8


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
        Ids of two levels; `split_levels` takes them apart.

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
    return join_levels(jnp.where(has_place, place + FIRST, 0), line)


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
        Ids of three levels; `split_levels` takes them apart.
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
    none = jnp.zeros_like(line)
    items = jnp.where(is_answer, 0, join_levels(place, line, none))
    answer = join_levels(largest_place(items, line), line, column + FIRST)
    return jnp.where(is_answer, answer, items)


def term_positions(
    is_digit: Bool[Array, "b t"],
    is_token: Bool[Array, "b t"],
    is_equals: Bool[Array, "b t"],
) -> Int[Array, "b t"]:
    """Ids of a sum of many numbers and its running sums: place and line.

    Number i of the prompt, from 0, and the symbol before it have line 2i; line i of
    the answer, which begins with its symbol and is the sum of the numbers to that one,
    has line 2i + 1. So the number is one line away, the running sum before it two, and
    the next number one in the other direction: its being there says that this line is
    not the last. Digits have places. A symbol of the answer has the place before the
    first digit; symbols of the prompt have none.

    Args:
        is_digit: True where the token is one of 0-9.
        is_token: True where the token is a digit, an operator or another symbol.
        is_equals: True at `=`.

    Returns:
        Ids of two levels; `split_levels` takes them apart.
    """
    is_answer = jnp.cumsum(is_equals, axis=1) > 0
    is_symbol = is_token & ~is_digit
    symbols = jnp.cumsum(is_symbol, axis=1)
    in_prompt = jnp.sum(is_symbol & ~is_answer, axis=1, keepdims=True)
    line = jnp.where(is_answer, 2 * (symbols - in_prompt) - 1, 2 * symbols)
    has_place = is_digit | (is_answer & is_token)
    place = jnp.where(has_place, abacus_positions(is_digit) + FIRST, 0)
    return join_levels(place, line + FIRST)


def group_positions(
    is_digit: Bool[Array, "b t"],
    is_token: Bool[Array, "b t"],
    is_equals: Bool[Array, "b t"],
    begins_group: Bool[Array, "b t"],
    step: int = 1,
) -> Int[Array, "b t"]:
    """Ids of a long division or a square root: place, line and group.

    Digits of the first number, which is a dividend, have a group each, from the most
    significant one, which is the last, and nothing else. Those of a divisor have places
    only. A line of the answer begins with a symbol, `=` the first; its symbol has the
    place before the first digit. The first group begins there, others at some of the
    later symbols.

    Args:
        is_digit: True where the token is one of 0-9.
        is_token: True where the token is a digit, an operator or another symbol.
        is_equals: True at `=`.
        begins_group: True at the symbols of the answer that begin a group.
        step: From a group of the answer to the next: digits that it brings down.

    Returns:
        Ids of three levels; `split_levels` takes them apart.
    """
    place = abacus_positions(is_digit)
    is_answer = jnp.cumsum(is_equals, axis=1) > 0
    is_symbol = is_token & ~is_digit
    is_dividend = is_digit & (jnp.cumsum(is_symbol, axis=1) == 0)
    count = jnp.sum(is_dividend, axis=1, keepdims=True)
    line = jnp.cumsum(is_symbol & is_answer, axis=1) - 1 + FIRST
    group = step * jnp.cumsum(begins_group & is_answer, axis=1)
    group = jnp.where(is_dividend, count - place, group) + FIRST
    has_place = (is_digit & ~is_dividend) | (is_answer & is_token)
    return join_levels(
        jnp.where(has_place, place + FIRST, 0),
        jnp.where(is_answer, line, 0),
        jnp.where(is_answer | is_dividend, group, 0),
    )


def largest_place(ids: Int[Array, "b s"], line: Int[Array, "b t"]) -> Int[Array, "b t"]:
    """Largest place in each line, among three-level ids."""
    place, line_of_id, _ = split_levels(ids, 3)
    is_in_line = line_of_id[:, None, :] == line[:, :, None]
    return jnp.max(jnp.where(is_in_line, place[:, None, :], 0), axis=2)


def join_levels(
    place: Int[Array, "*dims"],
    line: Int[Array, "*dims"],
    column: Int[Array, "*dims"] | None = None,
) -> Int[Array, "*dims"]:
    """Ids of two levels; of three with columns."""
    if column is None:
        return place + PLACES[2] * line
    return place + PLACES[3] * (line + LINES * column)


def split_levels(
    ids: Int[Array, "*dims"], num_levels: int
) -> tuple[Int[Array, "*dims"], ...]:
    """Places and lines of ids of two levels; and columns of those of three."""
    place, line = ids % PLACES[num_levels], ids // PLACES[num_levels]
    if num_levels == 2:
        return place, line
    return place, line % LINES, line // LINES


def next_line_position(
    previous: Int[Array, " b"],
    is_digit: Bool[Array, " b"],
    is_token: Bool[Array, " b"],
    step: int = 1,
) -> Int[Array, " b"]:
    """Id of a generated token, of two levels, from that of the token before it.

    Args:
        previous: Id of the token before it.
        is_digit: Whether it is one of 0-9.
        is_token: Whether it is a digit, an operator or another symbol.
        step: From a line of the answer to the next.
    """
    place, line = split_levels(previous, 2)
    line = jnp.where(line > 0, line + step * (is_token & ~is_digit), 0)
    return join_levels(next_place(place, is_digit, is_token), line)


def next_place(
    place: Int[Array, " b"], is_digit: Bool[Array, " b"], is_token: Bool[Array, " b"]
) -> Int[Array, " b"]:
    """Place of a generated token: one more for a digit, the first for a symbol."""
    symbol = jnp.where(is_token, FIRST, 0)
    return jnp.where(is_digit, jnp.maximum(place, FIRST) + 1, symbol)


def next_group_position(
    previous: Int[Array, " b"],
    is_digit: Bool[Array, " b"],
    is_token: Bool[Array, " b"],
    begins_group: Bool[Array, " b"],
    step: int = 1,
) -> Int[Array, " b"]:
    """Id of a generated token of a division from that of the token before it.

    Args:
        previous: Id of the token before it.
        is_digit: Whether it is one of 0-9.
        is_token: Whether it is a digit, an operator or another symbol.
        begins_group: Whether it is the symbol that begins a group.
        step: From a group to the next.
    """
    place, line, group = split_levels(previous, 3)
    place = next_place(place, is_digit, is_token)
    line, group = line + (is_token & ~is_digit), group + step * begins_group
    return join_levels(place, line, group)


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
    return join_levels(largest_place(ids, line[:, None])[:, 0], line, column)
