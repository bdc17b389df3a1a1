"""Addition."""

import itertools
from typing import ClassVar

from jaxtyping import Array, Int

from arith_jax import vocab
from arith_jax.tasks import digits, operands
from arith_jax.tasks.calculation import CarryingCalculation


class Addition(CarryingCalculation):
    """Sums: 98 + 120 is `89+021=812`."""

    title = "addition"
    singular = "a sum"
    operators = "+"
    example = "999+1"
    samplers: ClassVar = {
        "uniform": (operands.uniform_operands, "uniform operands"),
        "nines": (operands.nines_operands, "999...9 + 1"),
        "chains": (operands.carry_operands, "long carry chains"),
        "zeros": (operands.zeros_operands, "operands with zeros"),
        "equal": (operands.equal_operands, "equal operands"),
        "repeats": (operands.repeats_operands, "operands of two digits"),
    }

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell of a set and its number of examples; 999...9 + 1 has only one."""
        return (a, 1, 1) if kind == "nines" else (a, b, count)

    def answer_digits(self, len_a: int, len_b: int) -> int:
        """One more than the longer operand's."""
        return max(len_a, len_b) + 1

    def answer_tokens(
        self, a: Int[Array, " n"], b: Int[Array, " n"], max_length: Int[Array, ""]
    ) -> digits.Segment:
        """The sum; the place after the longer operand's counts if it holds a carry."""
        total = digits.add_digits(a, b)
        return total + vocab.DIGIT_ZERO, max_length + total[max_length]

    def answer_text(self, a: int, b: int, max_length: int) -> str:
        """The sum, by Python."""
        del max_length
        return digits.digits_from_int(a + b)[::-1]

    def longest_carry(self, prompt: str) -> int:
        """Places that the longest carry of a written sum travels."""
        a, b = (number[::-1] for number in self.operands(prompt))
        carry = length = max_length = 0
        for pair in itertools.zip_longest(a, b, fillvalue="0"):
            carry = int(sum(map(int, pair)) + carry > 9)
            length = length + 1 if carry else 0
            max_length = max(max_length, length)
        return max_length
