"""Division with remainder, on paper."""

import dataclasses
import random
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.checks import shown
from arith_jax.positions.schemes import Abacus, Coupled, Scheme
from arith_jax.positions.written_schemes import Groups
from arith_jax.tasks import digits
from arith_jax.tasks.calculation import length_regions
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.subtractions import (
    BRING_DOWN,
    FIRST,
    LAST,
    MINUS,
    NEXT,
    NONE,
    RESTORE,
    SUBTRACT,
    SubtractionTask,
    number_below,
    write_lines,
)
from arith_jax.tasks.task import Layout, PairKinds, why_not

# What begins lines, in the order of the ways to make them.
MARKS = "=" + BRING_DOWN + SUBTRACT + RESTORE
# Digits of quotient and divisor: each digit of a dividend has a group, of 8 bits.
MAX_SIZE = 123


@dataclasses.dataclass(frozen=True)
class Division(SubtractionTask):
    """Long division by repeated subtraction: 47 / 3 is 15 remainder 2.

    It is `74/3=40-10-89+71-41-11-80-50-20-99/20`. Each line is a number of one digit
    more than the divisor, modulo a power of ten, made of the line before it:

    - `=` brings down the first digit of the dividend: 4;
    - `-` subtracts the divisor until the result is negative, which begins with 9 as
      nothing else that follows `-` does: 1, -2;
    - `+` adds the divisor again and brings down the next digit: 17;
    - `/` adds the divisor again when there is no digit left: the remainder, 2.

    The lines with `-` after a digit, but for the last of them, count the quotient's
    digit. So no token depends on more than the line above and the divisor, each near
    its own place, and on one digit of the dividend.

    A cell (a, b) has quotients of exactly a digits and divisors of exactly b. The
    remainder is any number below the divisor, nearly uniform.

    Source:
        Ours; in ten's complements, as non-restoring division in hardware is.
    """

    vocab = vocab.DIVISION
    title = "division"
    axes = ("digits of the quotient", "digits of the divisor")
    max_sizes = (MAX_SIZE, MAX_SIZE)

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; groups are those of division."""
        equals, begins = self.vocab.encode("=" + BRING_DOWN)
        groups = Groups(equals_id=equals, begins_id=begins)
        return {"abacus": Abacus(), "coupled": Coupled(), "groups": groups}

    @property
    def eval_sets(self) -> dict[str, str]:
        """Kinds of problems, which are evaluation sets."""
        return {
            "uniform": "any remainder",
            "exact": "no remainder",
            "largest": "the largest remainder",
            "below": "a dividend below the divisor",
        }

    def draw_pair_kinds(self, words: UInt[Array, "n 3"]) -> PairKinds:
        """Raises `NotImplementedError`: see `is_packable`."""
        raise NotImplementedError("divisions do not share rows")

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"quotient {a}, divisor {b} digits"

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained cell."""
        return length_regions(a, b, max_cell)

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell of a set; a quotient of 0 has one digit."""
        return (1, b, count) if kind == "below" else (a, b, count)

    def row_width(self, len_quotient: int, len_divisor: int) -> int:
        """Tokens of the longest row, with `EOS`."""
        answer = self.answer_width(len_quotient, len_divisor)
        return len_quotient + 2 * len_divisor + 2 + answer + 1

    def answer_width(self, len_quotient: int, len_divisor: int) -> int:
        """Tokens of all lines, if every digit of the quotient is 9."""
        return max_lines(len_quotient, len_divisor) * (len_divisor + 2) - 1

    def max_number_length(self, len_quotient: int, len_divisor: int) -> int:
        """Digits of the dividend."""
        return len_quotient + len_divisor

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Sizes of a training example: uniform and independent."""
        return 1 + word_below(words, jnp.array(max_cell))

    def sample(
        self,
        key: PRNGKeyArray,
        cell: Int[Array, " 2"],
        layout: Layout,
        *,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " t"]:
        """Draws one row: prompt, answer, `EOS`, then `PAD`; see `task.Task`."""
        del example  # the key already differs
        keys = jax.random.split(key, 4)
        if kind is None:
            kind = self.draw_kind(jax.random.bits(keys[3]))
        max_quotient, max_divisor = layout.max_cell
        quotient = jax.random.bits(keys[0], (max_quotient,))
        divisor = jax.random.bits(keys[1], (max_divisor,))
        rest = jax.random.bits(keys[2], (max_divisor,))
        divisor = digits.uniform_number(divisor, cell[1])
        dividend = self.draw_dividend(quotient, divisor, rest, cell, kind)
        answer = long_division(
            dividend, divisor, max_lines(*layout.max_cell), self.vocab.encode(MARKS)
        )
        slash, equals, eos = (
            jnp.array([token]) for token in (*self.vocab.encode("/="), vocab.EOS)
        )
        segments = [
            (dividend + vocab.DIGIT_ZERO, digits.num_digits(dividend)),
            (slash, 1),
            (divisor + vocab.DIGIT_ZERO, cell[1]),
            (equals, 1),
            answer,
            (eos, 1),
        ]
        return digits.concatenate(segments, layout.width)

    def draw_dividend(
        self,
        quotient: UInt[Array, " a"],
        divisor: Int[Array, " b"],
        rest: UInt[Array, " b"],
        cell: Int[Array, " 2"],
        kind: Int[Array, ""] | int,
    ) -> Int[Array, " a+b"]:
        """Quotient times divisor plus remainder.

        Args:
            quotient: Random words for its digits.
            divisor: Its digits.
            rest: Random words for the digits of the remainder.
            cell: Digits of quotient and divisor.
            kind: Index into `eval_sets`.
        """
        names, place = list(self.eval_sets), jnp.arange(divisor.shape[0])
        remainder = number_below(rest, divisor)
        largest, _ = digits.subtract_digits(divisor, (place == 0).astype(jnp.int32))
        remainder = jnp.where(kind == names.index("largest"), largest, remainder)
        remainder = jnp.where(kind == names.index("exact"), 0, remainder)
        number = digits.uniform_number(quotient, cell[0])
        number = jnp.where(kind == names.index("below"), 0, number)
        product = digits.multiply_digits(number, divisor)
        remainder = jnp.pad(remainder, (0, number.shape[0]))
        return digits.add_digits(product, remainder)[: product.shape[0]]

    def prompt(self, expression: str) -> str:
        """Model input for a readable division: `47/3` becomes `74/3=`.

        Raises:
            ValueError: If it is not one of two non-negative integers, or they are too
                long, or the second is 0.
        """
        pattern = r"(\d+)\s*[/÷]\s*(\d+)\s*=?"
        match = re.fullmatch(pattern, expression.strip(), re.ASCII)
        numbers = [n.lstrip("0") or "0" for n in match.groups()] if match else []
        if not numbers or max(map(len, numbers)) > 2 * MAX_SIZE or numbers[1] == "0":
            raise ValueError(
                f"expression {shown(expression)} is not a division; allowed: two "
                f"non-negative integers of at most {2 * MAX_SIZE} digits joined by "
                f"'/' or '÷', the second above 0, as in 100/7{why_not(expression)}"
            )
        return f"{numbers[0][::-1]}/{numbers[1][::-1]}="

    def operands(self, prompt: str) -> tuple[str, str]:
        """Dividend and divisor of a prompt, most significant digit first."""
        dividend, divisor = prompt.removesuffix("=").split("/")
        return dividend[::-1], divisor[::-1]

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Digits of the quotient and of the divisor."""
        dividend, divisor = self.operands(prompt)
        return len(str(int(dividend) // int(divisor))), len(divisor)

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers, as the model writes it."""
        digits_of_dividend, divisor = self.operands(prompt)
        width, value = len(divisor) + 1, int(divisor)
        written = lambda number: str(number % 10**width).zfill(width)[::-1]
        answer, rest = "", 0
        for index, digit in enumerate(digits_of_dividend):
            rest = 10 * rest + int(digit)
            answer += (BRING_DOWN if index else "") + written(rest)
            while rest >= 0:
                rest -= value
                answer += SUBTRACT + written(rest)
            rest += value
        return answer + RESTORE + written(rest)

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        draw = lambda length: rng.randrange(10 ** (length - 1), 10**length)
        texts = []
        for len_quotient, len_divisor in sizes:
            divisor = draw(len_divisor)
            dividend = draw(len_quotient) * divisor + rng.randrange(divisor)
            texts.append(f"{dividend}/{divisor}")
        return ["100/7", *texts]


def max_lines(len_quotient: int, len_divisor: int) -> int:
    """Lines at most: two a digit of the dividend, those that count, and the last."""
    return 2 * (len_quotient + len_divisor) + 9 * len_quotient + 1


def long_division(
    dividend: Int[Array, " n"],
    divisor: Int[Array, " m"],
    num_lines: int,
    marks: Sequence[int],
) -> digits.Segment:
    """The lines of a division, without the symbol that begins the first.

    Args:
        dividend: Its digits.
        divisor: Its digits.
        num_lines: As many lines as there can be.
        marks: Tokens of `MARKS`.
    """
    count = digits.num_digits(dividend)
    width = digits.num_digits(divisor) + 1
    divisor = jnp.pad(divisor, (0, 1))
    place = jnp.arange(divisor.shape[0])

    def write_line(state: tuple[Array, Array, Array], _: None):
        number, group, mark = state
        is_negative = (mark == MINUS) & (number[width - 1] == 9)
        restoring = jnp.where(group == count, LAST, NEXT)
        following = jnp.where(is_negative, restoring, MINUS)
        following = jnp.where((mark == LAST) | (mark == NONE), NONE, following)
        less = digits.subtract_digits(number, divisor)[0]
        restored = digits.add_digits(number, divisor)[: place.shape[0]]
        digit = dividend[jnp.maximum(count - 1 - group, 0)]
        brought = jnp.concatenate([digit[None], restored[:-1]])
        result = jnp.where(following == NEXT, brought, restored)
        result = jnp.where(following == MINUS, less, result)
        result = jnp.where(place < width, result, 0)
        return (result, group + (following == NEXT), following), (number, mark)

    first = jnp.where(place == 0, dividend[count - 1], 0)
    start = (first, jnp.ones((), jnp.int32), jnp.full((), FIRST))
    _, (numbers, mark) = jax.lax.scan(write_line, start, length=num_lines)
    return write_lines(numbers, mark, width[None], marks)
