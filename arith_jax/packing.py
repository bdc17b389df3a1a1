"""Several problems in one training row, exactly as if each had a row of its own.

Rows of random length are nearly half padding. Here a row holds problems whose lengths
add up to almost the same for every row: the pairs of operand lengths are sorted by the
tokens they take, and the r-th shortest shares a row with the r-th longest; for four
problems in a row such rows are sorted and joined in the same way, and so on. If r is
uniform, so is each problem's pair of lengths. The shapes stay static, and nothing is
sorted or searched at run time.
Imports `vocab`, `positions` and `arithmetic`.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import positions, vocab
from arith_jax.arithmetic import Arithmetic, mixed_kind
from arith_jax.digits import word_below


class PackedBatch(NamedTuple):
    """Rows of several problems each, then `PAD`.

    A problem is read up to its last answer digit: its `EOS` is a label, never read.
    `mask` is True where the label counts; `lengths` are the tokens of each problem.
    """

    ids: Int[Array, "b t"]
    positions: Int[Array, "b t"]
    labels: Int[Array, "b t"]
    mask: Bool[Array, "b t"]
    lengths: Int[Array, "b n"]


@functools.cache
def rows_by_width(
    task: Arithmetic, max_digits: int, problems: int
) -> tuple[np.ndarray, int, int]:
    """All rows of operand lengths that are drawn.

    Operands of a pair of problems, 2i and 2i + 1, can be made alike in length
    (`draw_lengths`): the counts allow for it.

    Args:
        task: Says how many tokens a problem takes.
        max_digits: Of an operand.
        problems: In a row; a power of two, at least 2.

    Returns:
        Lengths [r problems 2]; most tokens of a row; most of its answers.
    """
    # No `EOS` is read.
    tokens = lambda row: sum(task.row_width(*cell) - 1 for cell in row)
    numbers = range(1, max_digits + 1)
    cells = itertools.product(numbers, numbers)
    rows: list[tuple[tuple[int, int], ...]] = [(cell,) for cell in cells]
    alike = [((n, n), (max_digits + 1 - n,) * 2) for n in numbers]
    while len(rows[0]) < problems:
        rows = sorted(rows, key=lambda row: (tokens(row), row))
        rows = [a + b for a, b in zip(rows, reversed(rows), strict=True)]
    answers = lambda row: sum(task.answer_width(*cell) + 1 for cell in row)

    def most(count: Callable[[Any], int]) -> int:
        other = max(map(count, alike))
        halves = range(0, problems, 2)
        return max(
            sum(max(count(row[i : i + 2]), other) for i in halves) for row in rows
        )

    return np.array(rows), most(tokens), most(answers)


def draw_lengths(
    task: Arithmetic, key: PRNGKeyArray, rows: int, max_digits: int, problems: int
) -> tuple[Int[Array, "n 2"], Int[Array, " n"]]:
    """Operand lengths and kinds of operands of the problems of rows, one after another.

    Each problem by itself has the distribution of unpacked ones: lengths uniform on 1
    to `max_digits`, independent; the task's shares of kinds; operands of one length in
    half of the `repeats`. Problems 2i and 2i + 1 are of one kind.

    Returns:
        Lengths, and indices into the task's kinds.
    """
    words = jax.random.bits(key, (rows * problems // 2, 3))
    choices, _, _ = rows_by_width(task, max_digits, problems)
    rank = word_below(words[:: problems // 2, 0], len(choices))
    lengths = jnp.array(choices)[rank].reshape(-1, 2, 2)
    shares = {"chains": task.carry_chains, "repeats": task.repeats}
    if not sum(shares.values()):
        return lengths.reshape(-1, 2), jnp.zeros((rows * problems,), jnp.int32)
    kinds = list(task.drawn)
    kind = jax.vmap(lambda word: mixed_kind(word, shares, kinds))(words[:, 1])
    alike = (kind == kinds.index("repeats")) & (words[:, 2] % 2 == 0)
    first = lengths[:, :1, :1]
    equal = jnp.concatenate([first, max_digits + 1 - first], axis=1)
    lengths = jnp.where(alike[:, None, None], equal, lengths)
    return lengths.reshape(-1, 2), jnp.repeat(kind, 2)


def join(
    ids: Int[Array, "n t"],
    abacus: Int[Array, "n t"],
    mask: Bool[Array, "n t"],
    problems: int,
    width: int,
) -> PackedBatch:
    """Puts as many problems as wanted, one after another, into each row.

    Args:
        ids: A problem a row, `PAD` after its `EOS`, the last token `PAD` in any case.
        abacus: Abacus id of every token.
        mask: True at the tokens that must be predicted.
        problems: In a row.
        width: Tokens of a row.
    """
    longest = ids.shape[1] - 1
    lengths = jnp.argmax(ids == vocab.EOS, axis=1).reshape(-1, problems)
    ends = jnp.cumsum(lengths, axis=1)[:, None, :-1]
    place = jnp.arange(width)[None]
    own = jnp.sum(ends <= place[..., None], axis=-1)
    inside = place - positions.problem_starts(lengths, width)
    index = own * longest + jnp.minimum(inside, longest - 1)

    def joined(values: Array) -> Array:
        rows = values.reshape(-1, problems * longest)
        return jnp.take_along_axis(rows, index, axis=1)

    inputs = jnp.where(ids == vocab.EOS, vocab.PAD, ids)[:, :-1]
    return PackedBatch(
        joined(inputs),
        joined(abacus[:, :-1]),
        joined(ids[:, 1:]),
        joined(mask[:, 1:]),
        lengths,
    )


def count_in_problems(
    values: Bool[Array, "b t"], batch: PackedBatch
) -> Int[Array, "b n"]:
    """Tokens of each problem where a value is True."""
    first = jnp.cumsum(batch.lengths, axis=1) - batch.lengths
    start = positions.problem_starts(batch.lengths, values.shape[1])
    own = start[:, None, :] == first[:, :, None]
    return jnp.sum(own & values[:, None, :], axis=2)
