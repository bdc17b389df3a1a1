"""Sums of many numbers."""

import dataclasses
import random
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import vocab
from arith_jax.checks import MAX_LENGTH, shown
from arith_jax.positions import written
from arith_jax.positions.schemes import Abacus, Coupled, Scheme
from arith_jax.positions.written_schemes import Terms
from arith_jax.tasks import digits
from arith_jax.tasks.lists import ListTask, Numbers
from arith_jax.tasks.task import Layout, why_not


@dataclasses.dataclass(frozen=True)
class MultiAddition(ListTask):
    """Sums of many numbers: 12 + 34 + 5 is `21+43+5=15`.

    With a scratchpad the answer has all running sums, `21+43+5=21+64+15`: line i is
    the line before it plus number i, and the first line is the first number.

    Attributes:
        scratchpad: Write all running sums; the last one is the answer.
        hard_lists: Share of training examples, 0 to 1, whose numbers all have b digits,
            or give long carries as well, in halves.

    Source:
        The task: Cho et al. 2024b (arXiv 2410.15787), whose scratchpad has the running
        sums, too, padded to one width; here they are as long as they are.
    """

    scratchpad: bool = False

    vocab = vocab.ARITHMETIC
    title = "sums of many numbers"
    answer_axis = "token of the answer"
    first_answer = ""
    hard_kinds = ("full", "chains")
    # Every number has two lines, which are counted with 16 bits.
    max_sizes = (2**15 - written.FIRST, MAX_LENGTH)

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; terms are those of running sums."""
        schemes: dict[str, Scheme] = {"abacus": Abacus(), "coupled": Coupled()}
        if self.scratchpad:
            schemes["terms"] = Terms(equals_id=self.vocab.id("="))
        return schemes

    @property
    def eval_sets(self) -> dict[str, str]:
        """Kinds of lists, which are evaluation sets."""
        return {
            "uniform": "uniform lists",
            "full": "numbers of one length",
            "chains": "long carry chains",
        }

    def row_width(self, count: int, max_digits: int) -> int:
        """Tokens of the longest row, with `EOS`."""
        return count * (max_digits + 1) + self.answer_width(count, max_digits) + 1

    def answer_width(self, count: int, max_digits: int) -> int:
        """Tokens of an answer: the sum, or all of them with symbols between them."""
        widths = [sum_digits(index, max_digits) for index in range(1, count + 1)]
        return sum(widths) + count - 1 if self.scratchpad else widths[-1]

    def max_number_length(self, count: int, max_digits: int) -> int:
        """Digits of the longest number in a row."""
        return sum_digits(count, max_digits)

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
        count, max_digits = cell[0], cell[1]
        key_kind, key_numbers = jax.random.split(key)
        if kind is None:
            kind = self.draw_kind(jax.random.bits(key_kind))
        is_chain = kind == list(self.eval_sets).index("chains")
        is_full = kind != 0
        drawn = self.draw_numbers(key_numbers, max_digits, layout.max_cell, is_full)
        numbers, sums = running_sums(drawn, is_chain)
        plus, equals = self.vocab.encode("+=")
        item = jnp.arange(layout.max_cell[0])
        ends = jnp.where(item == count - 1, equals, plus)
        prompt = lines(numbers, drawn.lengths, ends, count)
        lengths = jax.vmap(digits.num_digits)(sums)
        if self.scratchpad:
            tokens, length = lines(sums, lengths, jnp.full_like(item, plus), count)
            answer = tokens, length - 1
        else:
            answer = sums[count - 1] + vocab.DIGIT_ZERO, lengths[count - 1]
        end = (jnp.array([vocab.EOS]), 1)
        return digits.concatenate([prompt, answer, end], layout.width)

    def prompt(self, expression: str) -> str:
        """Model input for a readable sum: `12+34+5` becomes `21+43+5=`.

        Raises:
            ValueError: If it is not two or more non-negative integers joined by `+`.
        """
        parts = expression.strip().removesuffix("=").split("+")
        numbers = [part.strip() for part in parts]
        is_sum = all(number.isascii() and number.isdecimal() for number in numbers)
        if not is_sum or not 2 <= len(numbers) <= self.max_sizes[0]:
            raise ValueError(
                f"expression {shown(expression)} is not a sum; allowed: 2 to "
                f"{self.max_sizes[0]} non-negative integers joined by '+', as in "
                f"12+34+5{why_not(expression)}"
            )
        values = [(number.lstrip("0") or "0")[::-1] for number in numbers]
        return "+".join(values) + "="

    def numbers(self, prompt: str) -> list[str]:
        """The numbers of a prompt, most significant digit first."""
        return [number[::-1] for number in prompt.removesuffix("=").split("+")]

    def sizes(self, prompt: str) -> tuple[int, int]:
        """How many numbers a prompt has, and the most digits of one."""
        numbers = self.numbers(prompt)
        return len(numbers), max(map(len, numbers))

    def read_answer(self, prompt: str, answer: str) -> str:
        """The sum, which is all of an answer or its last line."""
        del prompt
        return answer.rpartition("+")[2][::-1]

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python, as the model writes it."""
        total, sums = 0, []
        for number in self.numbers(prompt):
            total += digits.int_from_digits(number)
            sums.append(digits.digits_from_int(total)[::-1])
        return "+".join(sums) if self.scratchpad else sums[-1]

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        draw = lambda length: rng.randrange(10 ** rng.randint(1, length))
        number = lambda length: digits.digits_from_int(draw(length))
        sums = [[number(length) for _ in range(count)] for count, length in sizes]
        return ["99+1+900", *("+".join(numbers) for numbers in sums)]


def sum_digits(count: int, max_digits: int) -> int:
    """Digits that a sum of so many numbers has at most."""
    return max_digits + (len(str(count - 1)) if count > 1 else 0)


def lines(
    numbers: Int[Array, "m d"],
    lengths: Int[Array, " m"],
    ends: Int[Array, " m"],
    count: Int[Array, ""],
) -> digits.Segment:
    """The first `count` numbers, each with the token after it."""
    place = jnp.arange(numbers.shape[1] + 1)[None]
    tokens = jnp.pad(numbers + vocab.DIGIT_ZERO, ((0, 0), (0, 1)))
    tokens = jnp.where(place == lengths[:, None], ends[:, None], tokens)
    item = jnp.arange(numbers.shape[0])[:, None]
    return digits.compact(tokens, (place <= lengths[:, None]) & (item < count))


def running_sums(
    drawn: Numbers, is_chain: Bool[Array, ""] | bool
) -> tuple[Int[Array, "m d"], Int[Array, "m s"]]:
    """The numbers, and the digits of the sum of the first 1, 2, ... of them.

    Args:
        drawn: The numbers.
        is_chain: Whether every other number makes the sum before it 999...9 as far as
            it reaches, so that the number after it carries to the end.
    """
    count, width = drawn.digits.shape
    size = sum_digits(count, width)
    place = jnp.arange(width)

    def add_number(total: Int[Array, " s"], item: tuple[Array, Array, Array]):
        number, length, is_complement = item
        nines = jnp.where(place < length, 9 - total[:width], 0)
        # A number of several digits does not begin with 0.
        is_lead = (place == length - 1) & (length > 1)
        nines = jnp.where(is_lead, jnp.maximum(nines, 1), nines)
        number = jnp.where(is_complement, nines, number)
        added = digits.add_digits(total, jnp.pad(number, (0, size - width)))
        total = added[:size].astype(total.dtype)
        return total, (number, total)

    is_complement = (jnp.arange(count) % 2 == 1) & is_chain
    start = jnp.zeros((size,), drawn.digits.dtype)
    items = drawn.digits, drawn.lengths, is_complement
    _, (numbers, sums) = jax.lax.scan(add_number, start, items)
    return numbers, sums
