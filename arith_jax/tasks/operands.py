"""Ways to draw the two operands of a calculation, inside jit, for one example.

Each takes the example's random words and the two lengths in digits, and returns two
arrays of digits, least significant first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt

from arith_jax.tasks.digits import Words, uniform_number, word_below

Operands = tuple[Int[Array, " n"], Int[Array, " n"]]
Sampler = Callable[[Words, Int[Array, ""], Int[Array, ""]], Operands]


def uniform_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """Uniform over all numbers of the lengths: leading digits are 1 to 9."""
    a = uniform_number(words.digits[:, 0], len_a)
    return a, uniform_number(words.digits[:, 1], len_b)


def nines_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """999...9 and 1, or a longer number that is not divisible by 10."""
    _, b = uniform_operands(words, len_a, len_b)
    place = jnp.arange(b.shape[0])
    last = jnp.where(len_b == 1, 1, jnp.maximum(b, 1))
    nines = jnp.where(place < len_a, 9, jnp.zeros_like(b))
    return nines, jnp.where(place == 0, last, b)


def power_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """1000...0 and 1, or a longer number that is not divisible by 10."""
    _, b = nines_operands(words, len_a, len_b)
    place = jnp.arange(b.shape[0])
    return jnp.where(place == len_a - 1, 1, jnp.zeros_like(b)), b


class Chain(NamedTuple):
    """Where a chain begins, and the places after it, to the shorter's last digit."""

    begins: Bool[Array, " n"]
    passes: Bool[Array, " n"]


def draw_chain(words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]) -> Chain:
    """A chain from a random digit of the shorter operand on."""
    place = jnp.arange(words.digits.shape[0])
    min_length = jnp.minimum(len_a, len_b)
    start = word_below(words.choices[0], min_length)
    return Chain(place == start, (place > start) & (place < min_length))


def carry_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """One carry of their sum from a random digit of the shorter to its last digit."""
    a, b = uniform_operands(words, len_a, len_b)
    place, chain = jnp.arange(a.shape[0]), draw_chain(words, len_a, len_b)
    # A leading digit of 9 would need the other leading digit to be 0.
    a = jnp.where(place == len_a - 1, jnp.minimum(a, 8), a)
    a = jnp.where(chain.begins, jnp.maximum(a, 1), a)
    b = jnp.where(chain.begins, jnp.maximum(b, 10 - a), b)
    b = jnp.where(chain.passes, 9 - a, b)
    return a, jnp.where(place == len_b - 1, jnp.maximum(b, 1), b)


def borrow_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """One borrow of their difference from a random digit to the shorter's last."""
    a, b = uniform_operands(words, len_a, len_b)
    place, chain = jnp.arange(a.shape[0]), draw_chain(words, len_a, len_b)
    a = jnp.where(chain.begins, jnp.minimum(a, 8), a)
    b = jnp.where(chain.begins, jnp.maximum(b, a + 1), b)
    b = jnp.where(chain.passes, a, b)
    # Equal digits pass a borrow on; only a leading digit of b must not be 0.
    return a, jnp.where(place == len_b - 1, jnp.maximum(b, 1), b)


def zeros_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """Each digit but the leading ones is 0 with chance 0.7, else uniform."""
    a, b = uniform_operands(words, len_a, len_b)
    place = jnp.arange(a.shape[0])
    # Digits use words modulo 10 (or 9): the next decimal is independent of them.
    is_drawn = word_below(words.digits // 90, 10) < 3
    a = jnp.where(is_drawn[:, 0] | (place == len_a - 1), a, 0)
    return a, jnp.where(is_drawn[:, 1] | (place == len_b - 1), b, 0)


def equal_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """The same number twice; it has `len_a` digits."""
    a, _ = uniform_operands(words, len_a, len_b)
    return a, a


def repeats_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """Every digit of both numbers is one of two random values; no leading 0."""
    place = jnp.arange(words.digits.shape[0])
    word = words.choices[2]
    first, second = word_below(word, 10), word_below(word // 10, 10)
    lead = jnp.maximum(jnp.maximum(first, second), 1)

    def pick(column: UInt[Array, " n"], length: Int[Array, ""]) -> Int[Array, " n"]:
        digits = jnp.where(word_below(column // 90, 2) == 0, first, second)
        digits = jnp.where((place == length - 1) & (digits == 0), lead, digits)
        return jnp.where(place < length, digits, 0)

    return pick(words.digits[:, 0], len_a), pick(words.digits[:, 1], len_b)


def mixed_kind(
    words: UInt[Array, "*dims"], shares: Mapping[str, float], kinds: Sequence[str]
) -> Int[Array, "*dims"]:
    """Index into the kinds: each named kind with its share, else the first."""
    place, limit = word_below(words, 10**6), 0.0
    kind = jnp.zeros(words.shape, jnp.int32)
    for name, share in shares.items():
        is_inside = (place >= limit * 10**6) & (place < (limit + share) * 10**6)
        kind = jnp.where(is_inside, kinds.index(name), kind)
        limit += share
    return kind
