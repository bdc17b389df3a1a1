"""Exact arithmetic on arrays of digits, random digits, rows of tokens.

Everything that runs on the device works on digits, least significant first, so no
number ever overflows an integer. The last two functions are the host's side: Python
integers of any length.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.positions.abacus import abacus_positions

# Random words of one example: a few for its shape, then two for each digit place. One
# draw for everything keeps compilation short, and a one-dimensional draw makes the
# digits independent of how many are asked for. A word modulo 10 is uniform to 1e-9.
NUM_CHOICES = 4
# Tokens of a row, and how many of them count: the rest of the array is left out.
Segment = tuple[Int[Array, " _"], Int[Array, ""] | int]


class Words(NamedTuple):
    """Random words of one example, uniform on 0 to 2^32 - 1."""

    choices: UInt[Array, " 4"]
    digits: UInt[Array, "n 2"]


def random_words(key: PRNGKeyArray, max_digits: int) -> Words:
    """All random words of one example with two numbers."""
    words = jax.random.bits(key, (NUM_CHOICES + 2 * max_digits,))
    return Words(words[:NUM_CHOICES], words[NUM_CHOICES:].reshape(max_digits, 2))


def word_below(
    word: UInt[Array, "*dims"], limit: Int[Array, "*#dims"] | int
) -> Int[Array, "*dims"]:
    """An integer from 0 to `limit` - 1 out of a random word."""
    return (word % jnp.asarray(limit).astype(jnp.uint32)).astype(jnp.int32)


def uniform_number(
    words: UInt[Array, " n"], length: Int[Array, ""]
) -> Int[Array, " n"]:
    """Digits of a number of exactly `length` digits: the leading one is 1 to 9."""
    place = jnp.arange(words.shape[0])
    is_lead = place == length - 1
    digits = jnp.where(is_lead, 1 + word_below(words, 9), word_below(words, 10))
    return jnp.where(place < length, digits, 0)


def num_digits(number: Int[Array, " n"]) -> Int[Array, ""]:
    """Digits of a number written without leading zeros; 1 for zero."""
    place = jnp.arange(number.shape[0])
    return jnp.max(jnp.where(number > 0, place, 0)) + 1


def last_decision(
    passes: Bool[Array, " n"], decides: Bool[Array, " n"]
) -> Int[Array, " n"]:
    """What each place hands to the next: 1 if the last decision up to it was 1.

    A place either passes on what the lower places decided, or decides itself. One
    running maximum over "place of the last decision, and what it was" gives every
    carry or borrow at logarithmic depth.
    """
    decision = 2 * jnp.arange(1, passes.shape[0] + 1) + decides
    return jax.lax.cummax(jnp.where(passes, 0, decision)) % 2


def add_digits(a: Int[Array, " n"], b: Int[Array, " n"]) -> Int[Array, " n+1"]:
    """Exact sum of two numbers."""
    sums = a + b
    carry_out = last_decision(sums == 9, sums >= 10)
    return (jnp.pad(sums, (0, 1)) + jnp.pad(carry_out, (1, 0))) % 10


def subtract_digits(
    a: Int[Array, " n"], b: Int[Array, " n"]
) -> tuple[Int[Array, " n"], Bool[Array, ""]]:
    """The difference modulo 10^n, and whether a < b (a borrow leaves the last place).

    For a >= b that is the difference itself, else its ten's complement.
    """
    differences = a - b
    borrow_out = last_decision(differences == 0, differences < 0)
    borrow_in = jnp.pad(borrow_out, (1, 0))[:-1]
    return (differences - borrow_in) % 10, borrow_out[-1] == 1


def is_less(a: Int[Array, "*#dims n"], b: Int[Array, "*#dims n"]) -> Bool[Array, "..."]:
    """Whether a < b: decided by the highest place where they differ; broadcasts."""
    weight = 2 * jnp.arange(1, a.shape[-1] + 1)
    weight = weight.reshape((1,) * (a.ndim - 1) + (-1,))
    return jnp.max(jnp.where(a == b, 0, weight + (a < b)), axis=-1) % 2 == 1


def multiply_digits(a: Int[Array, " n"], b: Int[Array, " m"]) -> Int[Array, " n+m"]:
    """Exact product of two numbers.

    Each place first gathers its digit products, at most 81 min(n, m), which has at
    most 10 digits. Its digits, each moved to its place, sum to at most 90 there: two
    digits, so two numbers, which are added.
    """
    width = a.shape[0] + b.shape[0]
    place = jnp.arange(width)[None, :] - jnp.arange(a.shape[0])[:, None]
    is_inside = (place >= 0) & (place < b.shape[0])
    shifted = jnp.where(is_inside, b[jnp.clip(place, 0, b.shape[0] - 1)], 0)
    # Not a dot product: integer matrix products are slow or missing on some devices.
    sums = jnp.sum(a[:, None] * shifted, axis=0)
    count = len(str(81 * min(a.shape[0], b.shape[0])))
    split = [jnp.pad(sums // 10**i % 10, (i, 0))[:width] for i in range(count)]
    sums = jnp.sum(jnp.stack(split), axis=0)
    low, high = sums % 10, jnp.pad(sums // 10, (1, 0))[:width]
    return add_digits(low, high)[:width]


def concatenate(segments: Sequence[Segment], width: int) -> Int[Array, " {width}"]:
    """Joins what counts of each segment; the rest of the row is `PAD`."""
    place = jnp.arange(width)
    source = jnp.zeros((width,), jnp.int32)
    start, offset = 0, 0
    for tokens, length in segments:
        source = jnp.where(place >= start, offset + place - start, source)
        start, offset = start + length, offset + tokens.shape[0]
    tokens = jnp.concatenate([tokens for tokens, _ in segments])
    # The last segment may end before the row does: those places become PAD.
    return jnp.where(place < start, tokens[jnp.minimum(source, offset - 1)], vocab.PAD)


def compact(tokens: Int[Array, "*dims"], mask: Bool[Array, "*dims"]) -> Segment:
    """The tokens where the mask is True, in their order, without what is between."""
    count = jnp.cumsum(mask)
    target = jnp.where(mask.reshape(-1), count - 1, tokens.size)
    row = jnp.full((tokens.size,), vocab.PAD, tokens.dtype)
    return row.at[target].set(tokens.reshape(-1), mode="drop"), count[-1]


def insert_blanks(
    key: PRNGKeyArray, row: Int[Array, " n"], length: Int[Array, ""], chance: float
) -> tuple[Int[Array, " n"], Int[Array, ""]]:
    """Puts a `PAD` before each of the first `length` tokens with the given chance.

    Blanks that would push the row past its end are not inserted.

    Returns:
        The row and its new length in tokens.
    """
    width = row.shape[0]
    place = jnp.arange(width)
    is_inside = place < length
    blanks = jnp.cumsum(jax.random.bernoulli(key, chance, (width,)) & is_inside)
    blanks = jnp.minimum(blanks, width - length)
    target = jnp.where(is_inside, place + blanks, width)
    spread = jnp.full((width,), vocab.PAD, row.dtype).at[target].set(row, mode="drop")
    return spread, length + blanks[-1]


def hint_ids(symbols: vocab.Vocab) -> Int[Array, " 102"]:
    """Ids of the 102 consecutive symbols, hints or keys, in their cyclic order."""
    return jnp.array(symbols.encode(vocab.HINTS))


def hint_start(word: UInt[Array, ""]) -> Int[Array, ""]:
    """Where a run of consecutive symbols starts in their cyclic list.

    Source:
        The original draws 0 to 102 inclusive, so the first symbol starts twice as
        often as the others.
    """
    return word_below(word, len(vocab.HINTS) + 1) % len(vocab.HINTS)


def insert_hints(
    row: Int[Array, " n"], start: Int[Array, ""] | int
) -> Int[Array, " n"]:
    """Puts an index hint before every digit: symbol `start` + i at place i of a number.

    The row must have room: tokens pushed past its end are lost. Blanks do not count.

    Source:
        Zhou et al. 2023 (RASP-L) and McLeish et al. 2024, appendix A.7.5, "cyclic":
        the symbol after the last is the first.
    """
    width = row.shape[0]
    is_digit, is_blank = vocab.is_digit(row), row == vocab.PAD
    place = abacus_positions(is_digit, is_blank=is_blank)
    target = jnp.where(is_blank, width, jnp.arange(width) + jnp.cumsum(is_digit))
    spread = jnp.full((width,), vocab.PAD, row.dtype).at[target].set(row, mode="drop")
    hints = hint_ids(vocab.INDEX)[(start + place - 1) % len(vocab.HINTS)]
    hint_target = jnp.where(is_digit, target - 1, width)
    return spread.at[hint_target].set(hints, mode="drop")


def int_from_digits(text: str) -> int:
    """A Python integer from decimal digits of any number, in blocks.

    `int` refuses more than 4,300 digits unless an interpreter-wide limit is lifted,
    which a library must not do.
    """
    value = 0
    for start in range(0, len(text), 4000):
        block = text[start : start + 4000]
        value = value * 10 ** len(block) + int(block)
    return value


def digits_from_int(value: int) -> str:
    """Decimal digits of a non-negative integer of any size, in blocks."""
    blocks = []
    while value >= 10**4000:
        value, low = divmod(value, 10**4000)
        blocks.append(str(low).zfill(4000))
    return "".join([str(value), *reversed(blocks)])
