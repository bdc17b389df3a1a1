"""What the attention kernels are given: rules, tiles, arrays, and parts of the arrays.

The grid of both kernels is (row, head, program).
"""

import dataclasses
from typing import Any, NamedTuple

from jax.experimental import pallas as pl

# Index of queries, keys and values in the array of all three.
Q, K, V = range(3)
# Columns of a head's table: the biases, then the factor on its logits.
FACTOR, COLUMNS = 15, 16


@dataclasses.dataclass(frozen=True)
class AttentionSpec:
    """Which of its past a query attends to, and what is added to the logits.

    Attributes:
        max_difference: Differences of position ids up to this have a learned bias;
            larger ones share that of the largest. 0: there is no such bias. At most 7.
        window: Digits whose position id differs by more are hidden; None: none are.
        qk_norm: Whether queries and keys are divided by their root mean square.
        dense_bias: Whether every pair of tokens has a bias.
        packed: Whether rows hold several segments, each of which sees only itself.
    """

    max_difference: int
    window: int | None
    qk_norm: bool
    dense_bias: bool = False
    packed: bool = False

    def __post_init__(self):
        limit = (FACTOR - 1) // 2
        if not 0 <= self.max_difference <= limit:
            raise ValueError(
                f"max_difference={self.max_difference}: must be between 0 and {limit}"
            )

    @property
    def bias_columns(self) -> list[int]:
        """Columns of the biases that a visible difference of position ids can have."""
        if not self.max_difference:
            return []
        # Outside the window only symbols are visible. Their id is 0, so that no query
        # has a smaller one: the column of the most negative difference is not needed.
        is_windowed = self.window is not None and self.window < self.max_difference
        return list(range(int(is_windowed), 2 * self.max_difference + 1))

    def has_bias(self, difference: Any, column: int) -> Any:
        """True where a difference of position ids has the bias of a column."""
        value = column - self.max_difference
        if abs(value) < self.max_difference:
            return difference == value
        return difference >= value if value > 0 else difference <= value


class Tiling(NamedTuple):
    """How the work on one row and head is divided among programs.

    Attributes:
        block_size: Tokens per block, of queries as of keys.
        num_warps: Warps per program.
        num_stages: Blocks of a loop whose loads are in flight at the same time.
        blocks_per_program: Blocks that a program does one after another; None: all of
            its segment.
    """

    block_size: int
    num_warps: int = 1
    num_stages: int = 1
    blocks_per_program: int | None = 1

    @property
    def has_loop(self) -> bool:
        """Whether a program does several blocks, and all gradients of each."""
        return self.blocks_per_program != 1


class Blocks(NamedTuple):
    """Block specs: the part of an array that belongs to a program's row and head.

    Attributes:
        tokens: Tokens that a program can address: as many as a row has, or more.
        head_width: Numbers per head.
    """

    tokens: int
    head_width: int

    def qkv(self) -> pl.BlockSpec:
        """Of an array [b t 3 h c]."""
        shape = (None, self.tokens, 3, None, self.head_width)
        return pl.BlockSpec(shape, lambda b, h, i: (b, 0, 0, h, 0))

    def heads(self) -> pl.BlockSpec:
        """Of an array [b t h c]."""
        shape = (None, self.tokens, None, self.head_width)
        return pl.BlockSpec(shape, lambda b, h, i: (b, 0, h, 0))

    def token_scalars(self) -> pl.BlockSpec:
        """Of an array [b h t]."""
        return pl.BlockSpec((None, None, self.tokens), lambda b, h, i: (b, h, 0))

    def position_ids(self) -> pl.BlockSpec:
        """Of an array [b t]."""
        return pl.BlockSpec((None, self.tokens), lambda b, h, i: (b, 0))

    def bounds(self, length: int) -> pl.BlockSpec:
        """Of an array [b n], n being the length."""
        return pl.BlockSpec((None, length), lambda b, h, i: (b, 0))

    def table(self) -> pl.BlockSpec:
        """Of an array [h 16]."""
        return pl.BlockSpec((None, COLUMNS), lambda b, h, i: (h, 0))

    def program_tables(self, number: int) -> pl.BlockSpec:
        """Of an array [b h n 16], n being the number of tables of a row and head."""
        return pl.BlockSpec((None, None, number, COLUMNS), lambda b, h, i: (b, h, 0, 0))

    def pairs(self, is_shared: bool = False) -> pl.BlockSpec:
        """Of an array [b h t t], or [1 h t t] if it is shared by all rows."""
        shape = (None, None, self.tokens, self.tokens)
        return pl.BlockSpec(shape, lambda b, h, i: (0 if is_shared else b, h, 0, 0))


class Inputs(NamedTuple):
    """What both kernels read: arrays, their block specs, or references to them.

    Attributes:
        qkv: Queries, keys and values [b t 3 h c].
        position_ids: Position ids without offset [b t].
        table: Learned numbers of each head [h 16].
        bounds: First token of every segment, and the tokens of the row [b n]; None if
            rows are not packed.
        inverse_norms: 1 / root mean square of queries and of keys, two arrays [b h t];
            None without QK-norm.
        bias: Of every pair of tokens [b h t t] or [1 h t t]; None if there is none.
    """

    qkv: Any
    position_ids: Any
    table: Any
    bounds: Any = None
    inverse_norms: Any = None
    bias: Any = None

    @property
    def has_shared_bias(self) -> bool:
        """Whether all rows have the same bias."""
        return self.bias is not None and self.bias.shape[0] == 1

    def block_specs(self, blocks: Blocks) -> "Inputs":
        """The block spec of every array."""
        norms = (blocks.token_scalars(), blocks.token_scalars())
        return Inputs(
            blocks.qkv(),
            blocks.position_ids(),
            blocks.table(),
            None if self.bounds is None else blocks.bounds(self.bounds.shape[1]),
            None if self.inverse_norms is None else norms,
            None if self.bias is None else blocks.pairs(self.has_shared_bias),
        )

    def num_programs(self, tiling: Tiling) -> int:
        """Programs of a row and head: one for each segment, or for a few blocks."""
        if tiling.blocks_per_program is None:
            return self.bounds.shape[1] - 1
        return -(-self.qkv.shape[1] // (tiling.block_size * tiling.blocks_per_program))


class BackwardInputs(NamedTuple):
    """What only the backward kernel reads: arrays, block specs or references.

    Attributes:
        log_sum_exp: Logarithm of the softmax's divisor [b h t].
        delta: Product of the output and its gradient, summed over a head [b h t].
        d_out: Gradient with respect to the output [b t h c].
        d_bias: Zeros of the shape of `Gradients.bias`, or None. They become that
            result: a pair of tokens that is hidden is not written by the kernel.
    """

    log_sum_exp: Any
    delta: Any
    d_out: Any
    d_bias: Any = None


class Gradients(NamedTuple):
    """Results of the backward kernel: arrays, shapes, block specs or references.

    Attributes:
        qkv: Gradient with respect to queries, keys and values [b t 3 h c].
        tables: Gradient with respect to the table from each program [b h n 16].
        bias: Gradient with respect to the bias in each row [b h t t], or None.
    """

    qkv: Any
    tables: Any
    bias: Any = None
