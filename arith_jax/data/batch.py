"""Batches: `(key, step)` decides ids, position ids and labels, all inside jit."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import vocab
from arith_jax.config.data import DataConfig, round_up
from arith_jax.data import packing
from arith_jax.data.gaps import with_gaps
from arith_jax.positions.abacus import of_segment
from arith_jax.positions.schemes import Scheme
from arith_jax.tasks.digits import word_below
from arith_jax.tasks.task import Layout, Task


class Batch(struct.PyTreeNode):
    """Rows of one batch, on a device or on the host.

    Attributes:
        ids: Tokens.
        positions: Position id of every token.
        labels: What follows each token.
        mask: True where the label must be predicted: at the answer and its `EOS`.
        segment: Number of the problem that each token belongs to, from 0; what is left
            of a row belongs to its last problem.
        num_segments: Problems in a row; static.
    """

    ids: Int[Any, "b t"]
    positions: Int[Any, "b t"]
    labels: Int[Any, "b t"]
    mask: Bool[Any, "b t"]
    segment: Int[Any, "b t"]
    num_segments: int = struct.field(pytree_node=False, default=1)

    def count_in_segments(self, values: Bool[Array, "b t"]) -> Int[Array, "b n"]:
        """Tokens of each problem where a value is True."""
        number = jnp.arange(self.num_segments)[None, :, None]
        is_inside = self.segment[:, None, :] == number
        return jnp.sum(is_inside & values[:, None, :], axis=2)


def answer_mask(
    ids: Int[Array, "b t"], equals: Int[Array, ""] | int
) -> Bool[Array, "b t"]:
    """True for every token after `=` that is not `PAD`."""
    after = jnp.cumsum(ids == equals, axis=1) - (ids == equals) > 0
    return after & (ids != vocab.PAD)


def make_batch(
    task: Task,
    ids: Int[Array, "b t"],
    scheme: Scheme,
    *,
    offset: Int[Array, " b"] | int = 0,
    has_blanks: bool = False,
    predict_prompt: bool = False,
) -> Batch:
    """A batch of rows of one problem each.

    The labels are rolled, not sliced off, which keeps the length of rows even; the last
    one never counts.

    Args:
        task: Whose rows they are.
        ids: Rows, `PAD` after `EOS`.
        scheme: How tokens are numbered.
        offset: Of the position ids.
        has_blanks: Whether there are blanks in the prompt.
        predict_prompt: Whether every token but the first is predicted.
    """
    positions = scheme.position_ids(ids, offset, has_blanks=has_blanks)
    if predict_prompt:
        counts = ids != vocab.PAD
    else:
        counts = answer_mask(ids, task.vocab.id("="))
    mask = jnp.roll(counts, -1, axis=1).at[:, -1].set(False)
    labels = jnp.roll(ids, -1, axis=1)
    return Batch(
        ids=ids,
        positions=positions,
        labels=labels,
        mask=mask,
        segment=jnp.zeros_like(ids),
    )


def row_width(data: DataConfig) -> int:
    """Tokens of a training row, padding included."""
    return round_up(max_tokens(data)[0], data.width_multiple)


def max_targets(data: DataConfig) -> int | None:
    """Largest number of tokens of a row that are predicted, for `model.gather`.

    None: they are more than three quarters of it, so that leaving the others out of
    the last layer would gain little.
    """
    targets = max_tokens(data)[1]
    return targets if 4 * targets <= 3 * row_width(data) else None


def max_tokens(data: DataConfig) -> tuple[int, int]:
    """Largest numbers of tokens in a training row, and of those that are predicted."""
    task, max_cell = data.task, data.max_cell
    if data.problems_per_row > 1:
        rows = packing.rows_by_width(task, data.max_digits, data.problems_per_row)
        return rows.max_tokens, rows.max_targets
    width, answer = task.row_width(*max_cell), task.answer_width(*max_cell) + 1
    return width, width if data.predict_prompt else answer


def draw_offset(
    data: DataConfig, key: PRNGKeyArray, batch_size: int
) -> Int[Array, " b"]:
    """Offsets of the position ids of some problems.

    Source:
        McLeish et al. 2024 draw one for each micro-batch (`offset_per="batch"`).
    """
    words = jax.random.bits(key, (batch_size, 3))
    offset = word_below(words[:, 2], data.max_offset + 1)
    if data.offset_per == "batch":
        offset = jnp.broadcast_to(offset[0], (batch_size,))
    return offset


def training_batch(
    data: DataConfig,
    key: PRNGKeyArray,
    step: Int[Array, ""] | int,
    batch_size: int,
) -> Batch:
    """The batch of one step: a pure function of key and step.

        >>> batch = training_batch(DataConfig(max_digits=3), jax.random.key(0), 0, 2)
        >>> batch.ids.shape
        (2, 13)
        >>> bool(batch.mask.any(axis=1).all())
        True

    Args:
        data: What the rows hold.
        key: Of the run.
        step: Of the run.
        batch_size: Problems; those of a row are consecutive.

    Source:
        McLeish et al. 2024 stratify a fixed set of 20 M rows over all cells (pairs of
        operand lengths); here every batch is fresh and the task draws the cells, most
        of them uniformly. `predict_prompt` is the original's
        `mask_before_equals=False`.
    """
    task, max_cell = data.task, data.max_cell
    key_shape, key_rows = jax.random.split(jax.random.fold_in(key, step))
    keys = jax.random.split(key_rows, batch_size)
    offset = draw_offset(data, key_shape, batch_size)
    if data.problems_per_row > 1:
        key_lengths = jax.random.fold_in(key_shape, 1)
        cells, kinds = packing.draw_lengths(
            task, key_lengths, data, batch_size // data.problems_per_row
        )
        # One token more: the last one of a problem is `PAD` in any case.
        layout = Layout(max_cell, task.row_width(*max_cell) + 1)
        ids = jax.vmap(lambda k, ab, kind: task.sample(k, ab, layout, kind=kind))(
            keys, cells, kinds
        )
        problems = make_batch(task, ids, data.scheme, offset=offset)
        return join(leave_gaps(data, key_shape, problems, offset), data)
    words = jax.random.bits(key_shape, (batch_size, 3))
    cells = jax.vmap(lambda word: task.draw_cell(word, max_cell))(words[:, :2])
    layout = Layout(max_cell, row_width(data))
    ids = jax.vmap(lambda k, ab: task.sample(k, ab, layout))(keys, cells)
    batch = make_batch(
        task,
        ids,
        data.scheme,
        offset=offset,
        has_blanks=task.has_blanks,
        predict_prompt=data.predict_prompt,
    )
    return leave_gaps(data, key_shape, batch, offset)


def leave_gaps(
    data: DataConfig, key: PRNGKeyArray, batch: Batch, offset: Int[Array, " b"]
) -> Batch:
    """The batch with gaps between its position ids, if there are to be any."""
    if not data.max_gap:
        return batch
    key_gaps = jax.random.fold_in(key, 2)
    return batch.replace(positions=with_gaps(data, key_gaps, batch.positions, offset))


def join(problems: Batch, data: DataConfig) -> Batch:
    """Puts `data.problems_per_row` problems, one after another, into each row.

    A problem is read up to its last answer digit: its `EOS` is a label, never read.

    Args:
        problems: A problem a row, whose last token is `PAD`.
        data: Problems and tokens of a row.
    """
    count, width = data.problems_per_row, row_width(data)
    longest = problems.ids.shape[1] - 1
    lengths = jnp.argmax(problems.ids == vocab.EOS, axis=1).reshape(-1, count)
    ends = jnp.cumsum(lengths, axis=1)[:, None, :-1]
    place = jnp.arange(width)[None]
    is_before = ends <= place[..., None]
    segment = jnp.sum(is_before, axis=-1)
    start = jnp.max(jnp.where(is_before, ends, 0), axis=-1, initial=0)
    index = segment * longest + jnp.minimum(place - start, longest - 1)

    def joined(values: Array) -> Array:
        rows = values[:, :-1].reshape(-1, count * longest)
        return jnp.take_along_axis(rows, index, axis=1)

    is_end = problems.ids == vocab.EOS
    return Batch(
        ids=joined(jnp.where(is_end, vocab.PAD, problems.ids)),
        positions=joined(problems.positions),
        labels=joined(problems.labels),
        mask=joined(problems.mask),
        segment=segment,
        num_segments=count,
    )


def with_new_offset(data: DataConfig, batch: Batch, key: PRNGKeyArray) -> Batch:
    """The batch with other offsets: those of the second pass of a progressive loss.

    Args:
        data: Of the batch.
        batch: From `training_batch`.
        key: Decides the offsets.
    """
    rows, problems = batch.ids.shape[0], batch.num_segments
    offset = draw_offset(data, key, rows * problems).reshape(rows, problems)
    offset = of_segment(offset, batch.segment)
    plain = data.scheme.remove_offset(batch.positions, batch.segment, problems)
    return batch.replace(positions=jnp.where(plain > 0, plain + offset, 0))


def evaluation_ids(
    task: Task,
    key: PRNGKeyArray,
    rows: Int[Array, "b 4"],
    layout: Layout,
    *,
    kind: int | None = None,
) -> Int[Array, "b t"]:
    """Tokens of fixed examples: row (k, a, b, i) is example i of cell (a, b), set k.

    An example depends on the key and its row alone, not on what else is in the batch
    or on the sizes it is padded to. Sets are in the order of the task's `eval_sets`.

    Args:
        task: Whose examples they are.
        key: Of all examples.
        rows: Which ones.
        layout: Sizes of the arrays; static.
        kind: The set of all rows, if they are of one, so that the others need not be
            compiled; static.
    """

    def sample(row: Int[Array, " 4"]) -> Int[Array, " t"]:
        row_key = key
        for part in row:
            row_key = jax.random.fold_in(row_key, part)
        chosen = row[0] if kind is None else kind
        return task.sample(row_key, row[1:3], layout, kind=chosen, example=row[3])

    return jax.vmap(sample)(rows)


def evaluation_batch(
    task: Task,
    key: PRNGKeyArray,
    rows: Int[Array, "b 4"],
    layout: Layout,
    scheme: Scheme,
) -> Batch:
    """Fixed examples of `evaluation_ids`, offset 0."""
    return make_batch(task, evaluation_ids(task, key, rows, layout), scheme)
