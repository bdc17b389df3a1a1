"""Batches: `(key, step)` decides ids, positions and target mask, all inside jit.

Imports `vocab`, `tasks`, `packing` and the pure position functions.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from arith_jax import packing, positions, tasks, vocab
from arith_jax.arithmetic import Arithmetic
from arith_jax.digits import word_below
from arith_jax.mixture import Mixture
from arith_jax.sorting import Sorting
from arith_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What a training batch holds; the knobs are described in `configs/base.py`."""

    task: str
    max_digits: int
    max_numbers: int
    zero_pad: bool
    carry_chains: float
    repeats: float
    hard_lists: float
    mixed_keys: bool
    complement: bool
    scratchpad: bool
    blanks: float
    index_hints: bool
    predict_prompt: bool
    position_ids: str
    max_offset: int
    offset_per: str
    width_multiple: int
    problems_per_row: int

    def __post_init__(self):
        self.make_task()
        if self.max_digits < 1:
            raise ValueError(f"data.max_digits={self.max_digits}: must be at least 1")
        if (self.max_numbers > 0) != (self.task == "sorting"):
            raise ValueError(
                f"data.max_numbers={self.max_numbers}: must be at least 1 for sorting "
                f"and 0 for other tasks, data.task={self.task!r}"
            )
        if self.position_ids not in positions.SYMBOL_ID:
            raise ValueError(
                f"data.position_ids={self.position_ids!r}; allowed: "
                + ", ".join(map(repr, positions.SYMBOL_ID))
            )
        self.check_lines()
        self.check_packing()
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

    def check_lines(self) -> None:
        """Raises `ValueError` if ids with levels do not fit the other settings."""
        others = ("blanks", "index_hints", "max_offset")
        fitting = {"lines": Arithmetic | Mixture, "items": Sorting}
        if self.position_ids not in fitting:
            return
        found = [name for name in others if getattr(self, name)]
        task = self.make_task()
        if not isinstance(task, fitting[self.position_ids]):
            found.append("task")
        if found:
            raise ValueError(
                f"data.position_ids={self.position_ids!r} with data.{found[0]}="
                f"{getattr(self, found[0])!r}: 'lines' are for plain rows of "
                "calculations, 'items' for lists; set one of them otherwise"
            )
        if isinstance(task, Sorting) and not task.scratchpad:
            raise ValueError(
                "data.position_ids='items' with data.scratchpad=False: the ids are "
                "those of an insertion sort; set data.scratchpad=True"
            )

    def check_packing(self) -> None:
        """Raises `ValueError` if the rows cannot hold so many problems."""
        count = self.problems_per_row
        if count < 1 or count & (count - 1):
            raise ValueError(
                f"data.problems_per_row={count}: must be a power of two, 1 for rows of "
                "one problem each"
            )
        others = ("blanks", "index_hints", "predict_prompt")
        found = [name for name in others if getattr(self, name)]
        if self.position_ids != "abacus":
            found.append("position_ids")
        if not isinstance(self.make_task(), Arithmetic):
            found.append("task")
        if count > 1 and found:
            raise ValueError(
                f"data.problems_per_row={count} with data.{found[0]}="
                f"{getattr(self, found[0])!r}: only plain rows of one operation are "
                "packed; set data.problems_per_row=1"
            )

    def make_task(self) -> Task:
        """The task these settings describe."""
        options = {
            name: getattr(self, name)
            for name in (
                *("zero_pad", "carry_chains", "repeats", "hard_lists", "complement"),
                *("scratchpad", "mixed_keys", "blanks", "index_hints"),
            )
        }
        return tasks.make_task(self.task, options)

    @property
    def most(self) -> tuple[int, int]:
        """The largest trained cell."""
        return self.max_numbers or self.max_digits, self.max_digits

    @property
    def most_tokens(self) -> tuple[int, int]:
        """Most tokens of a training row, and of those that must be predicted in it."""
        task = self.make_task()
        if self.problems_per_row > 1 and isinstance(task, Arithmetic):
            packed = task, self.max_digits, self.problems_per_row
            _, width, answers = packing.rows_by_width(*packed)
            return width, answers
        width, answer = task.row_width(*self.most), task.answer_width(*self.most) + 1
        return width, width if self.predict_prompt else answer

    @property
    def width(self) -> int:
        """Tokens of a training row, padding included."""
        return round_up(self.most_tokens[0], self.width_multiple)

    @property
    def most_read(self) -> int | None:
        """Most tokens of a row that the loss reads, for `reading`.

        None: more than three quarters of it, where leaving the rest out gains little.
        """
        answers = self.most_tokens[1]
        return answers if 4 * answers <= 3 * self.width else None

    def longest_position(self, cell: tuple[int, int]) -> int:
        """Largest position id of a cell with offset 0."""
        symbol = positions.SYMBOL_ID[self.position_ids]
        return self.make_task().longest_number(*cell) + symbol


# The operator whose second operand has one line of written work for each digit.
LINE_OPERATOR = "x"


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
    task: Task,
    ids: Int[Array, "b t"],
    offset: Int[Array, " b"] | int = 0,
    scheme: str = "abacus",
    has_blanks: bool = False,
) -> Batch:
    """Adds position ids, by `data.position_ids`, and the target mask to rows of ids."""
    is_digit, is_blank = vocab.is_digit(ids), ids == vocab.PAD if has_blanks else None
    is_token, equals = ids >= vocab.FIRST_SYMBOL, task.vocab.id("=")
    if scheme == "coupled":
        pos = positions.coupled_positions(is_digit, is_token, offset, is_blank)
    elif scheme == "lines":
        lines = jnp.any(ids == task.vocab.id(LINE_OPERATOR), axis=1)
        pos = positions.line_positions(is_digit, is_token, ids == equals, lines)
    elif scheme == "items":
        pos = positions.item_positions(is_digit, ids == equals)
    else:
        pos = positions.abacus_positions(is_digit, offset, is_blank)
    return Batch(ids, pos, answer_mask(ids, equals))


def training_batch(
    config: DataConfig,
    key: PRNGKeyArray,
    step: Int[Array, ""] | int,
    batch_size: int,
) -> Batch | packing.PackedBatch:
    """The batch of one step: a pure function of key and step.

    With `problems_per_row` the `batch_size` problems share rows.

    Source:
        McLeish et al. 2024 stratify a fixed set of 20 M rows over all cells (pairs of
        operand lengths); here every batch is fresh and the task draws the cells, most
        of them uniformly. The offset is drawn per example (original: per micro-batch,
        `offset_per="batch"`), from 0 to `max_offset` inclusive. `predict_prompt` is
        its `mask_before_equals=False`.
    """
    task, most = config.make_task(), config.most
    key_shape, key_rows = jax.random.split(jax.random.fold_in(key, step))
    words = jax.random.bits(key_shape, (batch_size, 3))
    keys = jax.random.split(key_rows, batch_size)
    offset = word_below(words[:, 2], config.max_offset + 1)
    if config.offset_per == "batch":
        offset = jnp.broadcast_to(offset[0], (batch_size,))
    problems = config.problems_per_row
    if problems > 1 and isinstance(task, Arithmetic):
        key_lengths, rows = jax.random.fold_in(key_shape, 1), batch_size // problems
        cells, kinds = packing.draw_lengths(
            task, key_lengths, rows, config.max_digits, problems
        )
        width = task.row_width(*most) + 1
        ids = jax.vmap(
            lambda k, ab, kind: task.sample(k, ab[0], ab[1], most, width, kind)
        )(keys, cells, kinds)
        return packing.join(*as_batch(task, ids, offset), problems, config.width)
    cells = jax.vmap(lambda word: task.draw_cell(word, most))(words[:, :2])
    ids = jax.vmap(lambda k, ab: task.sample(k, ab[0], ab[1], most, config.width))(
        keys, cells
    )
    batch = as_batch(task, ids, offset, config.position_ids, config.blanks > 0)
    return batch._replace(mask=ids != vocab.PAD) if config.predict_prompt else batch


def evaluation_batch(
    task: Task,
    key: PRNGKeyArray,
    rows: Int[Array, "b 4"],
    sizes: tuple[int, int],
    width: int,
    scheme: str = "abacus",
) -> Batch:
    """Fixed examples, offset 0: row (k, a, b, i) is example i of cell (a, b), kind k.

    An example depends on the key and its row alone, not on what else is in the batch
    or on the sizes it is padded to. Kinds are in the order of the task's.
    """

    def sample(row: Int[Array, " 4"]) -> Int[Array, " t"]:
        row_key = key
        for part in row:
            row_key = jax.random.fold_in(row_key, part)
        return task.sample(row_key, row[1], row[2], sizes, width, row[0], row[3])

    return as_batch(task, jax.vmap(sample)(rows), 0, scheme)
