"""The kernels of `flash`: one program for each row, head and block of tokens.

Written with Pallas for Triton. What makes them fast, besides never storing a logit: a
tile is compared by one integer a token; sums over a tile, for which all its threads
wait, are left to the end; loops, not copies of their bodies, keep registers free.
Imports nothing of the package.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

MASKED = -1e9
# Places of queries, keys and values in the array of all three.
Q, K, V = range(3)
# A token's code is its Abacus id + PROBLEM * the place of its problem in the row: codes
# of different problems differ by more than half of it.
PROBLEM = 2**15
# Learned numbers of a head: biases, then the factor on its logits.
FACTOR, COLUMNS = 15, 16
BLOCK, WARPS = 32, 4  # tokens of a block; groups of threads that work on a tile


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a query attends to beside its past, static.

    Attributes:
        edge: Differences of ids up to this, further ones clipped, have a learned bias;
            0: there is no bias. At most 7.
        window: Digits whose id differs by more are hidden; None: none is.
        normalise: Whether queries and keys are divided by their root mean square.
        dense: Whether there is a bias for every pair of tokens.
    """

    edge: int
    window: int | None
    normalise: bool
    dense: bool = False

    def __post_init__(self):
        if not 0 <= 2 * self.edge + 1 <= FACTOR:
            raise ValueError(f"edge={self.edge}: must be between 0 and {FACTOR // 2}")

    @property
    def num_biases(self) -> int:
        """Clipped differences of ids, if they have a bias."""
        return 2 * self.edge + 1 if self.edge else 0


class Row(NamedTuple):
    """One row and head in a kernel: references to its arrays, read block by block.

    The last block may end past the row: what is read there is 0.
    """

    tokens: int
    qkv: Any
    code: Any
    table: Any
    sizes: Any  # of queries and of keys: 1 / root mean square; (): not normalised
    bias: Any  # of every pair; None: there is none

    def inside(self, number: Any) -> tuple[Any, Any]:
        """Slice of a block, and which of its tokens are inside the row."""
        first = number * BLOCK
        return pl.ds(first, BLOCK), first + jnp.arange(BLOCK) < self.tokens

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
        return found.reshape(BLOCK, -1)

    def store_part(self, ref: Any, number: Any, which: int, value: Any) -> None:
        """Writes a block of queries, keys or values."""
        block, mask = self.inside(number)
        value = value.astype(ref.dtype).reshape(BLOCK, 1, -1)
        triton.store(ref.at[block, pl.ds(which, 1)], value, mask=mask[:, None, None])

    def pairs(self, ref: Any, queries: Any, keys: Any) -> tuple[Any, Any]:
        """A tile of an array for every pair of tokens, and what is inside the row."""
        (first, rows), (second, columns) = map(self.inside, (queries, keys))
        return ref.at[first, second], rows[:, None] & columns[None, :]

    def factor(self, number: Any, which: int) -> Any:
        """What every query or key is multiplied with."""
        size = self.load(self.sizes[which], number)
        return size * self.table[FACTOR] if which == Q else size


def tile(
    rule: Rule, row: Row, numbers: tuple[Any, Any], q: Any, k: Any
) -> tuple[Any, Any, Any]:
    """Logits of a block of queries and one of keys.

    Args:
        rule: What is visible.
        row: Where everything is.
        numbers: Of both blocks.
        q: Queries as they are stored.
        k: Keys as they are stored.

    Returns:
        Logits, -1e9 where hidden; their part that is a product; column of the bias.
    """
    places = [row.load(row.code, number) for number in numbers]
    index = [number * BLOCK + jnp.arange(BLOCK) for number in numbers]
    product = triton.dot(q, k.T)
    if rule.normalise:
        product *= row.factor(numbers[0], Q)[:, None] * row.factor(numbers[1], K)[None]
    else:
        product *= row.table[FACTOR]
    difference = places[0][:, None] - places[1][None, :]
    column = jnp.clip(difference, -rule.edge, rule.edge) + rule.edge
    learned = jnp.zeros((BLOCK, BLOCK), jnp.float32)
    for number in range(rule.num_biases):
        learned = jnp.where(column == number, row.table[number], learned)
    logits = product + learned
    if row.bias is not None:
        chosen, mask = row.pairs(row.bias, *numbers)
        logits += triton.load(chosen, mask=mask, other=0).astype(jnp.float32)
    distance = jnp.abs(difference)
    seen = (index[1][None, :] <= index[0][:, None]) & (distance < PROBLEM // 2)
    if rule.window is not None:
        is_symbol = (places[1] % PROBLEM == 0)[None, :]
        seen = seen & ((distance <= rule.window) | is_symbol)
    return jnp.where(seen, logits, MASKED), product, column


def make_row(rule: Rule, tokens: int, refs: Sequence[Any]) -> tuple[Row, list[Any]]:
    """The arrays that both kernels read, and the rest of the references."""
    qkv, code, table, *rest = refs
    sizes, rest = (rest[:2], rest[2:]) if rule.normalise else ((), rest)
    bias, *rest = rest if rule.dense else [None, *rest]
    return Row(tokens, qkv, code, table, sizes, bias), rest


def forward_kernel(rule: Rule, tokens: int, *refs: Any) -> None:
    """Output of one block of queries, and the logarithm of its softmax's divisor."""
    row, (out, norm) = make_row(rule, tokens, refs)
    number = pl.program_id(2)
    q = row.part(number, Q)

    def add(other: Any, carry: Any) -> Any:
        largest, total, found = carry
        logits, _, _ = tile(rule, row, (number, other), q, row.part(other, K))
        new = jnp.maximum(largest, jnp.max(logits, axis=1))
        weights, shrink = jnp.exp(logits - new[:, None]), jnp.exp(largest - new)
        values = row.part(other, V)
        found = found * shrink[:, None] + triton.dot(weights.astype(q.dtype), values)
        return new, total * shrink + jnp.sum(weights, axis=1), found

    # A query sees itself, in the last block: its largest logit is a real one.
    first = jnp.full((BLOCK,), -jnp.inf), jnp.zeros((BLOCK,))
    zeros = jnp.zeros((BLOCK, q.shape[1]), jnp.float32)
    largest, total, found = jax.lax.fori_loop(0, number + 1, add, (*first, zeros))
    row.store(out, number, found / total[:, None])
    row.store(norm, number, largest + jnp.log(total))


def backward_kernel(rule: Rule, tokens: int, *refs: Any) -> None:
    """Gradients of one block: as keys and values first, then as queries."""
    row, rest = make_row(rule, tokens, refs)
    norm, drift, d_out, d_qkv, d_table, *d_bias = rest
    number, blocks = pl.program_id(2), -(-tokens // BLOCK)
    q, k, v = (row.part(number, which) for which in (Q, K, V))
    width, dtype = q.shape[1], q.dtype
    zeros = jnp.zeros((BLOCK, width), jnp.float32)
    nothing = jnp.zeros((BLOCK, BLOCK), jnp.float32)

    def gradient(queries: Any, keys: Any, q: Any, k: Any, v: Any) -> Any:
        """Weights of a tile, gradient to its logits, its products and columns."""
        logits, product, column = tile(rule, row, (queries, keys), q, k)
        weights = jnp.exp(logits - row.load(norm, queries)[:, None])
        d_found = row.load(d_out, queries)
        d_weights = triton.dot(d_found, v.T) - row.load(drift, queries)[:, None]
        return weights, weights * d_weights, product, column, d_found

    def add_query(other: Any, carry: Any) -> Any:
        d_keys, d_values, along = carry
        theirs = row.part(other, Q)
        weights, d_logits, product, _, d_found = gradient(other, number, theirs, k, v)
        d_values += triton.dot(weights.astype(dtype).T, d_found)
        if rule.normalise:
            along += jnp.sum(d_logits * product, axis=0)
            d_logits *= row.factor(other, Q)[:, None]
        return d_keys + triton.dot(d_logits.astype(dtype).T, theirs), d_values, along

    none = jnp.zeros((BLOCK,), jnp.float32)
    first = zeros, zeros, none
    carry = jax.lax.fori_loop(number, blocks, add_query, first)
    d_keys, d_values, along = carry
    if rule.normalise:
        size = row.load(row.sizes[K], number)
        d_keys = size[:, None] * d_keys - (along * size * size / width)[:, None] * k
    else:
        d_keys *= row.table[FACTOR]
    row.store_part(d_qkv, number, K, d_keys)
    row.store_part(d_qkv, number, V, d_values)

    def add_key(other: Any, carry: Any) -> Any:
        d_queries, along, *d_columns = carry
        theirs, values = row.part(other, K), row.part(other, V)
        _, d_logits, product, column, _ = gradient(number, other, q, theirs, values)
        for ref in d_bias:
            chosen, mask = row.pairs(ref, number, other)
            triton.store(chosen, d_logits.astype(ref.dtype), mask=mask)
        # Sums over a tile come last: they make the threads wait for each other.
        for index in range(rule.num_biases):
            d_columns[index] += jnp.where(column == index, d_logits, 0.0)
        if rule.normalise:
            along += jnp.sum(d_logits * product, axis=1)
            d_logits *= row.factor(other, K)[None]
        return d_queries + triton.dot(d_logits.astype(dtype), theirs), along, *d_columns

    first = (zeros, none, *([nothing] * rule.num_biases))
    carry = jax.lax.fori_loop(0, number + 1, add_key, first)
    d_queries, along, *d_columns = carry
    for ref in d_bias:

        def clear(other: Any, _: None, ref: Any = ref) -> None:
            chosen, mask = row.pairs(ref, number, other)
            triton.store(chosen, nothing.astype(ref.dtype), mask=mask)

        jax.lax.fori_loop(number + 1, blocks, clear, None)
    columns = jnp.arange(COLUMNS)
    found = jnp.zeros((COLUMNS,), jnp.float32)
    for index, sums in enumerate(d_columns):
        found += jnp.where(columns == index, jnp.sum(sums), 0.0)
    if rule.normalise:
        size, factor = row.load(row.sizes[Q], number), row.table[FACTOR]
        found += jnp.where(columns == FACTOR, jnp.sum(along) / factor, 0.0)
        d_queries *= (size * factor)[:, None]
        d_queries -= (along * size * size / width)[:, None] * q
    else:
        d_queries *= row.table[FACTOR]
    d_table[...] = found
    row.store_part(d_qkv, number, Q, d_queries)
