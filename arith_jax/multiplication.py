"""Multiplication. Imports `arithmetic`."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from arith_jax import digits, operands, vocab
from arith_jax.arithmetic import Arithmetic

SEPARATOR = "+"


@dataclasses.dataclass(frozen=True)
class Multiplication(Arithmetic):
    """Products: 12 x 34 is `21x43=804`.

    With a scratchpad the answer is schoolbook multiplication, a line for each digit of
    the second operand. Line j is what the first j digits make of the product, without
    its j - 1 lowest digits, which lines before have as their first: 12 x 34 is
    `21x43=840+040`, because 12 x 4 = 048 and 4 + 12 x 3 = 040. Every line has one digit
    more than the first operand, and depends on a few digits above it at each place.

    Attributes:
        scratchpad: Write all lines; the product is read off them.

    Source:
        Scratchpads: Nye et al. 2021; for multiplication with several position ids Cho
        et al. 2024b (arXiv 2410.15787). This one, which never copies a number: ours.
    """

    scratchpad: bool = False

    title = "multiplication"
    singular = "a product"
    operators = "x*"
    example = "99x99"
    drawn: ClassVar = {
        "uniform": (operands.uniform_operands, "uniform operands"),
        "zeros": (operands.zeros_operands, "operands with zeros"),
        "equal": (operands.equal_operands, "squares"),
        "repeats": (operands.repeats_operands, "operands of two digits"),
    }

    def __post_init__(self):
        super().__post_init__()
        if self.scratchpad and self.zero_pad:
            raise ValueError(
                "data.scratchpad=True with data.zero_pad=True: lines are as wide as "
                "the first operand; set one of them to False"
            )

    @property
    def num_numbers(self) -> int:
        """Operands and answer; no bound with a scratchpad."""
        return 0 if self.scratchpad else super().num_numbers

    def answer_digits(self, len_a: int, len_b: int) -> int:
        """As many as both operands' together, or all tokens of the scratchpad."""
        if self.scratchpad:
            return len_b * (len_a + 2) - 1
        return len_a + len_b

    def longest_number(self, len_a: int, len_b: int) -> int:
        """Most digits of any number in a row."""
        if self.scratchpad:
            return max(len_a + 1, len_b)
        return super().longest_number(len_a, len_b)

    def answer(
        self, a: Int[Array, " n"], b: Int[Array, " n"], longest: Int[Array, ""]
    ) -> digits.Part:
        """The product without leading zeros, or the lines that end in it."""
        del longest
        if not self.scratchpad:
            product = digits.multiply_digits(a, b)
            return product + vocab.DIGIT_ZERO, digits.num_digits(product)
        tokens = jnp.pad(partial_sums(a, b) + vocab.DIGIT_ZERO, ((0, 0), (0, 1)))
        line, place = jnp.arange(b.shape[0])[:, None], jnp.arange(a.shape[0] + 2)[None]
        end = digits.num_digits(a) + 1
        tokens = jnp.where(place == end, self.vocab.id(SEPARATOR), tokens)
        kept = (place <= end) & (line < digits.num_digits(b))
        answer, length = digits.pack(tokens.reshape(-1), kept.reshape(-1), tokens.size)
        return answer, length - 1

    def result(self, a: int, b: int, longest: int) -> str:
        """The product, or the lines, by Python."""
        del longest
        if not self.scratchpad:
            return digits.digits_from_int(a * b)[::-1]
        width, lines, total = len(digits.digits_from_int(a)) + 1, [], 0
        for digit in reversed(digits.digits_from_int(b)):
            total = total // 10 + a * int(digit)
            lines.append(digits.digits_from_int(total).zfill(width)[::-1])
        return SEPARATOR.join(lines)

    def read(self, prompt: str, answer: str) -> str:
        """The product, off the first digit of every line and the rest of the last."""
        if not self.scratchpad:
            return super().read(prompt, answer)
        *lines, last = answer.split(SEPARATOR)
        number = "".join(line[:1] for line in lines) + last
        return number[::-1].lstrip("0") or number[:1]


def partial_sums(a: Int[Array, " n"], b: Int[Array, " m"]) -> Int[Array, "m n+1"]:
    """Digits of the running sum of schoolbook multiplication after each digit of b.

    Line j is floor(line j-1 / 10) + a * b[j]; line 0 is a * b[0].
    """
    size = a.shape[0] + 1

    def add_line(total: Int[Array, " k"], digit: Int[Array, ""]):
        product = digits.multiply_digits(a, digit[None])
        shifted = jnp.pad(total[1:], (0, 1))
        total = digits.add_digits(shifted, product)[:size]
        return total, total

    _, lines = jax.lax.scan(add_line, jnp.zeros((size,), a.dtype), b)
    return lines
