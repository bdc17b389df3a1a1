"""Where a token is: position ids, which `biases` makes something of.

The pure functions here know nothing of the model, so each can be imported into another
one. Imports nothing of the package.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

# Two-level ids are place + LEVEL * line. Both are 0 (none) or at least FIRST, so that a
# token without a place or a line is far from all that have one. Three-level ids add
# LEVEL * LINES * column.
LEVEL, LINES, FIRST = 2**15, 2**8, 8
# Every way to number tokens (`data.position_ids`): the id of a symbol before digits.
SYMBOL_ID = {"abacus": 0, "coupled": 1, "lines": FIRST, "items": FIRST}
# Levels of the ids that have more than one (`model.position_levels`).
NUM_LEVELS = {"lines": 2, "items": 3}


def abacus_positions(
    is_digit: Bool[Array, "b t"],
    offset: Int[Array, " b"] | int = 0,
    is_blank: Bool[Array, "b t"] | None = None,
) -> Int[Array, "b t"]:
    """Index of each digit inside its own number, counted from the left.

    Every maximal run of digits is numbered offset+1, offset+2, ...; all other tokens
    get 0. With numbers written least significant digit first, digits of equal place
    value share an index, whatever the length of their numbers: "89+021=" with offset 0
    gives 1 2 0 1 2 3 0.

    Args:
        is_digit: True where the token is one of 0-9.
        offset: Shift in digits, at least 0, one per example or one for all. Training
            draws it from 0 to `max_offset`; evaluation uses 0.
        is_blank: True where a token neither counts nor ends a number (random blanks);
            None: every token that is not a digit ends it.

    Returns:
        Rows of an embedding table. The largest value is the offset plus the longest
        run; nothing here can check it against a table under jit.

    Source:
        McLeish et al. 2024, section 3; mcleish7/arithmetic `abacus.py` @ 86022a5,
        which draws one offset per batch and knows no blanks.
    """
    ends_number = ~is_digit if is_blank is None else ~(is_digit | is_blank)
    count = jnp.cumsum(is_digit, axis=1)
    before = jax.lax.cummax(jnp.where(ends_number, count, 0), axis=1)
    shift = jnp.broadcast_to(offset, is_digit.shape[:1])[:, None]
    return jnp.where(is_digit, count - before + shift, 0)


def without_offset(
    abacus: Int[Array, "b t"], start: Int[Array, "b t"] | None = None
) -> Int[Array, "b t"]:
    """Abacus or coupled ids as they are with offset 0: the smallest is 1.

    What compares ids needs this: other tokens have id 0, which is next to the first
    digit of a number only if that has id 1.

    Args:
        abacus: Ids, of one offset in a row.
        start: From `problem_starts`, in rows of several problems, each of which begins
            with the first digit of a number. Default: there is one problem.
    """
    if start is not None:
        first = jnp.take_along_axis(abacus, start, axis=1)
    else:
        largest = jnp.iinfo(abacus.dtype).max
        first = jnp.min(jnp.where(abacus > 0, abacus, largest), axis=1, keepdims=True)
    return jnp.where(abacus > 0, abacus - first + 1, 0)


def problem_starts(lengths: Int[Array, "b n"], width: int) -> Int[Array, "b t"]:
    """Place in the row of the first token of each token's own problem.

    Args:
        lengths: Tokens of each problem of a row, one after another; what is left of the
            row belongs to the last one.
        width: Tokens of a row.
    """
    ends = jnp.cumsum(lengths, axis=1)[:, None, :-1]
    is_before = ends <= jnp.arange(width)[None, :, None]
    return jnp.max(jnp.where(is_before, ends, 0), axis=-1, initial=0)


def coupled_positions(
    is_digit: Bool[Array, "b t"],
    is_token: Bool[Array, "b t"],
    offset: Int[Array, " b"] | int = 0,
    is_blank: Bool[Array, "b t"] | None = None,
) -> Int[Array, "b t"]:
    """Position coupling: like Abacus, but operators count as the place before digits.

    Every token that is no digit has id offset+1, the digits after it offset+2,
    offset+3, ...; what is not part of the exercise (`PAD`, `EOS`) has 0. "89+021="
    with offset 0 gives 2 3 1 2 3 4 1.

    Args:
        is_digit: True where the token is one of 0-9.
        is_token: True where the token is a digit, an operator or another symbol.
        offset: As in `abacus_positions`.
        is_blank: As in `abacus_positions`.

    Returns:
        Rows of an embedding table; the largest value is offset + 1 + the longest run.

    Source:
        Cho et al. 2024, section 3; HanseulJo/position-coupling `addition.py`. There
        operands are written most significant digit first, so the ids of a number run
        down to its operator; least significant digit first is the mirror image.
    """
    abacus = abacus_positions(is_digit, offset, is_blank)
    symbol = jnp.broadcast_to(offset, is_digit.shape[:1])[:, None] + 1
    return jnp.where(is_token, jnp.where(is_digit, abacus + 1, symbol), 0)


def line_positions(
    is_digit: Bool[Array, "b t"],
    is_token: Bool[Array, "b t"],
    is_equals: Bool[Array, "b t"],
    has_lines: Bool[Array, "#b"],
) -> Int[Array, "b t"]:
    """Two-level ids: the place of a digit, and the line of the answer it is in.

    Where `has_lines`, the answer is lines that begin with a symbol: `=`, then each one
    after it. The digits after the first symbol of the prompt, the second operand, have
    a line each and no place then: line j of the answer stands beside the j-th of them.
    All other digits have places only. A symbol of the answer has the place before the
    first digit, those of the prompt have neither.

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
    is_beside = is_second & has_lines[:, None]
    line = jnp.where(is_beside, place, jnp.cumsum(is_symbol & is_answer, axis=1))
    has_line = is_beside | (is_answer & has_lines[:, None])
    line = jnp.where(has_line, line - 1 + FIRST, 0)
    has_place = (is_digit | (is_answer & is_token)) & ~is_beside
    return jnp.where(has_place, place + FIRST, 0) + LEVEL * line


def item_positions(
    is_digit: Bool[Array, "b t"], is_equals: Bool[Array, "b t"]
) -> Int[Array, "b t"]:
    """Three-level ids of a list and its insertion sort: place, line and column.

    The prompt is items, each a key, a symbol, the digits of a number and what ends it.
    Item i has line i; its digits have places, and there are no columns. Line i of the
    answer has a symbol, the first one `=`, and then i keys, in columns. It stands
    beside item i at the place of that number's last digit. What comes after the last
    line is numbered on.

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
    beside = place_beside(items, line)
    answer = beside + LEVEL * (line + LINES * (column + FIRST))
    return jnp.where(is_answer, answer, items)


def place_beside(ids: Int[Array, "b s"], line: Int[Array, "b t"]) -> Int[Array, "b t"]:
    """Largest place in each line, among three-level ids."""
    place, own, _ = split_levels(ids, 3)
    is_beside = own[:, None, :] == line[:, :, None]
    return jnp.max(jnp.where(is_beside, place[:, None, :], 0), axis=2)


def split_levels(
    ids: Int[Array, "*dims"], levels: int
) -> tuple[Int[Array, "*dims"], ...]:
    """Places and lines of two-level ids; and columns of three-level ones."""
    place, line = ids % LEVEL, ids // LEVEL
    return (place, line) if levels == 2 else (place, line % LINES, line // LINES)


def next_position(
    previous: Int[Array, " b"],
    is_digit: Bool[Array, " b"],
    is_token: Bool[Array, " b"],
    scheme: str = "abacus",
) -> Int[Array, " b"]:
    """Position id, without offset, of a generated token from that of the one before.

    Args:
        previous: Position of the token before.
        is_digit: As in `coupled_positions`, of the generated token.
        is_token: As in `coupled_positions`, of the generated token.
        scheme: A key of `SYMBOL_ID`.
    """
    symbol = SYMBOL_ID[scheme]
    other = jnp.where(is_token, symbol, 0)
    if scheme != "lines":
        return jnp.where(is_digit, jnp.maximum(previous, symbol) + 1, other)
    place, line = split_levels(previous, 2)
    place = jnp.where(is_digit, jnp.maximum(place, symbol) + 1, other)
    return place + LEVEL * jnp.where(line > 0, line + (is_token & ~is_digit), 0)


def next_key_position(
    previous: Int[Array, " b"], ids: Int[Array, "b s"]
) -> Int[Array, " b"]:
    """Three-level id of a generated token of an insertion sort.

    Args:
        previous: Id of the token before, `=` or a later one.
        ids: Ids of the tokens before, 0 elsewhere.
    """
    _, line, column = split_levels(previous, 3)
    # Line i has i keys.
    ends = column > line
    line, column = line + ends, jnp.where(ends, FIRST, column + 1)
    place = place_beside(ids, line[:, None])[:, 0]
    return place + LEVEL * (line + LINES * column)
