"""Addition. Imports `arithmetic`."""

from typing import ClassVar

from jaxtyping import Array, Int

from arith_jax import digits, operands, vocab
from arith_jax.arithmetic import Arithmetic


class Addition(Arithmetic):
    """Sums: 98 + 120 is `89+021=812`."""

    title = "addition"
    singular = "a sum"
    operators = "+"
    example = "999+1"
    drawn: ClassVar = {
        "uniform": (operands.uniform_operands, "uniform operands"),
        "nines": (operands.nines_operands, "999...9 + 1"),
        "chains": (operands.carry_operands, "long carry chains"),
        "zeros": (operands.zeros_operands, "operands with zeros"),
        "equal": (operands.equal_operands, "equal operands"),
        "repeats": (operands.repeats_operands, "operands of two digits"),
    }

    def answer_digits(self, len_a: int, len_b: int) -> int:
        """One more than the longer operand's."""
        return max(len_a, len_b) + 1

    def answer(
        self, a: Int[Array, " n"], b: Int[Array, " n"], longest: Int[Array, ""]
    ) -> digits.Part:
        """The sum; the place after the longer operand's counts if it holds a carry."""
        total = digits.add_digits(a, b)
        return total + vocab.DIGIT_ZERO, longest + total[longest]

    def result(self, a: int, b: int, longest: int) -> str:
        """The sum, by Python."""
        del longest
        return digits.digits_from_int(a + b)[::-1]
