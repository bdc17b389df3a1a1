"""Bitwise OR of two vectors of bits."""

import dataclasses
import random
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.checks import shown
from arith_jax.positions.schemes import Abacus, Coupled, Scheme
from arith_jax.tasks import digits
from arith_jax.tasks.calculation import LENGTH_AXES, length_regions
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.task import ANY_SIZES, Layout, PairKinds

# Of training examples: of all strings of these lengths one is drawn with 32 bits.
MAX_DIGITS = 500


@dataclasses.dataclass(frozen=True)
class BitwiseOr:
    """Left-aligned position-wise OR: `001+00000=00100`.

    The answer is as long as the longer vector. As in the paper, the shorter vector has
    a single one, the other only zeros; with equal lengths a coin decides. Training
    draws every string of the exhaustive set alike: for lengths up to 20 these are 2870.

    Source:
        McLeish et al. 2024, appendix A.3; original `create_pos_or_variants.py`, "one
        vec zeros", without its `--max`. The operator is written `+` there.

    Attributes:
        random_bits: Draw every bit of both vectors instead, each vector with a share of
            ones of its own, and all pairs of lengths alike. A model of the paper's
            vectors cannot know what becomes of two ones.
    """

    random_bits: bool = False

    vocab = vocab.ARITHMETIC
    title = "bitwise OR"
    subtasks = ("uniform",)
    axes = LENGTH_AXES
    answer_axis = "answer digit, from the left"
    first_answer = ""
    max_sizes = ANY_SIZES
    max_numbers_per_row = 3
    max_symbols_per_row = 3
    has_lists = False
    has_blanks = False
    is_packable = False

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have."""
        return {"abacus": Abacus(), "coupled": Coupled()}

    @property
    def eval_sets(self) -> dict[str, str]:
        """The one evaluation set."""
        name = "random vectors" if self.random_bits else "all one-hot vectors"
        return {"uniform": name}

    def draw_pair_kinds(self, words: UInt[Array, "n 3"]) -> PairKinds:
        """Raises `NotImplementedError`: see `is_packable`."""
        raise NotImplementedError("vectors do not share rows")

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        return f"{a} | {b} digits"

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Where a cell is counted, given the largest trained cell."""
        return length_regions(a, b, max_cell)

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell and its number of examples: of one-hot ones there are min(a, b)."""
        del kind
        return a, b, count if self.random_bits else min(a, b, count)

    def row_width(self, len_a: int, len_b: int) -> int:
        """Tokens of a row, with `EOS`."""
        return len_a + len_b + max(len_a, len_b) + 3

    def answer_width(self, len_a: int, len_b: int) -> int:
        """Tokens of an answer, without `EOS`."""
        return max(len_a, len_b)

    def max_number_length(self, len_a: int, len_b: int) -> int:
        """Digits of the longer vector, and of the answer."""
        return max(len_a, len_b)

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """Lengths of a training example.

        (i, j) has the weight min(i, j), unless bits are random.
        """
        if self.random_bits:
            return 1 + word_below(words, jnp.array(max_cell))
        if max(max_cell) > MAX_DIGITS:
            raise ValueError(
                f"data.max_digits={max(max_cell)}: at most {MAX_DIGITS} for "
                f"{self.title}"
            )
        pairs = 1 + np.indices(max_cell).reshape(2, -1)
        ends = np.cumsum(pairs.min(axis=0))
        place = word_below(words[0], int(ends[-1]))
        return jnp.array(pairs)[:, jnp.searchsorted(jnp.array(ends), place, "right")]

    def sample(
        self,
        key: PRNGKeyArray,
        cell: Int[Array, " 2"],
        layout: Layout,
        *,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " t"]:
        """Draws one row; in evaluation one-hot example i has its one at index i."""
        len_a, len_b = cell[0], cell[1]
        if self.random_bits:
            bits = self.draw_bits(key, cell, max(layout.max_cell))
        else:
            index = None if kind is None else jnp.asarray(example)
            bits = self.draw_one(key, cell, max(layout.max_cell), index)
        operator, equals, eos = (
            jnp.array([token]) for token in (*self.vocab.encode("+="), vocab.EOS)
        )
        return digits.concatenate(
            [
                (bits[0] + vocab.DIGIT_ZERO, len_a),
                (operator, 1),
                (bits[1] + vocab.DIGIT_ZERO, len_b),
                (equals, 1),
                (jnp.max(bits, axis=0) + vocab.DIGIT_ZERO, jnp.maximum(len_a, len_b)),
                (eos, 1),
            ],
            layout.width,
        )

    def draw_one(
        self,
        key: PRNGKeyArray,
        cell: Int[Array, " 2"],
        size: int,
        index: Int[Array, ""] | None,
    ) -> Int[Array, "2 size"]:
        """A one in the shorter vector, at `index` or anywhere in it."""
        len_a, len_b = cell[0], cell[1]
        choices = jax.random.bits(key, (2,))
        if index is None:
            index = word_below(choices[0], jnp.minimum(len_a, len_b))
        one = jnp.arange(size) == index
        is_first = jnp.where(len_a == len_b, choices[1] % 2 == 0, len_a < len_b)
        return jnp.stack([one & is_first, one & ~is_first]).astype(jnp.int32)

    def draw_bits(
        self, key: PRNGKeyArray, cell: Int[Array, " 2"], size: int
    ) -> Int[Array, "2 size"]:
        """Two vectors of random bits; zeros beyond their ends.

        The words of a place do not depend on the size, as those of digits.
        """
        words = jax.random.bits(key, (2 + 2 * size,))
        bits = words[:2, None] > words[2:].reshape(size, 2).T
        return (bits & (jnp.arange(size)[None] < cell[:, None])).astype(jnp.int32)

    def prompt(self, expression: str) -> str:
        """Model input: `001|00000` becomes `001+00000=`.

        Raises:
            ValueError: If it is not an OR of two binary vectors.
        """
        match = re.fullmatch(r"([01]+)\s*[|+]\s*([01]+)\s*=?", expression.strip())
        if match is None:
            raise ValueError(
                f"expression {shown(expression)} is not a bitwise OR; allowed: two "
                "binary vectors joined by '|' or '+', as in 001|00000"
            )
        return f"{match[1]}+{match[2]}="

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Lengths of the vectors of a prompt."""
        a, b = prompt.removesuffix("=").split("+")
        return len(a), len(b)

    def read_answer(self, prompt: str, answer: str) -> str:
        """Answers are written as they are read."""
        del prompt
        return answer

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python."""
        a, b = prompt.removesuffix("=").split("+")
        pairs = zip(a.ljust(len(b), "0"), b.ljust(len(a), "0"), strict=True)
        return "".join(max(pair) for pair in pairs)

    def longest_carry(self, prompt: str) -> None:
        """None: nothing is carried."""

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        if self.random_bits:
            vector = lambda length: "".join(rng.choices("01", k=length))
            return ["0110|1", *(f"{vector(a)}|{vector(b)}" for a, b in sizes)]
        one = lambda length: "1".rjust(rng.randint(1, length), "0").ljust(length, "0")
        return ["001|00000", *(f"{one(a)}|{'0' * b}" for a, b in sizes)]
