"""The kernels of `flash`: one program for each row, head and block of tokens.

Written with Pallas for Triton. What makes them fast, besides never storing a logit: a
problem is done by itself, from its first token on; small tiles have few hidden pairs,
and one group of threads, which waits for no other; loops, not copies of their bodies,
keep registers free. Imports `kernels`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from arith_jax.kernels import triton

MASKED = -1e9
# Places of queries, keys and values in the array of all three.
Q, K, V = range(3)
# Learned numbers of a head: biases, then the factor on its logits.
FACTOR, COLUMNS = 15, 16


class Tiling(NamedTuple):
    """How the work is shared among programs; each problem of packed rows is one's own.

    Attributes:
        block: Tokens of a block.
        warps: Groups of 32 threads of a program.
        stages: Blocks that are loaded at a time in a loop.
        share: Blocks of its row and head that a program does, one after another.
    """

    block: int
    warps: int = 1
    stages: int = 1
    share: int = 1

    def programs(self, tokens: int) -> int:
        """Programs of a row and head."""
        return -(-tokens // (self.block * self.share))


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a query attends to beside its past, static.

    Attributes:
        edge: Differences of ids up to this, further ones clipped, have a learned bias;
            0: there is no bias. At most 7.
        window: Digits whose id differs by more are hidden; None: none is.
        normalise: Whether queries and keys are divided by their root mean square.
        dense: Whether there is a bias for every pair of tokens.
        packed: Whether rows hold several problems, each of which sees only itself.
    """

    edge: int
    window: int | None
    normalise: bool
    dense: bool = False
    packed: bool = False

    def __post_init__(self):
        if not 0 <= 2 * self.edge + 1 <= FACTOR:
            raise ValueError(f"edge={self.edge}: must be between 0 and {FACTOR // 2}")

    @property
    def biases(self) -> list[int]:
        """Columns of the biases that a visible difference of ids can have."""
        # Of further keys only symbols are seen, whose id is 0: not above the query's.
        nearest = self.window is not None and self.window < self.edge
        return list(range(int(nearest), 2 * self.edge + 1)) if self.edge else []

    def has_bias(self, difference: Any, column: int) -> Any:
        """Where differences of ids, clipped, have the bias of a column."""
        number = column - self.edge
        if abs(number) < self.edge:
            return difference == number
        return difference >= number if number > 0 else difference <= number


class Row(NamedTuple):
    """One problem and head in a kernel: references to arrays, read block by block.

    The last block may end past the problem: what is read there is 0.
    """

    first: Any  # token of the row
    tokens: Any
    block: int
    qkv: Any
    place: Any
    numbers: dict[int, Any]  # of the head's table, those that are used
    sizes: Any  # of queries and of keys: 1 / root mean square; (): not normalised
    bias: Any  # of every pair; None: there is none

    @property
    def blocks(self) -> Any:
        """Number of blocks."""
        return (self.tokens + self.block - 1) // self.block

    def inside(self, number: Any) -> tuple[Any, Any]:
        """Slice of a block, and which of its tokens are inside the problem."""
        begin = number * self.block
        is_inside = begin + jnp.arange(self.block) < self.tokens
        return pl.ds(self.first + begin, self.block), is_inside

    def load(self, ref: Any, number: Any) -> Any:
        """A block of an array: [block] or [block c]."""
        block, mask = self.inside(number)
        mask = mask if len(ref.shape) == 1 else mask[:, None]
        return triton.load(ref.at[block], mask=mask, other=0)

    def store(self, ref: Any, number: Any, value: Any) -> None:
        """Writes a block of an array."""
        block, mask = self.inside(number)
        mask = mask if len(ref.shape) == 1 else mask[:, None]
        triton.store(ref.at[block], value.astype(ref.dtype), mask=mask)

    def part(self, number: Any, which: int) -> Any:
        """A block of queries, keys or values [block c]."""
        block, mask = self.inside(number)
        chosen = self.qkv.at[block, pl.ds(which, 1)]
        found = triton.load(chosen, mask=mask[:, None, None], other=0)
        return found.reshape(self.block, -1)

    def store_part(self, ref: Any, number: Any, which: int, value: Any) -> None:
        """Writes a block of queries, keys or values."""
        block, mask = self.inside(number)
        value = value.astype(ref.dtype).reshape(self.block, 1, -1)
        triton.store(ref.at[block, pl.ds(which, 1)], value, mask=mask[:, None, None])

    def pairs(self, ref: Any, queries: Any, keys: Any) -> tuple[Any, Any]:
        """A tile of an array for every pair of tokens, and which are in the problem."""
        (first, rows), (second, columns) = map(self.inside, (queries, keys))
        return ref.at[first, second], rows[:, None] & columns[None, :]

    def factor(self, number: Any, which: int) -> Any:
        """What every query or key is multiplied with."""
        size = self.load(self.sizes[which], number)
        return size * self.numbers[FACTOR] if which == Q else size


def tile(
    rule: Rule, row: Row, queries: Any, keys: Any, q: Any, k: Any, by_key: bool = False
) -> tuple[Any, Any, Any]:
    """Logits of a block of queries and one of keys, [queries keys] or transposed.

    Args:
        rule: What is visible.
        row: Where everything is.
        queries: Number of the block of queries.
        keys: Number of the block of keys.
        q: Queries as they are stored.
        k: Keys as they are stored.
        by_key: Whether keys come first.

    Returns:
        Logits, -1e9 where hidden; their part that is a product; the differences of ids.
    """
    of_key, of_query = (lambda x: x[:, None]), (lambda x: x[None, :])
    if not by_key:
        of_key, of_query = of_query, of_key
    product = triton.dot(k, q.T) if by_key else triton.dot(q, k.T)
    if rule.normalise:
        product *= of_query(row.factor(queries, Q)) * of_key(row.factor(keys, K))
    else:
        product *= row.numbers[FACTOR]
    place = row.load(row.place, keys)
    difference = of_query(row.load(row.place, queries)) - of_key(place)
    learned = jnp.zeros(product.shape, jnp.float32)
    for column in rule.biases:
        found = rule.has_bias(difference, column)
        learned = jnp.where(found, row.numbers[column], learned)
    logits = product + learned
    if row.bias is not None:
        chosen, mask = row.pairs(row.bias, queries, keys)
        found = triton.load(chosen, mask=mask, other=0).astype(jnp.float32)
        logits += found.T if by_key else found
    index = [row.block * number + jnp.arange(row.block) for number in (queries, keys)]
    seen = of_key(index[1]) <= of_query(index[0])
    if rule.window is not None:
        is_near = jnp.abs(difference) <= rule.window
        seen = seen & (is_near | of_key(place == 0))
    return jnp.where(seen, logits, MASKED), product, difference


def make_row(
    rule: Rule, tiling: Tiling, tokens: int, refs: Sequence[Any]
) -> tuple[Row, list[Any]]:
    """The arrays that both kernels read, and the rest of the references."""
    qkv, place, table, *rest = refs
    first = 0
    if rule.packed:
        bounds, *rest = rest
        first, end = (bounds[pl.program_id(2) + i] for i in (0, 1))
        tokens = end - first
    sizes, rest = (rest[:2], rest[2:]) if rule.normalise else ((), rest)
    bias, *rest = rest if rule.dense else [None, *rest]
    numbers = {column: table[column] for column in (*rule.biases, FACTOR)}
    return Row(first, tokens, tiling.block, qkv, place, numbers, sizes, bias), rest


def own_blocks(rule: Rule, tiling: Tiling, row: Row) -> tuple[Any, Any]:
    """First block of this program, and that after its last one."""
    if rule.packed:
        return 0, row.blocks
    first = tiling.share * pl.program_id(2)
    return first, jnp.minimum(first + tiling.share, row.blocks)


def forward_kernel(rule: Rule, tiling: Tiling, tokens: int, *refs: Any) -> None:
    """Output of one block of queries, and the logarithm of its softmax's divisor."""
    row, (out, norm) = make_row(rule, tiling, tokens, refs)
    block = tiling.block

    def of_queries(number: Any) -> None:
        q = row.part(number, Q)

        def add(other: Any, carry: Any) -> Any:
            largest, total, found = carry
            logits, _, _ = tile(rule, row, number, other, q, row.part(other, K))
            new = jnp.maximum(largest, jnp.max(logits, axis=1))
            weights, shrink = jnp.exp(logits - new[:, None]), jnp.exp(largest - new)
            added = triton.dot(weights.astype(q.dtype), row.part(other, V))
            total = total * shrink + jnp.sum(weights, axis=1)
            return new, total, found * shrink[:, None] + added

        # A query sees itself, in the last block: its largest logit is a real one.
        zeros = jnp.zeros((block, q.shape[1]), jnp.float32)
        first = jnp.full((block,), -jnp.inf), jnp.zeros((block,)), zeros
        largest, total, found = jax.lax.fori_loop(0, number + 1, add, first)
        row.store(out, number, found / total[:, None])
        row.store(norm, number, largest + jnp.log(total))

    if rule.packed or tiling.share > 1:
        own = own_blocks(rule, tiling, row)
        jax.lax.fori_loop(*own, lambda i, _: of_queries(i), None)
    else:
        of_queries(pl.program_id(2))


def backward_kernel(rule: Rule, tiling: Tiling, tokens: int, *refs: Any) -> None:
    """Gradients of one block: to its keys and values, or to its queries."""
    row, rest = make_row(rule, tiling, tokens, refs)
    if rule.dense:
        # What is hidden has no gradient: the array is full of zeros to begin with.
        _, *rest = rest
    norm, drift, d_out, d_qkv, d_table, *d_bias = rest
    block = tiling.block

    def both(queries: Any, keys: Any, q: Any, k: Any, v: Any, by_key: bool) -> Any:
        """Weights of a tile, gradient to its logits, its products and differences."""
        logits, product, difference = tile(rule, row, queries, keys, q, k, by_key)
        spread = (lambda x: x[None, :]) if by_key else (lambda x: x[:, None])
        weights = jnp.exp(logits - spread(row.load(norm, queries)))
        d_found = row.load(d_out, queries)
        d_weights = triton.dot(v, d_found.T) if by_key else triton.dot(d_found, v.T)
        d_logits = weights * (d_weights - spread(row.load(drift, queries)))
        return weights, d_logits, product, difference, d_found

    def of_keys(number: Any) -> None:
        k, v = (row.part(number, which) for which in (K, V))

        def add(other: Any, carry: Any) -> Any:
            d_keys, d_values, along = carry
            q = row.part(other, Q)
            weights, d_logits, product, _, d_found = both(other, number, q, k, v, True)
            d_values += triton.dot(weights.astype(v.dtype), d_found)
            if rule.normalise:
                along += jnp.sum(d_logits * product, axis=1)
                d_logits *= row.factor(other, Q)[None]
            return d_keys + triton.dot(d_logits.astype(q.dtype), q), d_values, along

        zeros = jnp.zeros(k.shape, jnp.float32)
        first = zeros, zeros, jnp.zeros((block,), jnp.float32)
        found = jax.lax.fori_loop(number, row.blocks, add, first)
        d_keys, d_values, along = found
        if rule.normalise:
            size = row.load(row.sizes[K], number)
            along *= size * size / k.shape[1]
            d_keys = size[:, None] * d_keys - along[:, None] * k
        else:
            d_keys *= row.numbers[FACTOR]
        row.store_part(d_qkv, number, K, d_keys)
        row.store_part(d_qkv, number, V, d_values)

    def of_queries(number: Any) -> Any:
        """Returns the gradient of the table."""
        q, none = row.part(number, Q), jnp.zeros((block,), jnp.float32)

        def add(other: Any, carry: Any) -> Any:
            d_queries, along, *d_columns = carry
            k, v = (row.part(other, which) for which in (K, V))
            _, d_logits, product, difference, _ = both(number, other, q, k, v, False)
            for ref in d_bias:
                chosen, mask = row.pairs(ref, number, other)
                triton.store(chosen, d_logits.astype(ref.dtype), mask=mask)
            for index, column in enumerate(rule.biases):
                found = rule.has_bias(difference, column)
                d_columns[index] += jnp.sum(jnp.where(found, d_logits, 0.0), axis=1)
            if rule.normalise:
                along += jnp.sum(d_logits * product, axis=1)
                d_logits *= row.factor(other, K)[None]
            d_queries += triton.dot(d_logits.astype(k.dtype), k)
            return d_queries, along, *d_columns

        zeros = jnp.zeros(q.shape, jnp.float32)
        first = zeros, none, *(none for _ in rule.biases)
        found = jax.lax.fori_loop(0, number + 1, add, first)
        d_queries, along, *d_columns = found
        columns = jnp.arange(COLUMNS)
        sums = jnp.zeros((COLUMNS,), jnp.float32)
        for column, found in zip(rule.biases, d_columns, strict=True):
            sums += jnp.where(columns == column, jnp.sum(found), 0.0)
        if rule.normalise:
            size, factor = row.load(row.sizes[Q], number), row.numbers[FACTOR]
            sums += jnp.where(columns == FACTOR, jnp.sum(along) / factor, 0.0)
            d_queries *= (size * factor)[:, None]
            d_queries -= (along * size * size / q.shape[1])[:, None] * q
        else:
            d_queries *= row.numbers[FACTOR]
        row.store_part(d_qkv, number, Q, d_queries)
        return sums

    program = pl.program_id(2)
    if rule.packed or tiling.share > 1:

        def step(i: Any, sums: Any) -> Any:
            of_keys(i)
            return sums + of_queries(i)

        own = own_blocks(rule, tiling, row)
        sums = jax.lax.fori_loop(*own, step, jnp.zeros((COLUMNS,), jnp.float32))
        d_table[pl.ds(program, 1)] = sums[None]
    else:
        blocks = row.blocks
        pl.when(program < blocks)(lambda: of_keys(program))

        def last() -> None:
            number = program - blocks
            d_table[pl.ds(number, 1)] = of_queries(number)[None]

        pl.when(program >= blocks)(last)
