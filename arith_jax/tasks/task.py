"""What a task is: all that the rest of the package knows of one."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt

from arith_jax import vocab
from arith_jax.checks import MAX_LENGTH
from arith_jax.positions.schemes import Scheme

# Of a task whose examples can have any sizes.
ANY_SIZES = (MAX_LENGTH, MAX_LENGTH)
# Of pairs of problems: index into `eval_sets`, and whether both operands of a problem
# have one length.
PairKinds = tuple[Int[Array, " n"], Bool[Array, " n"]]


class Layout(NamedTuple):
    """Static sizes of a row.

    Attributes:
        max_cell: Largest sizes (a, b) that the arrays hold.
        width: Tokens of the row.
    """

    max_cell: tuple[int, int]
    width: int


@runtime_checkable
class Task(Protocol):
    """A family of exercises, each written as one row: prompt, `=`, answer, `EOS`.

    A cell is a pair of sizes (a, b), such as the lengths of two operands. A task is
    a frozen dataclass, so it can be a static argument of jit. Its fields are the
    options of the config section `task`, and it decides everything but the random
    numbers.
    """

    @property
    def title(self) -> str:
        """Name for people."""
        ...

    @property
    def vocab(self) -> vocab.Vocab:
        """The symbols; `=` occurs exactly once in a row."""
        ...

    @property
    def schemes(self) -> Mapping[str, Scheme]:
        """The position schemes that rows can have, by their names in a config."""
        ...

    @property
    def eval_sets(self) -> Mapping[str, str]:
        """Evaluation sets and what they are, for people, in the order of `kind`."""
        ...

    @property
    def subtasks(self) -> tuple[str, ...]:
        """Evaluation sets on the grid and the diagonal, whose counts are added up."""
        ...

    @property
    def axes(self) -> tuple[str, str]:
        """What a and b are, for people."""
        ...

    @property
    def answer_axis(self) -> str:
        """What the places of an answer are, for people."""
        ...

    @property
    def first_answer(self) -> str:
        """What it means if the first answer token is right; empty: nothing special."""
        ...

    @property
    def max_sizes(self) -> tuple[int, int]:
        """Largest a and b that can be written and numbered."""
        ...

    @property
    def max_numbers_per_row(self) -> int:
        """Numbers in a row, at most, for attention in blocks; 0: no bound."""
        ...

    @property
    def max_symbols_per_row(self) -> int:
        """Tokens that are no digits, at most, with `EOS`; for attention in blocks."""
        ...

    @property
    def has_lists(self) -> bool:
        """Whether the first size of a cell is the length of a list."""
        ...

    @property
    def has_blanks(self) -> bool:
        """Whether there are blanks (`PAD`) inside the prompts of training."""
        ...

    @property
    def is_packable(self) -> bool:
        """Whether several problems can share a training row."""
        ...

    def draw_pair_kinds(self, words: UInt[Array, "n 3"], /) -> PairKinds:
        """Kinds of operands of pairs of problems that share a row; inside jit.

        Args:
            words: Random words of each pair. The first one is not used: it decides the
                lengths of the operands.

        Returns:
            The kind of each pair, and whether the operands of each of its problems
            have one length.

        Raises:
            NotImplementedError: If the task is not packable.
        """
        ...

    def cell_label(self, a: int, b: int) -> str:
        """The size of an example, for people."""
        ...

    def regions(self, a: int, b: int, max_cell: tuple[int, int]) -> tuple[str, ...]:
        """Names of the sums in which a cell counts: `id` or `ood`, and others.

        Args:
            a: First size of the cell.
            b: Second size of the cell.
            max_cell: Largest sizes of training examples.
        """
        ...

    def cell(self, kind: str, a: int, b: int, count: int) -> tuple[int, int, int]:
        """The cell that stands for (a, b) in an evaluation set, and its examples.

        Args:
            kind: Name of the set.
            a: First size.
            b: Second size.
            count: Number of examples that the config asks for.

        Returns:
            Sizes of the cell, and its number of examples: `count`, or all there are.
        """
        ...

    def row_width(self, a: int, b: int, /) -> int:
        """Tokens of the longest row of a cell, with `EOS`."""
        ...

    def answer_width(self, a: int, b: int, /) -> int:
        """Tokens of the longest answer of a cell, without `EOS`."""
        ...

    def max_number_length(self, a: int, b: int, /) -> int:
        """Digits of the longest number in any row of a cell."""
        ...

    def draw_cell(
        self, words: UInt[Array, " 2"], max_cell: tuple[int, int]
    ) -> Int[Array, " 2"]:
        """The cell of a training example, from two random words; inside jit."""
        ...

    def sample(
        self,
        key: PRNGKeyArray,
        cell: Int[Array, " 2"],
        layout: Layout,
        *,
        kind: Int[Array, ""] | int | None = None,
        example: Int[Array, ""] | int = 0,
    ) -> Int[Array, " t"]:
        """Draws one row, with `PAD` after its end; inside jit and vmap.

        Args:
            key: Decides the example; the tokens do not depend on the layout.
            cell: Sizes, from 1 to those of the layout.
            layout: Sizes of the arrays, and the width of the row, which is at least
                `row_width` of the cell; static.
            kind: Index into `eval_sets`; None: a training example.
            example: Number of an evaluation example in its cell.
        """
        ...

    def prompt(self, expression: str) -> str:
        """Model input for a readable expression.

        Raises:
            ValueError: If the expression is not one of this task.
        """
        ...

    def sizes(self, prompt: str) -> tuple[int, int]:
        """The cell of a prompt."""
        ...

    def read_answer(self, prompt: str, answer: str) -> str:
        """Readable form of an answer, right or wrong, as the model writes it."""
        ...

    def true_answer(self, prompt: str) -> str:
        """The right answer, by Python integers, as the model should write it."""
        ...

    def longest_carry(self, prompt: str) -> int | None:
        """Places that the longest carry of a prompt travels; 0 if nothing is carried.

        None: the task has no carries.
        """
        ...

    def examples(
        self, rng: random.Random, sizes: Sequence[tuple[int, int]]
    ) -> list[str]:
        """A telling expression, and a random one of each size."""
        ...


def why_not(expression: str) -> str:
    """What an expression has that no task reads: other digits than 0-9, a sign."""
    for symbol in expression:
        if symbol.isdigit() and not symbol.isascii():
            return f"; {symbol!r} is a digit, but not one of 0-9"
    if re.search(r"(^|[-+*x,])\s*[-+]\s*[0-9]", expression):
        return "; numbers have no sign"
    return ""
