"""Batches: `(key, step)` decides ids, positions and target mask, all inside jit.

Imports `vocab`, `tasks`, `packing` and the pure position functions.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import packing, positions, tasks, vocab


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a training batch holds; the knobs are described in `configs/base.py`."""

    task: str
    max_digits: int
    zero_pad: bool
    carry_chains: float
    repeats: float
    blanks: float
    max_offset: int
    offset_per: str
    width_multiple: int
    pack: bool

    def __post_init__(self):
        if self.task != "addition":
            raise ValueError(f"data.task={self.task!r} is unknown; allowed: addition")
        if self.max_digits < 1:
            raise ValueError(f"data.max_digits={self.max_digits}: must be at least 1")
        if self.max_offset < 0:
            raise ValueError(f"data.max_offset={self.max_offset}: must be at least 0")
        if self.offset_per not in ("example", "batch"):
            raise ValueError(
                f"data.offset_per={self.offset_per!r}; allowed: 'example', 'batch'"
            )
        if self.width_multiple < 1:
            raise ValueError(
                f"data.width_multiple={self.width_multiple}: must be at least 1"
            )

    def make_task(self) -> tasks.Addition:
        """The task these settings describe."""
        return tasks.Addition(
            self.zero_pad, self.carry_chains, self.repeats, self.blanks
        )

    @property
    def width(self) -> int:
        """Tokens of a training row."""
        task, most = self.make_task(), self.max_digits
        if self.pack:
            return round_up(packing.row_width(task, most), self.width_multiple)
        return round_up(task.row_width(most, most), self.width_multiple)

    @property
    def problems_per_row(self) -> int:
        """Problems in a training row."""
        return 2 if self.pack else 1


class Batch(NamedTuple):
    """Rows of one batch.

    `mask` is True at the answer's tokens and `EOS`: what the model must predict, each
    from the tokens before it.
    """

    ids: Int[Array, "b t"]
    positions: Int[Array, "b t"]
    mask: Bool[Array, "b t"]


def round_up(value: int, multiple: int) -> int:
    """Smallest multiple that is not below the value."""
    return -(-value // multiple) * multiple


def answer_mask(
    ids: Int[Array, "b t"], equals: Int[Array, ""] | int
) -> Bool[Array, "b t"]:
    """True for every token after `=` that is not `PAD`."""
    after = jnp.cumsum(ids == equals, axis=1) - (ids == equals) > 0
    return after & (ids != vocab.PAD)


def as_batch(
    task: tasks.Addition,
    ids: Int[Array, "b t"],
    offset: Int[Array, " b"] | int = 0,
) -> Batch:
    """Adds Abacus positions and the target mask to rows of ids."""
    is_blank = ids == vocab.PAD if task.blanks > 0 else None
    pos = positions.abacus_positions(vocab.is_digit(ids), offset, is_blank)
    return Batch(ids, pos, answer_mask(ids, task.vocab.id("=")))


def training_batch(
    config: DataConfig,
    key: PRNGKeyArray,
    step: Int[Array, ""] | int,
    batch_size: int,
) -> Batch | packing.PackedBatch:
    """The batch of one step: a pure function of key and step.

    Both operand lengths are uniform on 1 to `max_digits`, independently. With `pack`
    the `batch_size` problems, an even number, share rows in pairs.

    Source:
        McLeish et al. 2024 stratify a fixed set of 20 M rows over all length pairs;
        here every batch is fresh. The offset is drawn per example (original: per
        micro-batch, `offset_per="batch"`), from 0 to `max_offset` inclusive.
    """
    task, most = config.make_task(), config.max_digits
    key_shape, key_rows = jax.random.split(jax.random.fold_in(key, step))
    words = jax.random.bits(key_shape, (batch_size, 3))
    keys = jax.random.split(key_rows, batch_size)
    offset = tasks.word_below(words[:, 2], config.max_offset + 1)
    if config.offset_per == "batch":
        offset = jnp.broadcast_to(offset[0], (batch_size,))
    if config.pack:
        key_pairs = jax.random.fold_in(key_shape, 1)
        lengths, kinds = packing.draw_pairs(task, key_pairs, batch_size // 2, most)
        # The kinds are drawn already.
        task = dataclasses.replace(task, carry_chains=0.0, repeats=0.0)
        sample = partial(task.sample, max_digits=most, width=config.width + 1)
        ids = jax.vmap(
            lambda k, ab, kind: sample(k, *ab, kind=0 if kind is None else kind)
        )(keys, lengths, kinds)
        return packing.join(*as_batch(task, ids, offset))
    lengths = 1 + tasks.word_below(words[:, :2], most)
    ids = jax.vmap(lambda k, ab: task.sample(k, ab[0], ab[1], most, config.width))(
        keys, lengths
    )
    return as_batch(task, ids, offset)


def evaluation_batch(
    task: tasks.Addition,
    key: PRNGKeyArray,
    rows: Int[Array, "b 4"],
    max_digits: int,
    width: int,
) -> Batch:
    """Fixed examples, offset 0: row (k, a, b, i) is example i of cell (a, b), kind k.

    An example depends on the key and its row alone, not on what else is in the batch
    or on the sizes it is padded to. Kinds are in the order of `tasks.OPERANDS`.
    """

    def sample(row: Int[Array, " 4"]) -> Int[Array, " t"]:
        row_key = key
        for part in row:
            row_key = jax.random.fold_in(row_key, part)
        return task.sample(row_key, row[1], row[2], max_digits, width, row[0])

    return as_batch(task, jax.vmap(sample)(rows))
