"""Multiplication. Imports `arithmetic`."""

from typing import ClassVar

from jaxtyping import Array, Int

from arith_jax import digits, operands, vocab
from arith_jax.arithmetic import Arithmetic


class Multiplication(Arithmetic):
    """Products: 12 x 34 is `21x43=804`."""

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

    def answer_digits(self, len_a: int, len_b: int) -> int:
        """As many as both operands' together."""
        return len_a + len_b

    def answer(
        self, a: Int[Array, " n"], b: Int[Array, " n"], longest: Int[Array, ""]
    ) -> digits.Part:
        """The product without leading zeros."""
        del longest
        product = digits.multiply_digits(a, b)
        return product + vocab.DIGIT_ZERO, digits.num_digits(product)

    def result(self, a: int, b: int, longest: int) -> str:
        """The product, by Python."""
        del longest
        return digits.digits_from_int(a * b)[::-1]
