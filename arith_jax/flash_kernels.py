"""The kernels of `flash`: one program for each row, head and block of tokens.

Written with Pallas for Triton. What makes them fast, besides never storing a logit: a
tile is compared by one integer a token; blocks of another problem are skipped; small
tiles have few hidden pairs, and one group of threads, which waits for no other; loops,
not copies of their bodies, keep registers free. Imports `kernels`.
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
# A token's code is its Abacus id + PROBLEM * the place of its problem in the row: codes
# of different problems differ by more than half of it.
PROBLEM = 2**15
# Learned numbers of a head: biases, then the factor on its logits.
FACTOR, COLUMNS = 15, 16


class Tiling(NamedTuple):
    """How the work is shared among programs.

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

    def own(self, tokens: int) -> tuple[Any, Any]:
        """First block of this program, and that after its last one."""
        first = self.share * pl.program_id(2)
        return first, jnp.minimum(first + self.share, -(-tokens // self.block))


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a query attends to beside its past, static.

    Attributes:
        edge: Differences of ids up to this, further ones clipped, have a learned bias;
            0: there is no bias. At most 7.
        window: Digits whose id differs by more are hidden; None: none is.
        normalise: Whether queries and keys are divided by their root mean square.
        dense: Whether there is a bias for every pair of tokens.
        packed: Whether rows hold several problems, most of them short.
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
    """One row and head in a kernel: references to its arrays, read block by block.

    The last block may end past the row: what is read there is 0.
    """

    tokens: int
    block: int
    qkv: Any
    code: Any
    numbers: dict[int, Any]  # of the head's table, those that are used
    sizes: Any  # of queries and of keys: 1 / root mean square; (): not normalised
    bias: Any  # of every pair; None: there is none

    def inside(self, number: Any) -> tuple[Any, Any]:
        """Slice of a block, and which of its tokens are inside the row."""
        first = number * self.block
        return pl.ds(first, self.block), first + jnp.arange(self.block) < self.tokens

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
        """A tile of an array for every pair of tokens, and what is inside the row."""
        (first, rows), (second, columns) = map(self.inside, (queries, keys))
        return ref.at[first, second], rows[:, None] & columns[None, :]

    def first_key(self, queries: Any) -> Any:
        """First block that a block of queries sees: that of its first one's problem."""
        return self.code[queries * self.block] // PROBLEM // self.block

    def last_query(self, keys: Any) -> Any:
        """Last block that sees a block of keys: places of problems never decrease."""
        count = -(-self.tokens // self.block)
        number = jnp.arange(pl.next_power_of_2(count))
        firsts, mask = self.code.at[number * self.block], number < count
        starts = triton.load(firsts, mask=mask, other=2**31 - 1) // PROBLEM
        is_seeing = starts < (keys + 1) * self.block
        return jnp.sum(is_seeing.astype(jnp.int32)) - 1

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
    place = row.load(row.code, keys)
    difference = of_query(row.load(row.code, queries)) - of_key(place)
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
    distance = jnp.abs(difference)
    seen = (of_key(index[1]) <= of_query(index[0])) & (distance < PROBLEM // 2)
    if rule.window is not None:
        seen = seen & ((distance <= rule.window) | of_key(place % PROBLEM == 0))
    return jnp.where(seen, logits, MASKED), product, difference


def make_row(
    rule: Rule, tiling: Tiling, tokens: int, refs: Sequence[Any]
) -> tuple[Row, list[Any]]:
    """The arrays that both kernels read, and the rest of the references."""
    qkv, code, table, *rest = refs
    sizes, rest = (rest[:2], rest[2:]) if rule.normalise else ((), rest)
    bias, *rest = rest if rule.dense else [None, *rest]
    numbers = {column: table[column] for column in (*rule.biases, FACTOR)}
    return Row(tokens, tiling.block, qkv, code, numbers, sizes, bias), rest


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
        keys = row.first_key(number), number + 1
        largest, total, found = jax.lax.fori_loop(*keys, add, first)
        row.store(out, number, found / total[:, None])
        row.store(norm, number, largest + jnp.log(total))

    if tiling.share > 1:
        jax.lax.fori_loop(*tiling.own(tokens), lambda i, _: of_queries(i), None)
    else:
        of_queries(pl.program_id(2))


def backward_kernel(rule: Rule, tiling: Tiling, tokens: int, *refs: Any) -> None:
    """Gradients of one block: to its keys and values, or to its queries."""
    row, rest = make_row(rule, tiling, tokens, refs)
    norm, drift, d_out, d_qkv, d_table, *d_bias = rest
    block, blocks = tiling.block, -(-tokens // tiling.block)

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
        queries = number, row.last_query(number) + 1
        d_keys, d_values, along = jax.lax.fori_loop(*queries, add, first)
        if rule.normalise:
            size = row.load(row.sizes[K], number)
            along *= size * size / k.shape[1]
            d_keys = size[:, None] * d_keys - along[:, None] * k
        else:
            d_keys *= row.numbers[FACTOR]
        row.store_part(d_qkv, number, K, d_keys)
        row.store_part(d_qkv, number, V, d_values)

    def of_queries(number: Any) -> None:
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
        begin = row.first_key(number)
        found = jax.lax.fori_loop(begin, number + 1, add, first)
        d_queries, along, *d_columns = found
        for ref in d_bias:

            def clear(other: Any, _: None, ref: Any = ref) -> None:
                chosen, mask = row.pairs(ref, number, other)
                zeros = jnp.zeros((block, block), ref.dtype)
                triton.store(chosen, zeros, mask=mask)

            jax.lax.fori_loop(0, begin, clear, None)
            jax.lax.fori_loop(number + 1, blocks, clear, None)
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
        d_table[pl.ds(number, 1)] = sums[None]
        row.store_part(d_qkv, number, Q, d_queries)

    if tiling.share > 1:

        def step(i: Any, _: None) -> None:
            of_keys(i)
            of_queries(i)

        jax.lax.fori_loop(*tiling.own(tokens), step, None)
    else:
        number = pl.program_id(2)
        pl.when(number < blocks)(lambda: of_keys(number))
        pl.when(number >= blocks)(lambda: of_queries(number - blocks))
