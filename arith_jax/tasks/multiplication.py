"""Multiplication, with and without the steps in between."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from arith_jax import vocab
from arith_jax.tasks import digits, operands
from arith_jax.tasks.calculation import Calculation

SEPARATOR = "+"


@dataclasses.dataclass(frozen=True)
class Multiplication(Calculation):
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
    samplers: ClassVar = {
        "uniform": (operands.uniform_operands, "uniform operands"),
        "zeros": (operands.zeros_operands, "operands with zeros"),
        "equal": (operands.equal_operands, "squares"),
        "repeats": (operands.repeats_operands, "operands of two digits"),
    }

    def __post_init__(self):
        super().__post_init__()
        if self.scratchpad and self.zero_pad:
            raise ValueError(
                "task.scratchpad=True with task.zero_pad=True: lines are as wide as "
                "the first operand; set one of them to False"
            )

    @property
    def max_numbers_per_row(self) -> int:
        """Operands and answer; no bound with a scratchpad."""
        return 0 if self.scratchpad else super().max_numbers_per_row

    def answer_digits(self, len_a: int, len_b: int) -> int:
        """As many as both operands' together, or all tokens of the scratchpad."""
        if self.scratchpad:
            return len_b * (len_a + 2) - 1
        return len_a + len_b

    def max_number_length(self, len_a: int, len_b: int) -> int:
        """Digits of the longest number in a row."""
        if self.scratchpad:
            return max(len_a + 1, len_b)
        return super().max_number_length(len_a, len_b)

    def answer_tokens(
        self, a: Int[Array, " n"], b: Int[Array, " n"], max_length: Int[Array, ""]
    ) -> digits.Segment:
        """The product without leading zeros, or the lines that end in it."""
        del max_length
        if not self.scratchpad:
            product = digits.multiply_digits(a, b)
            return product + vocab.DIGIT_ZERO, digits.num_digits(product)
        tokens = jnp.pad(partial_sums(a, b) + vocab.DIGIT_ZERO, ((0, 0), (0, 1)))
        line, place = jnp.arange(b.shape[0])[:, None], jnp.arange(a.shape[0] + 2)[None]
        end = digits.num_digits(a) + 1
        tokens = jnp.where(place == end, self.vocab.id(SEPARATOR), tokens)
        is_written = (place <= end) & (line < digits.num_digits(b))
        answer, length = digits.compact(tokens, is_written)
        return answer, length - 1

    def answer_text(self, a: int, b: int, max_length: int) -> str:
        """The product, or the lines, by Python."""
        del max_length
        if not self.scratchpad:
            return digits.digits_from_int(a * b)[::-1]
        width, lines, total = len(digits.digits_from_int(a)) + 1, [], 0
        for digit in reversed(digits.digits_from_int(b)):
            total = total // 10 + a * int(digit)
            lines.append(digits.digits_from_int(total).zfill(width)[::-1])
        return SEPARATOR.join(lines)

    def read_answer(self, prompt: str, answer: str) -> str:
        """The product, off the first digit of every line and the rest of the last."""
        if not self.scratchpad:
            return super().read_answer(prompt, answer)
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
        added = digits.add_digits(shifted, product)[:size].astype(total.dtype)
        return added, added

    _, lines = jax.lax.scan(add_line, jnp.zeros((size,), a.dtype), b)
    return lines
