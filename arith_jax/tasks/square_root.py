"""Square root with remainder, on paper."""

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
from arith_jax.positions.written_schemes import Roots
from arith_jax.tasks import digits
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.one_size import OneSizeTask
from arith_jax.tasks.subtractions import (
    BRING_DOWN,
    FIRST,
    LAST,
    MINUS,
    NEXT,
    NONE,
    ODD,
    ODD_NUMBER,
    RESTORE,
    SUBTRACT,
    SubtractionTask,
    number_below,
    write_lines,
)
from arith_jax.tasks.task import Layout, why_not

# What begins lines, in the order of the ways to make them.
MARKS = "=" + BRING_DOWN + SUBTRACT + RESTORE + ODD
SIGN = "√"
# Digits of the root: each of the two that it is made of has a group, of 8 bits.
MAX_SIZE = 123
# Digits of a line that are more than those of the root so far, and lines of a group at
# most: that which brings down, and ten pairs of an odd number and a subtraction.
EXTRA, LINES = 2, 21


@dataclasses.dataclass(frozen=True)
class SquareRoot(SubtractionTask, OneSizeTask):
    """Integer square root by subtracting odd numbers: 150 is 12 x 12 and 6.

    It is `√0510=100:100-000:300-799+0500:1200-9200:3200-6000:5200-1899/6000`, as the
    square of n is the sum of the first n odd numbers. Digits of the number are taken in
    pairs, with a zero in front if they are not even. Lines are numbers modulo a power
    of ten:

    - `=` brings down the first pair: 1;
    - `:` is the next odd number: 1, 3;
    - `-` subtracts it until the result is negative, which begins with 9 as nothing else
      that follows `-` does: 0, -3;
    - `+` adds the last odd number again and brings down the next pair: 50. The odd
      number 2p + 1 of the root p so far becomes 20p + 1, as ten times as many have been
      subtracted: 21. Both have one digit more than the lines above;
    - `/` adds the last odd number again when there is no pair left: the remainder, 6.

    The lines with `-` of a group, but for the last of them, count the root's digit. So
    no token depends on more than three lines above, each near its own place, and on one
    pair of digits.

    A cell (a, a) has roots of exactly a digits. The remainder is any number up to twice
    the root, nearly uniform.

    Source:
        Ours; the way of mechanical calculators, in ten's complements.
    """

    vocab = vocab.SQUARE_ROOT
    title = "square roots"
    size_axis = "digits of the root"
    max_sizes = (MAX_SIZE, MAX_SIZE)

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; roots are those of square roots."""
        equals, begins, sign = self.vocab.encode("=" + BRING_DOWN + SIGN)
        roots = Roots(equals_id=equals, begins_id=begins, sign_id=sign)
        return {"abacus": Abacus(), "coupled": Coupled(), "roots": roots}

    @property
    def eval_sets(self) -> dict[str, str]:
        """Kinds of numbers, which are evaluation sets."""
        return {
            "uniform": "any remainder",
            "square": "no remainder",
            "largest": "the largest remainder",
            "nines": "roots of nines and zeros",
        }

    def row_width(self, length: int, _: int) -> int:
        """Tokens of the longest row, with `EOS`."""
        return 2 * length + 3 + self.answer_width(length, length)

    def answer_width(self, length: int, _: int) -> int:
        """Tokens of all lines, if every digit of the root is 9."""
        widths = [group + EXTRA + 1 for group in range(1, length + 1)]
        # `=` is in the prompt, and the remainder is one line more.
        return LINES * sum(widths) + widths[-1] - 1

    def max_number_length(self, length: int, _: int) -> int:
        """Digits of the number, or of its last line."""
        return max(2 * length, length + EXTRA)

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
        keys = jax.random.split(key, 3)
        if kind is None:
            kind = self.draw_kind(jax.random.bits(keys[2]))
        max_length, length = max(layout.max_cell), cell[0]
        root = jax.random.bits(keys[0], (max_length,))
        rest = jax.random.bits(keys[1], (max_length + 1,))
        number = self.draw_number(root, rest, length, kind)
        lines = extract_root(number, length, self.vocab.encode(MARKS))
        sign, equals, eos = (
            jnp.array([token]) for token in (*self.vocab.encode(SIGN + "="), vocab.EOS)
        )
        prompt = [(sign, 1), (number + vocab.DIGIT_ZERO, 2 * length), (equals, 1)]
        segments = [*prompt, lines, (eos, 1)]
        return digits.concatenate(segments, layout.width)

    def draw_number(
        self,
        root: UInt[Array, " a"],
        rest: UInt[Array, " a+1"],
        length: Int[Array, ""],
        kind: Int[Array, ""] | int,
    ) -> Int[Array, " 2*a"]:
        """The square of the root, and the remainder.

        Args:
            root: Random words for its digits.
            rest: Random words for the digits of the remainder.
            length: Digits of the root.
            kind: Index into `eval_sets`.
        """
        names, place = list(self.eval_sets), jnp.arange(root.shape[0])
        number = digits.uniform_number(root, length)
        is_nine = (word_below(root // 90, 2) == 0) | (place == length - 1)
        nines = jnp.where(is_nine & (place < length), 9, 0)
        number = jnp.where(kind == names.index("nines"), nines, number)
        largest = digits.add_digits(number, number)
        # Twice a number ends with an even digit.
        remainder = number_below(rest, largest.at[0].add(1))
        remainder = jnp.where(kind == names.index("largest"), largest, remainder)
        remainder = jnp.where(kind == names.index("square"), 0, remainder)
        square = digits.multiply_digits(number, number)
        remainder = jnp.pad(remainder, (0, root.shape[0]))[: square.shape[0]]
        return digits.add_digits(square, remainder)[: square.shape[0]]

    def prompt(self, expression: str) -> str:
        """Model input for a readable square root: `sqrt(150)` becomes `√0510=`.

        Raises:
            ValueError: If it is not that of one integer above 0, or it is too long.
        """
        pattern = r"(?:sqrt\s*\(\s*(\d+)\s*\)|√\s*(\d+))\s*=?"
        match = re.fullmatch(pattern, expression.strip(), re.ASCII)
        number = (match[1] or match[2]).lstrip("0") if match else ""
        if not 0 < len(number) <= 2 * MAX_SIZE:
            raise ValueError(
                f"expression {shown(expression)} is not a square root; allowed: that "
                f"of an integer above 0 of at most {2 * MAX_SIZE} digits, as in "
                f"sqrt(150) or √150{why_not(expression)}"
            )
        return f"{SIGN}{number.zfill(len(number) + len(number) % 2)[::-1]}="

    def number(self, prompt: str) -> str:
        """The number of a prompt, most significant digit first."""
        return prompt.removeprefix(SIGN).removesuffix("=")[::-1]

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Digits of the root, twice."""
        length = len(self.number(prompt)) // 2
        return length, length

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python integers, as the model writes it."""
        number = self.number(prompt)
        answer, rest, odd, width = "", 0, 1, 0
        written = lambda value: str(value % 10**width).zfill(width)[::-1]
        for start in range(0, len(number), 2):
            width = start // 2 + 1 + EXTRA
            rest, odd = 100 * rest + int(number[start : start + 2]), 10 * odd - 9
            answer += (BRING_DOWN if start else "") + written(rest)
            answer += ODD + written(odd)
            while rest >= odd:
                rest, odd = rest - odd, odd + 2
                answer += SUBTRACT + written(rest) + ODD + written(odd)
            answer += SUBTRACT + written(rest - odd)
        return answer + RESTORE + written(rest)

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        roots = [rng.randrange(10 ** (a - 1), 10**a) for a, _ in sizes]
        numbers = [root**2 + rng.randint(0, 2 * root) for root in roots]
        return ["sqrt(150)", *(f"sqrt({number})" for number in numbers)]


def extract_root(
    number: Int[Array, " n"], count: Int[Array, ""], marks: Sequence[int]
) -> digits.Segment:
    """The lines of a square root, without the symbol that begins the first.

    Args:
        number: Its digits, least significant first.
        count: Pairs of them.
        marks: Tokens of `MARKS`.
    """
    max_groups = number.shape[0] // 2
    place, pair_places = jnp.arange(max_groups + EXTRA), jnp.arange(2)
    one = (place == 0).astype(number.dtype)

    def write_line(state: tuple[Array, Array, Array, Array], _: None):
        rest, odd, group, mark = state
        width = group + EXTRA
        written = jnp.where(mark == ODD_NUMBER, odd, rest)
        is_minus = mark == MINUS
        is_negative = is_minus & (rest[width - 1] == 9)
        restoring = jnp.where(group == count, LAST, NEXT)
        following = jnp.where(mark == ODD_NUMBER, MINUS, ODD_NUMBER)
        following = jnp.where(is_negative, restoring, following)
        following = jnp.where((mark == LAST) | (mark == NONE), NONE, following)
        less = digits.subtract_digits(rest, odd)[0]
        restored = digits.add_digits(rest, odd)[: place.shape[0]]
        less, restored = (jnp.where(place < width, x, 0) for x in (less, restored))
        pair = number[2 * jnp.maximum(count - 1 - group, 0) + pair_places]
        brought = jnp.concatenate([pair, restored[:-2]])
        rest = jnp.where(following == MINUS, less, rest)
        rest = jnp.where(following == LAST, restored, rest)
        rest = jnp.where(following == NEXT, brought, rest)
        # Ten times the even number below, and one.
        shifted = jnp.concatenate([one[:1], (odd - one)[:-1]])
        increased = digits.add_digits(odd, 2 * one)[: place.shape[0]]
        odd = jnp.where(is_minus & ~is_negative, increased, odd)
        odd = jnp.where(following == NEXT, shifted, odd)
        group = group + (following == NEXT)
        return (rest, odd, group, following), (written, mark, width)

    first = jnp.pad(number[2 * (count - 1) + pair_places], (0, max_groups + EXTRA - 2))
    start = first, one, jnp.ones((), jnp.int32), jnp.full((), FIRST)
    num_lines = LINES * max_groups + 1
    _, (numbers, mark, width) = jax.lax.scan(write_line, start, length=num_lines)
    return write_lines(numbers, mark, width, marks)
