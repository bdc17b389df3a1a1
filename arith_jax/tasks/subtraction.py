"""Subtraction, with negative results."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Int

from arith_jax import vocab
from arith_jax.tasks import digits, operands
from arith_jax.tasks.calculation import CarryingCalculation


@dataclasses.dataclass(frozen=True)
class Subtraction(CarryingCalculation):
    """Differences of non-negative numbers: 120 - 98 is `021-89=22`.

    A negative result is written in one of two ways, both least significant digit
    first, so a minus sign is its last symbol:

    - its magnitude, as in the original: 42 - 57 is `24-75=51-`. The first digit
      already depends on which operand is larger, so on their most significant digits.
    - its ten's complement (`complement`): every result has as many digits as the longer
      operand and a minus sign stands for the borrow that leaves the last place, worth
      -10^n. 42 - 57 = 85 - 100 is `24-75=58-`, and 120 - 98 is `021-89=220`. Every
      symbol then depends on digits of its own and lower places only, as in addition.

    Source:
        McLeish et al. 2024, section 4.1, which does not give the format; the original's
        generator reverses the text of the result, sign included.
    """

    complement: bool = False

    title = "subtraction"
    singular = "a difference"
    operators = "-"
    example = "1000-1"
    max_answer_symbols = 1
    samplers: ClassVar = {
        "uniform": (operands.uniform_operands, "uniform operands"),
        "powers": (operands.power_operands, "1000...0 - 1"),
        "chains": (operands.borrow_operands, "long borrow chains"),
        "zeros": (operands.zeros_operands, "operands with zeros"),
        "equal": (operands.equal_operands, "equal operands"),
        "repeats": (operands.repeats_operands, "operands of two digits"),
    }

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell of a set and its number of examples; 1000...0 - 1 has only one."""
        return (a, 1, 1) if kind == "powers" else (a, b, count)

    def answer_digits(self, len_a: int, len_b: int) -> int:
        """As many as the longer operand's."""
        return max(len_a, len_b)

    def answer_tokens(
        self, a: Int[Array, " n"], b: Int[Array, " n"], max_length: Int[Array, ""]
    ) -> digits.Segment:
        """The difference and, if it is negative, a minus sign."""
        place = jnp.arange(a.shape[0] + 1)
        difference, is_negative = digits.subtract_digits(a, b)
        length = max_length
        if not self.complement:
            swapped, _ = digits.subtract_digits(b, a)
            difference = jnp.where(is_negative, swapped, difference)
            length = digits.num_digits(difference)
        tokens = jnp.pad(difference, (0, 1)) + vocab.DIGIT_ZERO
        tokens = jnp.where(place == length, self.vocab.id("-"), tokens)
        return tokens, length + is_negative

    def answer_text(self, a: int, b: int, max_length: int) -> str:
        """The difference, by Python."""
        value = a - b
        sign = "-" if value < 0 else ""
        if self.complement:
            value %= 10**max_length
        number = digits.digits_from_int(abs(value))
        return number.zfill(max_length if self.complement else 0)[::-1] + sign

    def read_answer(self, prompt: str, answer: str) -> str:
        """Readable form of an answer: `51-`, or as complement `58-`, becomes `-15`.

        A complement of the wrong form comes back as it is, reversed.
        """
        text = super().read_answer(prompt, answer)
        max_length = max(self.sizes(prompt))
        number = text.removeprefix("-")
        if not self.complement or len(number) != max_length or not number.isdecimal():
            return text
        value = digits.int_from_digits(number)
        if not text.startswith("-"):
            return digits.digits_from_int(value)
        return "-" + digits.digits_from_int(10**max_length - value)
