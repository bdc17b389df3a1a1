"""Bitwise OR of a one-hot and a zero vector."""

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
from arith_jax.tasks.task import Layout, PairKinds

# Of training examples: of all strings of these lengths one is drawn with 32 bits.
MAX_DIGITS = 500


@dataclasses.dataclass(frozen=True)
class BitwiseOr:
    """Left-aligned position-wise OR: `001+00000=00100`.

    The shorter vector has a single one, the other only zeros; with equal lengths a coin
    decides. The answer is as long as the longer vector. Training draws every string of
    the exhaustive set alike: for lengths up to 20 these are 2870.

    Source:
        McLeish et al. 2024, appendix A.3; original `create_pos_or_variants.py`, "one
        vec zeros", without its `--max`. The operator is written `+` there.
    """

    vocab = vocab.ARITHMETIC
    title = "bitwise OR"
    subtasks = ("uniform",)
    axes = LENGTH_AXES
    answer_axis = "answer digit, from the left"
    first_answer = ""
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
        return {"uniform": "all one-hot vectors"}

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
        """The cell and its number of examples: there are only min(a, b)."""
        del kind
        return a, b, min(a, b, count)

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
        """Lengths of a training example: (i, j) with weight min(i, j)."""
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
        """Draws one row; in evaluation example i has its one at index i."""
        len_a, len_b = cell[0], cell[1]
        place = jnp.arange(max(layout.max_cell))
        choices = jax.random.bits(key, (2,))
        index = word_below(choices[0], jnp.minimum(len_a, len_b))
        one = (place == (index if kind is None else example)).astype(jnp.int32)
        is_first = jnp.where(len_a == len_b, choices[1] % 2 == 0, len_a < len_b)
        zero = jnp.zeros_like(one)
        operator, equals, eos = (
            jnp.array([token]) for token in (*self.vocab.encode("+="), vocab.EOS)
        )
        return digits.concatenate(
            [
                (jnp.where(is_first, one, zero) + vocab.DIGIT_ZERO, len_a),
                (operator, 1),
                (jnp.where(is_first, zero, one) + vocab.DIGIT_ZERO, len_b),
                (equals, 1),
                (one + vocab.DIGIT_ZERO, jnp.maximum(len_a, len_b)),
                (eos, 1),
            ],
            layout.width,
        )

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
        one = lambda length: "1".rjust(rng.randint(1, length), "0").ljust(length, "0")
        return ["001|00000", *(f"{one(a)}|{'0' * b}" for a, b in sizes)]
