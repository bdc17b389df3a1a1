"""Two problems in one training row, exactly as if each had a row of its own.

Rows of random length are nearly half padding. Here a row holds two problems whose
lengths add up to almost the same for every row: the pairs of operand lengths are
sorted by the tokens they take, and the r-th shortest shares a row with the r-th
longest. If r is uniform, so is each problem's pair of lengths. The shapes stay static,
and nothing is sorted or searched at run time.
Imports `vocab` and `arithmetic`.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import vocab
from arith_jax.arithmetic import Arithmetic, mixed_kind
from arith_jax.digits import word_below


class PackedBatch(NamedTuple):
    """Rows of two problems each, then `PAD`.

    A problem is read up to its last answer digit: its `EOS` is a label, never read.
    `mask` is True where the label counts; `start` is the place in the row of the first
    token of each token's own problem.
    """

    ids: Int[Array, "b t"]
    positions: Int[Array, "b t"]
    labels: Int[Array, "b t"]
    mask: Bool[Array, "b t"]
    start: Int[Array, "b t"]


def cells_by_width(task: Arithmetic, max_digits: int) -> np.ndarray:
    """All pairs of operand lengths [n 2], from the narrowest row to the widest."""
    lengths = range(1, max_digits + 1)
    cells = itertools.product(lengths, lengths)
    return np.array(sorted(cells, key=lambda cell: (task.row_width(*cell), cell)))


def row_width(task: Arithmetic, max_digits: int) -> int:
    """Tokens of the longest row of two problems; neither `EOS` is read."""
    cells = cells_by_width(task, max_digits).tolist()
    pairs = list(zip(cells, reversed(cells), strict=True))
    # Operands made alike in length (`draw_pairs`).
    equal = [(n, n) for n in range(1, max_digits + 1)]
    pairs += zip(equal, reversed(equal), strict=True)
    return max(task.row_width(*a) + task.row_width(*b) - 2 for a, b in pairs)


def draw_pairs(
    task: Arithmetic, key: PRNGKeyArray, rows: int, max_digits: int
) -> tuple[Int[Array, "n 2"], Int[Array, " n"]]:
    """Operand lengths and kinds of operands of problems 2i and 2i + 1 of each row i.

    Each problem by itself has the distribution of unpacked ones: lengths uniform on 1
    to `max_digits`, independent; the task's shares of kinds; operands of one length in
    half of the `repeats`. Both problems of a row are of one kind.

    Returns:
        Lengths, and indices into the task's kinds.
    """
    words = jax.random.bits(key, (rows, 3))
    cells = jnp.array(cells_by_width(task, max_digits))
    rank = word_below(words[:, 0], len(cells))
    lengths = jnp.stack([cells[rank], cells[len(cells) - 1 - rank]], axis=1)
    shares = {"chains": task.carry_chains, "repeats": task.repeats}
    if not sum(shares.values()):
        return lengths.reshape(-1, 2), jnp.zeros((2 * rows,), jnp.int32)
    kinds = list(task.drawn)
    kind = jax.vmap(lambda word: mixed_kind(word, shares, kinds))(words[:, 1])
    alike = (kind == kinds.index("repeats")) & (words[:, 2] % 2 == 0)
    first = lengths[:, :1, :1]
    equal = jnp.concatenate([first, max_digits + 1 - first], axis=1)
    lengths = jnp.where(alike[:, None, None], equal, lengths)
    return lengths.reshape(-1, 2), jnp.repeat(kind, 2)


def join(
    ids: Int[Array, "n t"], positions: Int[Array, "n t"], mask: Bool[Array, "n t"]
) -> PackedBatch:
    """Puts problems 2i and 2i + 1 into row i.

    Args:
        ids: A problem a row, `PAD` after its `EOS`; one token wider than what it
            becomes, because the last token is a label only.
        positions: Abacus id of every token.
        mask: True at the tokens that must be predicted.
    """
    length = jnp.argmax(ids == vocab.EOS, axis=1)
    width = ids.shape[1] - 1
    place = jnp.broadcast_to(jnp.arange(width)[None], (len(ids) // 2, width))
    is_first = place < length[::2, None]
    start = jnp.where(is_first, 0, length[::2, None])

    def joined(problems: Array) -> Array:
        moved = jnp.take_along_axis(problems[1::2], place - start, axis=1)
        return jnp.where(is_first, problems[::2], moved)

    inputs = jnp.where(ids == vocab.EOS, vocab.PAD, ids)[:, :-1]
    return PackedBatch(
        joined(inputs),
        joined(positions[:, :-1]),
        joined(ids[:, 1:]),
        joined(mask[:, 1:]),
        start,
    )
