"""Sorting lists of numbers by their keys. Imports `digits` and `arithmetic`."""

import dataclasses
import random
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt

from arith_jax import digits, vocab
from arith_jax.arithmetic import length_regions
from arith_jax.digits import word_below


@dataclasses.dataclass(frozen=True)
class Sorting:
    """Keys of a list in ascending order of their numbers: `a:03,b:4,c:71=b,c,a`.

    A cell (a, b) has lists of exactly a numbers with at most b digits: the number of
    digits of each is uniform on 1 to b, then the number is uniform. Numbers are written
    least significant digit first; equal numbers keep their order. Keys are consecutive
    symbols of a cyclic list of 102, from a random start, comma and colon among them.

    With a scratchpad the answer is an insertion sort, `a:03,b:4,c:71=a,ba,bca`: line i
    has the first i keys in order. It is the line before with one more key, whose place
    is found by comparing its number with one other at a time.

    Attributes:
        scratchpad: Write all lines; the last one is the answer.
        mixed_keys: Name the numbers of training examples by any symbols, in any order.
            Consecutive keys are never further apart than the longest list trained on,
            so a model need not tell those of longer lists from each other.
        hard_lists: Share of training examples, 0 to 1, whose numbers all have b digits,
            or are two numbers repeated, in halves. Uniform lists are mostly decided by
            lengths, and seldom have equal numbers.

    Source:
        McLeish et al. 2024, section 4.3 and appendix A.2; original generator
        `bucket_uniform_distribution --reverse_all`. Ours: the others.
    """

    scratchpad: bool = False
    mixed_keys: bool = False
    hard_lists: float = 0.0

    vocab = vocab.SORT
    title = "sorting"
    parts = ("uniform",)
    axes = ("numbers in the list", "most digits of a number")
    answer_axis = "token of the answer"
    # Numbers and symbols grow with the list: attention in blocks has no bound.
    num_numbers = 0
    num_symbols = 0

    def __post_init__(self):
        if not 0.0 <= self.hard_lists <= 1.0:
            raise ValueError(
                f"data.hard_lists={self.hard_lists}: must be between 0 and 1"
            )

    @property
    def kinds(self) -> dict[str, str]:
        """Kinds of lists, which are evaluation sets."""
        return {
            "uniform": "uniform lists",
            "full": "numbers of one length",
            "close": "numbers that differ in three digits",
            "ties": "lists of two numbers, repeated",
        }

    @property
    def first_answer(self) -> str:
        """The paper's second measure; on its own it means nothing in written work."""
        return "" if self.scratchpad else "smallest number found"

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} numbers, {b} digits"

    def regions(self, a: int, b: int, most: tuple[int, int]) -> tuple[str, ...]:
        """Inside training or not, and which of the two sizes is beyond it.

        Source:
            The paper's "OOD number length", "OOD array length" and "all OOD".
        """
        named = {(False, True): "ood_digits", (True, False): "ood_numbers"}
        beyond = (a > most[0], b > most[1])
        inner = (named.get(beyond, "ood_both"),) if any(beyond) else ()
        return (*length_regions(a, b, most), *inner)

    def cell(self, kind: str, a: int, b: int, wanted: int) -> tuple[int, int, int]:
        """The cell of a set and its number of examples."""
        del kind
        return a, b, wanted

    def row_width(self, count: int, most_digits: int) -> int:
        """Tokens of the longest row, `EOS` included."""
        return count * (most_digits + 3) + self.answer_width(count, most_digits) + 1

    def answer_width(self, count: int, most_digits: int) -> int:
        """Tokens of an answer: keys and the commas between them, or between lines."""
        del most_digits
        return count * (count + 3) // 2 - 1 if self.scratchpad else 2 * count - 1

    def longest_number(self, count: int, most_digits: int) -> int:
        """Most digits of any number in a row."""
        del count
        return most_digits

    def draw_cell(
        self, words: UInt[Array, " 2"], most: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Sizes of a training example: uniform and independent."""
        return 1 + word_below(words, jnp.array(most))

    def draw_numbers(
        self,
        key: PRNGKeyArray,
        most_digits: Int[Array, ""],
        sizes: tuple[int, int],
        kind: Int[Array, ""] | int,
    ) -> tuple[Int[Array, "m d"], Int[Array, " m"]]:
        """Digits of every number and their count, by kind of list."""
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(sizes[0]))
        words = jax.vmap(lambda k: jax.random.bits(k, (sizes[1] + 1,)))(keys)
        lengths = 1 + word_below(words[:, 0], most_digits)
        names = list(self.kinds)
        full = (kind == names.index("full")) | (kind == names.index("close"))
        lengths = jnp.where(full, most_digits, lengths)
        numbers = jax.vmap(digits.uniform_number)(words[:, 1:], lengths)
        is_high = jnp.arange(sizes[1])[None] >= jnp.minimum(3, most_digits - 1)
        close = jnp.where(is_high, numbers[:1], numbers)
        numbers = jnp.where(kind == names.index("close"), close, numbers)
        # Each number is one of the first two, at random.
        twin = jnp.minimum(word_below(words[:, 0] // 1000, 2), sizes[0] - 1)
        twin = jnp.where(kind == names.index("ties"), twin, jnp.arange(sizes[0]))
        return numbers[twin], lengths[twin]

    def sample(
        self,
        key: PRNGKeyArray,
        count: Int[Array, ""],
        most_digits: Int[Array, ""],
        sizes: tuple[int, int],
        width: int,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " {width}"]:
        """Draws one row: prompt, answer, `EOS`, then `PAD`; see `tasks.Task`."""
        del example  # the key already differs
        key_choices, key_numbers = jax.random.split(key)
        choices = jax.random.bits(key_choices, (2,))
        item, symbols = jnp.arange(sizes[0]), digits.hint_ids(self.vocab)
        keys = symbols[(digits.hint_start(choices[0]) + item) % len(symbols)]
        if kind is None:
            place = word_below(choices[1], 10**6)
            names = list(self.kinds)
            kind = jnp.where(place % 2 == 0, names.index("full"), names.index("ties"))
            kind = jnp.where(place < self.hard_lists * 10**6, kind, 0)
            if self.mixed_keys:
                keys = jax.random.permutation(key_choices, symbols)[item]
        numbers, lengths = self.draw_numbers(key_numbers, most_digits, sizes, kind)
        colon, comma, equals = self.vocab.encode(":,=")
        ends = jnp.where(item == count - 1, equals, comma)
        place = jnp.arange(sizes[1] + 3)[None]
        tokens = jnp.pad(numbers + vocab.DIGIT_ZERO, ((0, 0), (2, 1)))
        tokens = jnp.where(place == 0, keys[:, None], tokens)
        tokens = jnp.where(place == 1, colon, tokens)
        tokens = jnp.where(place == lengths[:, None] + 2, ends[:, None], tokens)
        kept = (place <= lengths[:, None] + 2) & (item < count)[:, None]
        prompt = digits.pack(tokens.reshape(-1), kept.reshape(-1), tokens.size)
        answer = (written if self.scratchpad else in_order)(numbers, keys, count, comma)
        parts = [prompt, answer, (jnp.array([vocab.EOS]), 1)]
        return digits.concatenate(parts, width)

    def prompt(self, expression: str) -> str:
        """Model input for a list: `30,4,17` becomes `A:03,B:4,C:71=`.

        Raises:
            ValueError: If it is not a list of non-negative integers, 102 at most.
        """
        numbers = [part.strip() for part in expression.removesuffix("=").split(",")]
        is_list = all(part.isascii() and part.isdecimal() for part in numbers)
        if not is_list or len(numbers) > len(vocab.HINTS):
            raise ValueError(
                f"expression {expression!r} is not a list to sort; allowed: 1 to "
                f"{len(vocab.HINTS)} non-negative integers with commas, as in 30,4,17"
            )
        values = [str(digits.int_from_digits(number))[::-1] for number in numbers]
        pairs = zip(vocab.HINTS, values, strict=False)
        return ",".join(f"{key}:{value}" for key, value in pairs) + "="

    def items(self, prompt: str) -> list[tuple[str, str]]:
        """Keys and numbers of a prompt, most significant digit first."""
        found = re.findall(r"(.):(\d+)[,=]", prompt)
        return [(key, number[::-1]) for key, number in found]

    def sizes(self, prompt: str) -> tuple[int, int]:
        """How many numbers a prompt has, and the most digits of one."""
        items = self.items(prompt)
        return len(items), max(len(number) for _, number in items)

    def read(self, prompt: str, answer: str) -> str:
        """The numbers in the order of an answer; `?` where it names no key."""
        numbers = {key: str(digits.int_from_digits(n)) for key, n in self.items(prompt)}
        keys = answer[-len(numbers) :] if self.scratchpad else answer[::2]
        return ",".join(numbers.get(key, "?") for key in keys)

    def truth(self, prompt: str) -> str:
        """The right answer to a prompt, by Python, as the model writes it."""
        value = lambda item: digits.int_from_digits(item[1])
        items = self.items(prompt)
        first, between = (1, "") if self.scratchpad else (len(items), ",")
        counts = range(first, len(items) + 1)
        lines = (sorted(items[:count], key=value) for count in counts)
        return ",".join(between.join(key for key, _ in line) for line in lines)

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        number = lambda most: str(rng.randrange(10 ** rng.randint(1, most)))
        lists = [[number(most) for _ in range(count)] for count, most in sizes]
        return ["30,4,17", *(",".join(numbers) for numbers in lists)]


def in_order(
    numbers: Int[Array, "m d"],
    keys: Int[Array, " m"],
    count: Int[Array, ""],
    comma: int,
) -> digits.Part:
    """The keys in order, with commas between them."""
    rank = ranks(numbers, jnp.arange(keys.shape[0]) < count)
    ordered = jnp.zeros_like(keys).at[rank].set(keys, mode="drop")
    answer = jnp.stack([ordered, jnp.full_like(ordered, comma)], axis=1)
    return answer.reshape(-1), 2 * count - 1


def written(
    numbers: Int[Array, "m d"],
    keys: Int[Array, " m"],
    count: Int[Array, ""],
    comma: int,
) -> digits.Part:
    """The first 1, 2, ... keys in order, with commas between these lines."""
    item = jnp.arange(keys.shape[0])
    rank = jax.vmap(lambda line: ranks(numbers, item <= line))(item)
    lines = jnp.full((keys.shape[0], keys.shape[0] + 1), comma)
    lines = jax.vmap(lambda line, at: line.at[at + 1].set(keys, mode="drop"))(
        lines, rank
    )
    place = jnp.arange(keys.shape[0] + 1)[None]
    kept = (place <= item[:, None] + 1) & (item < count)[:, None]
    tokens, length = digits.pack(lines.reshape(-1), kept.reshape(-1), lines.size)
    # `=` is where the first line's comma would be.
    return tokens[1:], length - 1


def ranks(numbers: Int[Array, "m d"], valid: Bool[Array, " m"]) -> Int[Array, " m"]:
    """Place of each number in ascending order; equal ones keep theirs.

    Numbers that do not count get place m, past the end.
    """
    # less[i, j]: number j is less than number i.
    less = digits.is_less(numbers[None, :], numbers[:, None])
    item = jnp.arange(numbers.shape[0])
    ahead = less | (~less.T & (item[None, :] < item[:, None]))
    rank = jnp.sum(ahead & valid[None, :], axis=1)
    return jnp.where(valid, rank, numbers.shape[0])
