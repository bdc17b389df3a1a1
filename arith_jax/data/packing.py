"""Several problems in one training row, exactly as if each had a row of its own.

Rows of random length are nearly half padding. Here a row holds problems whose lengths
add up to almost the same for every row: the pairs of operand lengths are sorted by the
tokens they take, and the r-th shortest shares a row with the r-th longest; for four
problems in a row such rows are sorted and joined in the same way, and so on. If r is
uniform, so is each problem's pair of lengths. The shapes stay static, and nothing is
sorted or searched at run time.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from arith_jax.config.data import DataConfig
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.task import Task


class Rows(NamedTuple):
    """All rows of operand lengths that are drawn.

    Attributes:
        lengths: [rows, problems, 2].
        max_tokens: Tokens of the longest row.
        max_targets: Largest number of predicted tokens in a row.
    """

    lengths: np.ndarray
    max_tokens: int
    max_targets: int


@functools.cache
def rows_by_width(task: Task, max_digits: int, num_problems: int) -> Rows:
    """All rows of operand lengths.

    Operands of a pair of problems, 2i and 2i + 1, can be made alike in length
    (`draw_lengths`): the counts allow for it.

    Args:
        task: Says how many tokens a problem takes.
        max_digits: Of an operand.
        num_problems: In a row; a power of two, at least 2.
    """
    # No `EOS` is read.
    tokens = lambda row: sum(task.row_width(*cell) - 1 for cell in row)
    numbers = range(1, max_digits + 1)
    cells = itertools.product(numbers, numbers)
    rows: list[tuple[tuple[int, int], ...]] = [(cell,) for cell in cells]
    alike = [((n, n), (max_digits + 1 - n,) * 2) for n in numbers]
    while len(rows[0]) < num_problems:
        rows = sorted(rows, key=lambda row: (tokens(row), row))
        rows = [a + b for a, b in zip(rows, reversed(rows), strict=True)]
    targets = lambda row: sum(task.answer_width(*cell) + 1 for cell in row)

    def largest(count: Callable[[Any], int]) -> int:
        largest_alike = max(map(count, alike))
        pairs = range(0, num_problems, 2)
        return max(
            sum(max(count(row[i : i + 2]), largest_alike) for i in pairs)
            for row in rows
        )

    return Rows(np.array(rows), largest(tokens), largest(targets))


def draw_lengths(
    task: Task, key: PRNGKeyArray, data: DataConfig, num_rows: int
) -> tuple[Int[Array, "n 2"], Int[Array, " n"]]:
    """Operand lengths and kinds of operands of the problems of rows, one after another.

    Each problem by itself has the distribution of unpacked ones: lengths uniform on 1
    to `max_digits`, independent; the task's shares of kinds; operands of one length
    where the task wants them. Problems 2i and 2i + 1 are of one kind.

    Args:
        task: A packable task.
        key: Decides everything.
        data: Problems of a row and their digits.
        num_rows: How many rows.

    Returns:
        Lengths, and indices into the task's kinds.
    """
    num_problems, max_digits = data.problems_per_row, data.max_digits
    words = jax.random.bits(key, (num_rows * num_problems // 2, 3))
    choices = rows_by_width(task, max_digits, num_problems).lengths
    rank = word_below(words[:: num_problems // 2, 0], len(choices))
    lengths = jnp.array(choices)[rank].reshape(-1, 2, 2)
    kinds, alike = task.draw_pair_kinds(words)
    first = lengths[:, :1, :1]
    equal = jnp.concatenate([first, max_digits + 1 - first], axis=1)
    lengths = jnp.where(alike[:, None, None], equal, lengths)
    return lengths.reshape(-1, 2), jnp.repeat(kinds, 2)
