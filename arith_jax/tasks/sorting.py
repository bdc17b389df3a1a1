"""Sorting lists of numbers by their keys."""

import abc
import dataclasses
import random
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import vocab
from arith_jax.checks import MAX_LENGTH, shown
from arith_jax.positions.schemes import Abacus, Coupled, Scheme
from arith_jax.positions.written_schemes import Items
from arith_jax.tasks import digits
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.lists import ListTask, Numbers
from arith_jax.tasks.task import Layout, why_not


@dataclasses.dataclass(frozen=True)
class SortingTask(ListTask):
    """Lists to sort, in which each number has a key: `a:03,b:4,c:71=`.

    Keys are consecutive symbols of a cyclic list of 102, from a random start, comma and
    colon among them.

    Attributes:
        mixed_keys: Name the numbers of training examples by any symbols, in any order.
            Consecutive keys are never further apart than the longest list trained on,
            so a model need not tell those of longer lists from each other.
        hard_lists: Share of training examples, 0 to 1, whose numbers all have b digits,
            or are two numbers repeated, in halves. Uniform lists are mostly decided by
            lengths, and seldom have equal numbers.
    """

    mixed_keys: bool = False

    max_sizes = (vocab.NUM_HINTS, MAX_LENGTH)  # there are so many keys
    vocab = vocab.SORT
    title = "sorting"
    answer_axis = "token of the answer"
    hard_kinds = ("full", "ties")

    @property
    def eval_sets(self) -> dict[str, str]:
        """Kinds of lists, which are evaluation sets."""
        return {
            "uniform": "uniform lists",
            "full": "numbers of one length",
            "close": "numbers that differ in three digits",
            "ties": "lists of two numbers, repeated",
        }

    @abc.abstractmethod
    def answer_width(self, count: int, max_digits: int) -> int:
        """Tokens of the longest answer of a cell, without `EOS`."""

    @abc.abstractmethod
    def answer_tokens(
        self, numbers: Numbers, keys: Int[Array, " m"], count: Int[Array, ""]
    ) -> digits.Segment:
        """The answer to a list of the first `count` numbers."""

    def row_width(self, count: int, max_digits: int) -> int:
        """Tokens of the longest row, with `EOS`."""
        return count * (max_digits + 3) + self.answer_width(count, max_digits) + 1

    def max_number_length(self, count: int, max_digits: int) -> int:
        """Digits of the longest number in a row."""
        del count
        return max_digits

    def draw_list(
        self,
        key: PRNGKeyArray,
        max_digits: Int[Array, ""],
        max_cell: tuple[int, int],
        kind: Int[Array, ""] | int,
    ) -> Numbers:
        """The numbers of a kind of list."""
        names = list(self.eval_sets)
        is_full = (kind == names.index("full")) | (kind == names.index("close"))
        drawn = self.draw_numbers(key, max_digits, max_cell, is_full)
        is_high = jnp.arange(max_cell[1])[None] >= jnp.minimum(3, max_digits - 1)
        close = jnp.where(is_high, drawn.digits[:1], drawn.digits)
        numbers = jnp.where(kind == names.index("close"), close, drawn.digits)
        # Each number is one of the first two, at random.
        twin = jnp.minimum(word_below(drawn.words, 2), max_cell[0] - 1)
        twin = jnp.where(kind == names.index("ties"), twin, jnp.arange(max_cell[0]))
        return Numbers(numbers[twin], drawn.lengths[twin], drawn.words)

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
        key_choices, key_numbers = jax.random.split(key)
        choices = jax.random.bits(key_choices, (2,))
        item = jnp.arange(layout.max_cell[0])
        symbols = digits.hint_ids(self.vocab)
        keys = symbols[(digits.hint_start(choices[0]) + item) % len(symbols)]
        if kind is None:
            kind = self.draw_kind(choices[1])
            if self.mixed_keys:
                keys = jax.random.permutation(key_choices, symbols)[item]
        drawn = self.draw_list(key_numbers, max_digits, layout.max_cell, kind)
        numbers, lengths, _ = drawn
        colon, comma, equals = self.vocab.encode(":,=")
        ends = jnp.where(item == count - 1, equals, comma)
        place = jnp.arange(layout.max_cell[1] + 3)[None]
        tokens = jnp.pad(numbers + vocab.DIGIT_ZERO, ((0, 0), (2, 1)))
        tokens = jnp.where(place == 0, keys[:, None], tokens)
        tokens = jnp.where(place == 1, colon, tokens)
        tokens = jnp.where(place == lengths[:, None] + 2, ends[:, None], tokens)
        is_written = (place <= lengths[:, None] + 2) & (item < count)[:, None]
        prompt = digits.compact(tokens, is_written)
        answer = self.answer_tokens(drawn, keys, count)
        end = (jnp.array([vocab.EOS]), 1)
        return digits.concatenate([prompt, answer, end], layout.width)

    def prompt(self, expression: str) -> str:
        """Model input for a list: `30,4,17` becomes `A:03,B:4,C:71=`.

        Raises:
            ValueError: If it is not a list of non-negative integers, 102 at most.
        """
        numbers = [text.strip() for text in expression.removesuffix("=").split(",")]
        is_list = all(text.isascii() and text.isdecimal() for text in numbers)
        if not is_list or len(numbers) > len(vocab.HINTS):
            raise ValueError(
                f"expression {shown(expression)} is not a list to sort; allowed: 1 to "
                f"{len(vocab.HINTS)} non-negative integers with commas, as in 30,4,17"
                f"{why_not(expression)}"
            )
        values = [(number.lstrip("0") or "0")[::-1] for number in numbers]
        pairs = zip(vocab.HINTS, values, strict=False)
        return ",".join(f"{key}:{value}" for key, value in pairs) + "="

    def items(self, prompt: str) -> list[tuple[str, str]]:
        """Keys and numbers of a prompt, most significant digit first."""
        pairs = re.findall(r"(.):(\d+)[,=]", prompt)
        return [(key, number[::-1]) for key, number in pairs]

    def numbers_of_keys(self, prompt: str) -> dict[str, str]:
        """Each key's number, as it is read, without leading zeros."""
        return {key: n.lstrip("0") or "0" for key, n in self.items(prompt)}

    def sizes(self, prompt: str) -> tuple[int, int]:
        """How many numbers a prompt has, and the most digits of one."""
        items = self.items(prompt)
        return len(items), max(len(number) for _, number in items)

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        draw = lambda length: rng.randrange(10 ** rng.randint(1, length))
        number = lambda length: digits.digits_from_int(draw(length))
        lists = [[number(length) for _ in range(count)] for count, length in sizes]
        return ["30,4,17", *(",".join(numbers) for numbers in lists)]


@dataclasses.dataclass(frozen=True)
class Sorting(SortingTask):
    """Keys of a list in ascending order of their numbers: `a:03,b:4,c:71=b,c,a`.

    Equal numbers keep their order.

    With a scratchpad the answer is an insertion sort, `a:03,b:4,c:71=a,ba,bca`: line i
    has the first i keys in order. It is the line before with one more key, whose place
    follows from comparing its number with one other at a time.

    Attributes:
        scratchpad: Write all lines; the last one is the answer.

    Source:
        McLeish et al. 2024, section 4.3 and appendix A.2; original generator
        `bucket_uniform_distribution --reverse_all`. Ours: the options.
    """

    scratchpad: bool = False

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; items are those of written work."""
        schemes: dict[str, Scheme] = {"abacus": Abacus(), "coupled": Coupled()}
        if self.scratchpad:
            schemes["items"] = Items(equals_id=self.vocab.id("="))
        return schemes

    @property
    def first_answer(self) -> str:
        """The paper's second measure; without meaning in written work."""
        return "" if self.scratchpad else "smallest number found"

    def answer_width(self, count: int, max_digits: int) -> int:
        """Tokens of an answer: keys and the commas between them, or between lines."""
        del max_digits
        return count * (count + 3) // 2 - 1 if self.scratchpad else 2 * count - 1

    def answer_tokens(
        self, numbers: Numbers, keys: Int[Array, " m"], count: Int[Array, ""]
    ) -> digits.Segment:
        """The keys in order, or all lines of an insertion sort."""
        write = insertion_sort if self.scratchpad else ordered_keys
        return write(numbers.digits, keys, count, self.vocab.id(","))

    def read_answer(self, prompt: str, answer: str) -> str:
        """The numbers in the order of an answer; `?` where it names no key."""
        numbers = self.numbers_of_keys(prompt)
        keys = answer[-len(numbers) :] if self.scratchpad else answer[::2]
        return ",".join(numbers.get(key, "?") for key in keys)

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python, as the model writes it."""
        value = lambda item: digits.int_from_digits(item[1])
        items = self.items(prompt)
        first, between = (1, "") if self.scratchpad else (len(items), ",")
        counts = range(first, len(items) + 1)
        lines = (sorted(items[:count], key=value) for count in counts)
        return ",".join(between.join(key for key, _ in line) for line in lines)


def ordered_keys(
    numbers: Int[Array, "m d"],
    keys: Int[Array, " m"],
    count: Int[Array, ""],
    comma: int,
) -> digits.Segment:
    """The keys in order, with commas between them."""
    rank = ranks(numbers, jnp.arange(keys.shape[0]) < count)
    ordered = jnp.zeros_like(keys).at[rank].set(keys, mode="drop")
    answer = jnp.stack([ordered, jnp.full_like(ordered, comma)], axis=1)
    return answer.reshape(-1), 2 * count - 1


def insertion_sort(
    numbers: Int[Array, "m d"],
    keys: Int[Array, " m"],
    count: Int[Array, ""],
    comma: int,
) -> digits.Segment:
    """The first 1, 2, ... keys in order, with commas between these lines."""
    item = jnp.arange(keys.shape[0])
    rank = jax.vmap(lambda line: ranks(numbers, item <= line))(item)
    lines = jnp.full((keys.shape[0], keys.shape[0] + 1), comma)
    lines = jax.vmap(lambda line, at: line.at[at + 1].set(keys, mode="drop"))(
        lines, rank
    )
    place = jnp.arange(keys.shape[0] + 1)[None]
    is_written = (place <= item[:, None] + 1) & (item < count)[:, None]
    tokens, length = digits.compact(lines, is_written)
    # `=` is where the first line's comma would be.
    return tokens[1:], length - 1


def ranks(numbers: Int[Array, "m d"], valid: Bool[Array, " m"]) -> Int[Array, " m"]:
    """Place of each number in ascending order; equal ones keep theirs.

    Numbers that do not count get place m, past the end.
    """
    # less[i, j]: number j is less than number i.
    less = digits.is_less(numbers[None, :], numbers[:, None])
    item = jnp.arange(numbers.shape[0])
    precedes = less | (~less.T & (item[None, :] < item[:, None]))
    rank = jnp.sum(precedes & valid[None, :], axis=1)
    return jnp.where(valid, rank, numbers.shape[0])
