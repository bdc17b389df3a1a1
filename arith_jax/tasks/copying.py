"""Copies of strings of digits."""

import dataclasses
import random
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from arith_jax import vocab
from arith_jax.checks import shown
from arith_jax.positions.schemes import Abacus, Coupled, Mirrored, Scheme
from arith_jax.tasks import digits
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.one_size import OneSizeTask
from arith_jax.tasks.task import ANY_SIZES, Layout, why_not


@dataclasses.dataclass(frozen=True)
class Copying(OneSizeTask):
    """A string of digits, zeros in front included, again: `0312=0312`.

    Attributes:
        reverse: Write it from its end: `0312=2130`.

    Source:
        A baseline of length generalization: Zhou et al. 2023 (RASP-L), Jelassi et al.
        2024 (arXiv 2402.01032).
    """

    reverse: bool = False

    vocab = vocab.ARITHMETIC
    size_axis = "digits of the string"
    answer_axis = "digit of the answer"
    max_sizes = ANY_SIZES
    max_numbers_per_row = 2
    max_symbols_per_row = 2

    @property
    def title(self) -> str:
        """Name for people."""
        return "reversed copies" if self.reverse else "copies"

    @property
    def schemes(self) -> dict[str, Scheme]:
        """The position schemes that rows can have; mirrored is that of reversal."""
        schemes: dict[str, Scheme] = {"abacus": Abacus(), "coupled": Coupled()}
        if self.reverse:
            schemes["mirrored"] = Mirrored(equals_id=self.vocab.id("="))
        return schemes

    @property
    def eval_sets(self) -> dict[str, str]:
        """Kinds of strings, which are evaluation sets.

        What stands beside a digit says least about where it is if there are only two.
        """
        return {"uniform": "uniform digits", "repeats": "two digits at most"}

    def row_width(self, length: int, _: int) -> int:
        """Tokens of a row, with `EOS`."""
        return 2 * length + 2

    def answer_width(self, length: int, _: int) -> int:
        """Tokens of an answer, without `EOS`."""
        return length

    def max_number_length(self, length: int, _: int) -> int:
        """Digits of the string."""
        return length

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
        words = jax.random.bits(key, (1 + max(layout.max_cell),))
        string = word_below(words[1:], 10)
        first, second = word_below(words[0], 10), word_below(words[0] // 10, 10)
        repeated = jnp.where(string % 2 == 0, first, second)
        if kind is not None:
            is_repeated = kind == list(self.eval_sets).index("repeats")
            string = jnp.where(is_repeated, repeated, string)
        string = string + vocab.DIGIT_ZERO
        length, place = cell[0], jnp.arange(string.shape[0])
        answer = string[length - 1 - place] if self.reverse else string
        equals, eos = jnp.array(self.vocab.encode("=")), jnp.array([vocab.EOS])
        segments = [(string, length), (equals, 1), (answer, length), (eos, 1)]
        return digits.concatenate(segments, layout.width)

    def prompt(self, expression: str) -> str:
        """Model input for a string of digits: `0312` becomes `0312=`.

        Raises:
            ValueError: If there is anything but digits.
        """
        match = re.fullmatch(r"([0-9]+)\s*=?", expression.strip())
        if match is None:
            raise ValueError(
                f"expression {shown(expression)} is not a string of digits; allowed: "
                f"one or more of 0-9, as in 0312{why_not(expression)}"
            )
        return f"{match[1]}="

    def sizes(self, prompt: str) -> tuple[int, int]:
        """Digits of the string, twice."""
        return len(prompt) - 1, len(prompt) - 1

    def read_answer(self, prompt: str, answer: str) -> str:
        """Answers are written as they are read."""
        del prompt
        return answer

    def true_answer(self, prompt: str) -> str:
        """The right answer to a prompt, by Python."""
        string = prompt.removesuffix("=")
        return string[::-1] if self.reverse else string

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        strings = ["".join(rng.choices("0123456789", k=length)) for length, _ in sizes]
        return ["0312", *strings]
