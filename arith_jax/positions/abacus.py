"""Position ids of digits in their numbers, and the segments of a row."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Integer

from arith_jax import vocab


def abacus_positions(
    is_digit: Bool[Array, "*b t"] | Integer[Array, "*b t"],
    offset: Integer[Array, "*#b"] | int = 0,
    *,
    digit_ids: Sequence[int] | None = None,
    is_blank: Bool[Array, "*b t"] | None = None,
) -> Int[Array, "*b t"]:
    """Index of each digit inside its own number, counted from the left.

    Every maximal run of digits is numbered offset+1, offset+2, ...; all other tokens
    get 0. With numbers written least significant digit first, digits of equal place
    value share an index, whatever the length of their numbers: "89+021=" with offset 0
    gives 1 2 0 1 2 3 0. Padding on either side and several numbers in a row are fine.

        >>> ids = jnp.array([vocab.ARITHMETIC.encode("89+021=")])
        >>> abacus_positions(vocab.is_digit(ids)).tolist()
        [[1, 2, 0, 1, 2, 3, 0]]
        >>> gpt2 = jnp.array([23, 24, 10, 15, 17, 16, 28])  # 89+021= in GPT-2's ids
        >>> abacus_positions(gpt2, digit_ids=range(15, 25)).tolist()
        [1, 2, 0, 1, 2, 3, 0]

    Args:
        is_digit: True where the token is one of 0-9; or, with `digit_ids`, token ids.
        offset: Shift in digits, at least 0, one per example or one for all. Training
            draws it from 0 to `max_offset`; evaluation uses 0.
        digit_ids: Ids of the digits in the vocabulary of `is_digit`, contiguous or not.
        is_blank: True where a token neither counts nor ends a number (random blanks);
            None: every token that is not a digit ends it.

    Returns:
        Rows of an embedding table, int32. The largest value is the offset plus the
        longest run; nothing here can check it against a table under jit.

    Raises:
        TypeError: If `is_digit` is not a mask and `digit_ids` is missing: a mask of
            integers would be taken for ids.
        ValueError: If `offset` is a negative Python integer.

    Source:
        McLeish et al. 2024, section 3; mcleish7/arithmetic `abacus.py` @ 86022a5,
        which draws one offset per batch and knows no blanks.
    """
    if digit_ids is not None:
        is_digit = vocab.is_digit(is_digit, digit_ids)
    elif is_digit.dtype != jnp.bool_:
        raise TypeError(
            f"abacus_positions: is_digit has dtype {is_digit.dtype}; give a bool mask "
            "(mask.astype(bool)), or token ids with digit_ids="
        )
    if isinstance(offset, int) and offset < 0:
        raise ValueError(f"abacus_positions: offset={offset}; must be at least 0")
    axis = is_digit.ndim - 1
    ends_number = ~is_digit if is_blank is None else ~(is_digit | is_blank)
    count = jnp.cumsum(is_digit, axis=axis, dtype=jnp.int32)
    before = jax.lax.cummax(jnp.where(ends_number, count, 0), axis=axis)
    shift = jnp.broadcast_to(jnp.asarray(offset, jnp.int32), is_digit.shape[:-1])
    return jnp.where(is_digit, count - before + shift[..., None], 0)


def coupled_positions(
    is_digit: Bool[Array, "*b t"],
    is_token: Bool[Array, "*b t"],
    offset: Integer[Array, "*#b"] | int = 0,
    *,
    is_blank: Bool[Array, "*b t"] | None = None,
) -> Int[Array, "*b t"]:
    """Position coupling: like Abacus, but operators count as the place before digits.

    Every token that is no digit has id offset+1, the digits after it offset+2,
    offset+3, ...; what is not part of the exercise (`PAD`, `EOS`) has 0. "89+021="
    with offset 0 gives 2 3 1 2 3 4 1.

        >>> ids = jnp.array([vocab.ARITHMETIC.encode("89+021=")])
        >>> coupled_positions(vocab.is_digit(ids), ids > vocab.EOS).tolist()
        [[2, 3, 1, 2, 3, 4, 1]]

    Args:
        is_digit: True where the token is one of 0-9.
        is_token: True where the token is a digit, an operator or another symbol.
        offset: As in `abacus_positions`.
        is_blank: As in `abacus_positions`.

    Returns:
        Rows of an embedding table; the largest value is offset + 1 + the longest run.

    Raises:
        TypeError: As `abacus_positions`.
        ValueError: As `abacus_positions`.

    Source:
        Cho et al. 2024, section 3; HanseulJo/position-coupling `addition.py`. There
        operands are written most significant digit first, so the ids of a number run
        down to its operator; least significant digit first is the mirror image.
    """
    abacus = abacus_positions(is_digit, offset, is_blank=is_blank)
    shift = jnp.broadcast_to(jnp.asarray(offset, jnp.int32), is_digit.shape[:-1])
    coupled = jnp.where(is_digit, abacus + 1, shift[..., None] + 1)
    return jnp.where(is_token, coupled, 0)


def remove_offset(
    ids: Int[Array, "b t"],
    segment: Int[Array, "b t"] | None = None,
    num_segments: int = 1,
) -> Int[Array, "b t"]:
    """Abacus or coupled ids as they are with offset 0: the smallest is 1.

    Whatever compares ids needs this: tokens that are not digits have id 0, which is
    next to the first digit of a number only if that digit has id 1.

    Args:
        ids: Ids, of one offset in a segment.
        segment: Number of each token's segment, from 0; None: one segment in a row.
        num_segments: How many there are; static.
    """
    largest = jnp.iinfo(ids.dtype).max
    if segment is None:
        first = jnp.min(jnp.where(ids > 0, ids, largest), axis=1, keepdims=True)
    else:
        number = jnp.arange(num_segments)[None, :, None]
        counts = (segment[:, None, :] == number) & (ids > 0)[:, None, :]
        smallest = jnp.min(jnp.where(counts, ids[:, None, :], largest), axis=2)
        first = of_segment(smallest, segment)
    return jnp.where(ids > 0, ids - first + 1, 0)


def of_segment(
    values: Int[Array, "b n"], segment: Int[Array, "b t"]
) -> Int[Array, "b t"]:
    """What each token's segment has.

    A sum instead of a gather: XLA computes either again for every pair of tokens that
    attention compares, and on a CPU the gather costs a tenth of a training step.

    Args:
        values: One of each segment.
        segment: Number of the segment of each token, from 0.
    """
    number = jnp.arange(values.shape[1])[None, :, None]
    here = segment[:, None, :] == number
    return jnp.sum(jnp.where(here, values[:, :, None], 0), axis=1)


def padding_segment(ids: Int[Array, "b t"]) -> Int[Array, "b t"]:
    """Segment 0 for `PAD` before the first token of a row, 1 from that token on.

    Tokens see their own segment only and are counted from its beginning, so padding on
    the left changes nothing.
    """
    return (jnp.cumsum(ids != vocab.PAD, axis=1) > 0).astype(jnp.int32)
