"""Tasks: exact sampling inside jit for one example, and the truth on the host.

Everything that runs on the device works on arrays of digits, least significant digit
first, so no number ever overflows an integer. Imports `vocab` only.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import vocab

# Random words of one example: a few for its shape, then two for each digit place. One
# draw for everything keeps compilation short, and a one-dimensional draw makes the
# digits independent of how many are asked for. A word modulo 10 is uniform to 1e-9.
NUM_CHOICES = 4
Operands = tuple[Int[Array, " n"], Int[Array, " n"]]


class Words(NamedTuple):
    """Random words of one example, uniform on 0 to 2^32 - 1."""

    choices: UInt[Array, " 4"]
    digits: UInt[Array, "n 2"]


def random_words(key: PRNGKeyArray, max_digits: int) -> Words:
    """All random words of one example."""
    words = jax.random.bits(key, (NUM_CHOICES + 2 * max_digits,))
    return Words(words[:NUM_CHOICES], words[NUM_CHOICES:].reshape(max_digits, 2))


def word_below(
    word: UInt[Array, "*dims"], limit: Int[Array, ""] | int
) -> Int[Array, "*dims"]:
    """An integer from 0 to `limit` - 1 out of a random word."""
    return (word % jnp.asarray(limit).astype(jnp.uint32)).astype(jnp.int32)


def uniform_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """Uniform over all numbers of the lengths: leading digits are 1 to 9."""
    place = jnp.arange(words.digits.shape[0])

    def digits(words: UInt[Array, " n"], length: Int[Array, ""]) -> Int[Array, " n"]:
        is_lead = place == length - 1
        drawn = jnp.where(is_lead, 1 + word_below(words, 9), word_below(words, 10))
        return jnp.where(place < length, drawn, 0)

    return digits(words.digits[:, 0], len_a), digits(words.digits[:, 1], len_b)


def nines_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """999...9 plus 1, or plus a longer number that is not divisible by 10."""
    _, b = uniform_operands(words, len_a, len_b)
    place = jnp.arange(b.shape[0])
    last = jnp.where(len_b == 1, 1, jnp.maximum(b, 1))
    return jnp.where(place < len_a, 9, 0), jnp.where(place == 0, last, b)


def chain_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """One carry from a random digit of the shorter operand on to its last digit."""
    a, b = uniform_operands(words, len_a, len_b)
    place = jnp.arange(a.shape[0])
    shorter = jnp.minimum(len_a, len_b)
    start = word_below(words.choices[0], shorter)
    # A leading digit of 9 would need the other leading digit to be 0.
    a = jnp.where(place == len_a - 1, jnp.minimum(a, 8), a)
    a = jnp.where(place == start, jnp.maximum(a, 1), a)
    b = jnp.where(place == start, jnp.maximum(b, 10 - a), b)
    b = jnp.where((place > start) & (place < shorter), 9 - a, b)
    return a, jnp.where(place == len_b - 1, jnp.maximum(b, 1), b)


def zeros_operands(
    words: Words, len_a: Int[Array, ""], len_b: Int[Array, ""]
) -> Operands:
    """Each digit but the leading ones is 0 with chance 0.7, else uniform."""
    a, b = uniform_operands(words, len_a, len_b)
    place = jnp.arange(a.shape[0])
    # Digits use words modulo 10 (or 9): the next decimal is independent of them.
    kept = word_below(words.digits // 90, 10) < 3
    a = jnp.where(kept[:, 0] | (place == len_a - 1), a, 0)
    return a, jnp.where(kept[:, 1] | (place == len_b - 1), b, 0)


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


# Ways to draw the operands of a sum; `uniform` is the training distribution.
OPERANDS = {
    "uniform": uniform_operands,
    "nines": nines_operands,
    "chains": chain_operands,
    "zeros": zeros_operands,
    "equal": equal_operands,
    "repeats": repeats_operands,
}


@dataclasses.dataclass(frozen=True)
class Addition:
    """Sums written least significant digit first: 98 + 120 is `89+021=812`.

    Attributes:
        zero_pad: Write both operands with as many digits as the longer one.
        carry_chains: Share of training examples, 0 to 1, given one long carry chain.
        repeats: Share of training examples with two different digits at most, half of
            them with operands of one length. Most of what a window can show next to
            the ends of two numbers is rare among uniform digits (999 + 999).
        blanks: Chance, 0 to 1, of a blank (`PAD`) before each token of the prompt.

    Source:
        McLeish et al. 2024, section 3 and appendix; original generator `--reverse_all`.
        Zero padding after Cho et al. 2024 (both operands; the answer stays natural).
    """

    zero_pad: bool = False
    carry_chains: float = 0.0
    repeats: float = 0.0
    blanks: float = 0.0

    vocab = vocab.ARITHMETIC
    operator = "+"
    num_numbers = 3  # in a row: both operands and the answer
    num_symbols = 3  # in a row without blanks: operator, equals, EOS

    def __post_init__(self):
        for name in ("carry_chains", "repeats", "blanks"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"data.{name}={getattr(self, name)}: must be between 0 and 1"
                )
        if self.carry_chains + self.repeats > 1.0:
            raise ValueError(
                f"data.carry_chains={self.carry_chains} and data.repeats="
                f"{self.repeats}: together at most 1"
            )

    def row_width(self, len_a: int, len_b: int) -> int:
        """Tokens of the longest row with operands of these lengths, `EOS` included."""
        longest = max(len_a, len_b)
        operands = 2 * longest if self.zero_pad else len_a + len_b
        prompt = operands + 2
        # Blanks are cut at twice the prompt, which p <= 1/2 reaches once in a lifetime.
        return prompt * (2 if self.blanks else 1) + longest + 2

    def longest_number(self, len_a: int, len_b: int) -> int:
        """Most digits of any number in a row: the answer's."""
        return max(len_a, len_b) + 1

    def longest_in_prompt(self, prompt: str) -> int:
        """Most digits of any operand of a prompt."""
        return max(len(part) for part in prompt.removesuffix("=").split(self.operator))

    def sample(
        self,
        key: PRNGKeyArray,
        len_a: Int[Array, ""],
        len_b: Int[Array, ""],
        max_digits: int,
        width: int,
        kind: Int[Array, ""] | int = 0,
    ) -> Int[Array, " {width}"]:
        """Draws one row: prompt, answer, `EOS`, then `PAD`.

        Args:
            key: Decides the example; the row does not depend on `width`.
            len_a: Digits of the first operand, 1 to `max_digits`.
            len_b: Digits of the second operand, 1 to `max_digits`.
            max_digits: Size of the digit arrays.
            width: Length of the row, at least `row_width` of the lengths.
            kind: Index into `OPERANDS`; the first, uniform, obeys `carry_chains` and
                `repeats`.
        """
        key_words, key_blank = jax.random.split(key)
        words = random_words(key_words, max_digits)
        shares = {"chains": self.carry_chains, "repeats": self.repeats}
        if sum(shares.values()) > 0:
            drawn = mixed_kind(words.choices[1], shares)
            repeats = list(OPERANDS).index("repeats")
            alike = (drawn == repeats) & (words.choices[3] % 2 == 0)
            len_b = jnp.where((kind == 0) & alike, len_a, len_b)
            kind = jnp.where(kind == 0, drawn, kind)
        if isinstance(kind, int):
            a, b = list(OPERANDS.values())[kind](words, len_a, len_b)
        else:
            a, b = jax.lax.switch(kind, list(OPERANDS.values()), words, len_a, len_b)
        len_b = jnp.where(kind == list(OPERANDS).index("equal"), len_a, len_b)
        total = add_digits(a, b)
        longest = jnp.maximum(len_a, len_b)
        len_sum = longest + total[longest]
        if self.zero_pad:
            len_a = len_b = longest
        digit = vocab.DIGIT_ZERO
        operator, equals, eos = (
            jnp.array([token])
            for token in (*self.vocab.encode(self.operator + "="), vocab.EOS)
        )
        prompt = [(a + digit, len_a), (operator, 1), (b + digit, len_b), (equals, 1)]
        if self.blanks > 0:
            prompt_width = 2 * (2 * max_digits + 2)
            row = concatenate(prompt, prompt_width)
            len_prompt = len_a + len_b + 2
            prompt = [insert_blanks(key_blank, row, len_prompt, self.blanks)]
        return concatenate([*prompt, (total + digit, len_sum), (eos, 1)], width)

    def prompt(self, expression: str) -> str:
        """Model input for a readable sum: `98+120` becomes `89+021=`.

        Raises:
            ValueError: If the expression is not a sum of two non-negative integers.
        """
        match = re.fullmatch(r"\s*(\d+)\s*\+\s*(\d+)\s*=?\s*", expression, re.ASCII)
        if match is None:
            raise ValueError(
                f"expression {expression!r} is not a sum; "
                "allowed: two non-negative integers joined by '+', as in 98+120"
            )
        a, b = (str(int_from_digits(number)) for number in match.groups())
        if self.zero_pad:
            longest = max(len(a), len(b))
            a, b = a.zfill(longest), b.zfill(longest)
        return f"{a[::-1]}+{b[::-1]}="

    def read(self, answer: str) -> str:
        """Readable form of an answer of the model: `812` becomes `218`."""
        return answer[::-1]

    def truth(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers, as the model writes it."""
        a, b = prompt.replace(" ", "").removesuffix("=").split("+")
        total = int_from_digits(a[::-1]) + int_from_digits(b[::-1])
        return digits_from_int(total)[::-1]


def mixed_kind(word: UInt[Array, ""], shares: Mapping[str, float]) -> Int[Array, ""]:
    """Index into `OPERANDS`: each named kind with its share, else uniform."""
    place, limit, kind = word_below(word, 10**6), 0.0, jnp.int32(0)
    for name, share in shares.items():
        inside = (place >= limit * 10**6) & (place < (limit + share) * 10**6)
        kind = jnp.where(inside, list(OPERANDS).index(name), kind)
        limit += share
    return kind


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


def add_digits(a: Int[Array, " n"], b: Int[Array, " n"]) -> Int[Array, " n+1"]:
    """Exact sum of two numbers given as digits, least significant first.

    A digit pair passes the carry of the nearest lower pair on if its sum is 9, and
    decides it otherwise, so one running maximum over "place of the last decision, and
    what it was" gives every carry at logarithmic depth.
    """
    sums = a + b
    decision = 2 * jnp.arange(1, sums.shape[0] + 1) + (sums >= 10)
    carry_out = jax.lax.cummax(jnp.where(sums == 9, 0, decision)) % 2
    return (jnp.pad(sums, (0, 1)) + jnp.pad(carry_out, (1, 0))) % 10


def concatenate(
    parts: Sequence[tuple[Int[Array, " _"], Int[Array, ""] | int]], width: int
) -> Int[Array, " {width}"]:
    """Joins the first `length` tokens of each part; the rest of the row is `PAD`."""
    place = jnp.arange(width)
    source = jnp.zeros((width,), jnp.int32)
    start, offset = 0, 0
    for tokens, length in parts:
        source = jnp.where(place >= start, offset + place - start, source)
        start, offset = start + length, offset + tokens.shape[0]
    tokens = jnp.concatenate([tokens for tokens, _ in parts])
    # The last part may end before the row does: those places become PAD.
    return jnp.where(place < start, tokens[jnp.minimum(source, offset - 1)], vocab.PAD)


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
    used = place < length
    blanks = jnp.cumsum(jax.random.bernoulli(key, chance, (width,)) & used)
    blanks = jnp.minimum(blanks, width - length)
    target = jnp.where(used, place + blanks, width)
    spread = jnp.full((width,), vocab.PAD, row.dtype).at[target].set(row, mode="drop")
    return spread, length + blanks[-1]
