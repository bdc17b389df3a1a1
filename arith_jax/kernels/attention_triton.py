"""The kernels of `attention`: each program computes some blocks of one row and head.

Besides never storing a logit, three things make them fast. Each segment is done by
itself, from its first token on; small tiles have few hidden pairs and need one warp
only, without synchronisation; and loops, unlike copies of their bodies, keep registers
free.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from arith_jax.kernels.attention_spec import (
    COLUMNS,
    FACTOR,
    AttentionSpec,
    BackwardInputs,
    Gradients,
    Inputs,
    K,
    Q,
    Tiling,
    V,
)
from arith_jax.kernels.pallas import triton

# Logit of a hidden key.
MASKED = -1e9


class Segment(NamedTuple):
    """One segment and head in a kernel, whose arrays are addressed block by block.

    The last block may end past the segment: what is read there is 0, and nothing is
    written there.

    Attributes:
        first: Index in the row of the first token.
        num_tokens: Tokens of the segment.
        block_size: Tokens per block.
        inputs: References to what both kernels read.
        table: The numbers of the head's table that are used, by column.
    """

    first: Any
    num_tokens: Any
    block_size: int
    inputs: Inputs
    table: dict[int, Any]

    @property
    def num_blocks(self) -> Any:
        """Number of blocks."""
        return (self.num_tokens + self.block_size - 1) // self.block_size

    def slice_of(self, block: Any) -> tuple[Any, Any]:
        """Slice of a block, and which of its tokens are inside the segment."""
        begin = block * self.block_size
        is_inside = begin + jnp.arange(self.block_size) < self.num_tokens
        return pl.ds(self.first + begin, self.block_size), is_inside

    def load(self, ref: Any, block: Any) -> Any:
        """Reads a block of an array: [block] or [block c]."""
        tokens, mask = self.slice_of(block)
        mask = mask if len(ref.shape) == 1 else mask[:, None]
        return triton.load(ref.at[tokens], mask=mask, other=0)

    def store(self, ref: Any, block: Any, value: Any) -> None:
        """Writes a block of an array."""
        tokens, mask = self.slice_of(block)
        mask = mask if len(ref.shape) == 1 else mask[:, None]
        triton.store(ref.at[tokens], value.astype(ref.dtype), mask=mask)

    def load_qkv(self, block: Any, which: int) -> Any:
        """Reads a block of queries, keys or values [block c]."""
        tokens, mask = self.slice_of(block)
        part = self.inputs.qkv.at[tokens, pl.ds(which, 1)]
        value = triton.load(part, mask=mask[:, None, None], other=0)
        return value.reshape(self.block_size, -1)

    def store_qkv(self, ref: Any, block: Any, which: int, value: Any) -> None:
        """Writes a block of queries, keys or values."""
        tokens, mask = self.slice_of(block)
        value = value.astype(ref.dtype).reshape(self.block_size, 1, -1)
        triton.store(ref.at[tokens, pl.ds(which, 1)], value, mask=mask[:, None, None])

    def tile_of(self, ref: Any, q_block: Any, k_block: Any) -> tuple[Any, Any]:
        """A tile of an array of all pairs, and which pairs are in the segment."""
        queries, is_query = self.slice_of(q_block)
        keys, is_key = self.slice_of(k_block)
        return ref.at[queries, keys], is_query[:, None] & is_key[None, :]

    def factor(self, block: Any, which: int) -> Any:
        """What normalises every query or key; the head's factor is on the queries."""
        inverse_norm = self.load(self.inputs.inverse_norms[which], block)
        return inverse_norm * self.table[FACTOR] if which == Q else inverse_norm


class Tile(NamedTuple):
    """A block of queries and one of keys, [queries keys] or transposed.

    Attributes:
        logits: Logits, -1e9 where hidden.
        product: Their part without biases.
        difference: Differences of position ids.
    """

    logits: Any
    product: Any
    difference: Any


def make_tile(
    spec: AttentionSpec,
    segment: Segment,
    q_block: Any,
    k_block: Any,
    q: Any,
    k: Any,
    is_transposed: bool = False,
) -> Tile:
    """Logits of a block of queries and one of keys.

    Args:
        spec: What is visible.
        segment: Where everything is.
        q_block: Index of the block of queries.
        k_block: Index of the block of keys.
        q: The queries as they are stored.
        k: The keys as they are stored.
        is_transposed: Whether the first axis is that of the keys.
    """
    along_keys, along_queries = (lambda x: x[None, :]), (lambda x: x[:, None])
    if is_transposed:
        along_keys, along_queries = along_queries, along_keys
    product = triton.dot(k, q.T) if is_transposed else triton.dot(q, k.T)
    if spec.qk_norm:
        q_factor, k_factor = segment.factor(q_block, Q), segment.factor(k_block, K)
        product *= along_queries(q_factor) * along_keys(k_factor)
    else:
        product *= segment.table[FACTOR]
    k_ids = segment.load(segment.inputs.position_ids, k_block)
    q_ids = segment.load(segment.inputs.position_ids, q_block)
    difference = along_queries(q_ids) - along_keys(k_ids)
    bias = jnp.zeros(product.shape, jnp.float32)
    for column in spec.bias_columns:
        has_bias = spec.has_bias(difference, column)
        bias = jnp.where(has_bias, segment.table[column], bias)
    logits = product + bias
    if segment.inputs.bias is not None:
        part, mask = segment.tile_of(segment.inputs.bias, q_block, k_block)
        bias = triton.load(part, mask=mask, other=0).astype(jnp.float32)
        logits += bias.T if is_transposed else bias
    index = jnp.arange(segment.block_size)
    q_index, k_index = (segment.block_size * i + index for i in (q_block, k_block))
    is_visible = along_keys(k_index) <= along_queries(q_index)
    if spec.window is not None:
        is_near = jnp.abs(difference) <= spec.window
        is_visible = is_visible & (is_near | along_keys(k_ids == 0))
    return Tile(jnp.where(is_visible, logits, MASKED), product, difference)


def make_segment(
    spec: AttentionSpec, tiling: Tiling, num_tokens: int, inputs: Inputs
) -> Segment:
    """The segment of this program; without packing it is the whole row."""
    first, end = 0, num_tokens
    if inputs.bounds is not None:
        first, end = (inputs.bounds[pl.program_id(2) + i] for i in (0, 1))
    columns = (*spec.bias_columns, FACTOR)
    table = {column: inputs.table[column] for column in columns}
    return Segment(first, end - first, tiling.block_size, inputs, table)


def block_range(tiling: Tiling, segment: Segment) -> tuple[Any, Any]:
    """First block of this program, and the one after its last."""
    if tiling.blocks_per_program is None:
        return 0, segment.num_blocks
    first = tiling.blocks_per_program * pl.program_id(2)
    return first, jnp.minimum(first + tiling.blocks_per_program, segment.num_blocks)


def forward_kernel(
    spec: AttentionSpec,
    tiling: Tiling,
    num_tokens: int,
    inputs: Inputs,
    out: Any,
    log_sum_exp: Any,
) -> None:
    """Output of some blocks of queries, and the logarithm of the softmax's divisor."""
    segment = make_segment(spec, tiling, num_tokens, inputs)

    def store_output(q_block: Any) -> None:
        q = segment.load_qkv(q_block, Q)

        def accumulate(k_block: Any, carry: Any) -> Any:
            largest, total, weighted = carry
            k = segment.load_qkv(k_block, K)
            logits = make_tile(spec, segment, q_block, k_block, q, k).logits
            new_largest = jnp.maximum(largest, jnp.max(logits, axis=1))
            weights = jnp.exp(logits - new_largest[:, None])
            shrink = jnp.exp(largest - new_largest)
            v = segment.load_qkv(k_block, V)
            values = triton.dot(weights.astype(q.dtype), v)
            total = total * shrink + jnp.sum(weights, axis=1)
            return new_largest, total, weighted * shrink[:, None] + values

        # A query sees itself, which is in the last block, so that its largest logit is
        # finally that of a visible key.
        block = (tiling.block_size,)
        zeros = jnp.zeros((*block, q.shape[1]), jnp.float32)
        initial = jnp.full(block, -jnp.inf), jnp.zeros(block), zeros
        largest, total, weighted = jax.lax.fori_loop(
            0, q_block + 1, accumulate, initial
        )
        segment.store(out, q_block, weighted / total[:, None])
        segment.store(log_sum_exp, q_block, largest + jnp.log(total))

    if tiling.has_loop:
        blocks = block_range(tiling, segment)
        jax.lax.fori_loop(*blocks, lambda block, _: store_output(block), None)
    else:
        store_output(pl.program_id(2))


def backward_kernel(
    spec: AttentionSpec,
    tiling: Tiling,
    num_tokens: int,
    inputs: Inputs,
    backward_inputs: BackwardInputs,
    gradients: Gradients,
) -> None:
    """Gradients of some blocks: of their keys and values, of their queries, or both.

    QK-norm makes a gradient orthogonal to its query or key: `radial` sums up the part
    along that vector, which is then subtracted.
    """
    segment = make_segment(spec, tiling, num_tokens, inputs)
    zeros = jnp.zeros((tiling.block_size,), jnp.float32)

    def tile_gradients(
        q_block: Any, k_block: Any, q: Any, k: Any, v: Any, is_transposed: bool
    ) -> tuple[Tile, Any, Any, Any]:
        """A tile, its weights, and the gradients of its logits and of the output."""
        tile = make_tile(spec, segment, q_block, k_block, q, k, is_transposed)
        spread = (lambda x: x[None, :]) if is_transposed else (lambda x: x[:, None])
        divisor = segment.load(backward_inputs.log_sum_exp, q_block)
        weights = jnp.exp(tile.logits - spread(divisor))
        d_out = segment.load(backward_inputs.d_out, q_block)
        d_weights = triton.dot(v, d_out.T) if is_transposed else triton.dot(d_out, v.T)
        delta = segment.load(backward_inputs.delta, q_block)
        return tile, weights, weights * (d_weights - spread(delta)), d_out

    def key_gradients(k_block: Any) -> None:
        """Stores the gradients of a block of keys and of values."""
        k, v = (segment.load_qkv(k_block, which) for which in (K, V))

        def accumulate(q_block: Any, carry: Any) -> Any:
            d_keys, d_values, radial = carry
            q = segment.load_qkv(q_block, Q)
            tile, weights, d_logits, d_out = tile_gradients(
                q_block, k_block, q, k, v, True
            )
            d_values += triton.dot(weights.astype(v.dtype), d_out)
            if spec.qk_norm:
                radial += jnp.sum(d_logits * tile.product, axis=1)
                d_logits *= segment.factor(q_block, Q)[None]
            d_keys += triton.dot(d_logits.astype(q.dtype), q)
            return d_keys, d_values, radial

        zero_keys = jnp.zeros(k.shape, jnp.float32)
        d_keys, d_values, radial = jax.lax.fori_loop(
            k_block, segment.num_blocks, accumulate, (zero_keys, zero_keys, zeros)
        )
        if spec.qk_norm:
            factor = segment.factor(k_block, K)
            radial *= factor * factor / k.shape[1]
            d_keys = factor[:, None] * d_keys - radial[:, None] * k
        else:
            d_keys *= segment.table[FACTOR]
        segment.store_qkv(gradients.qkv, k_block, K, d_keys)
        segment.store_qkv(gradients.qkv, k_block, V, d_values)

    def query_gradients(q_block: Any) -> Any:
        """Stores the gradient of a block of queries; returns that of the table."""
        q = segment.load_qkv(q_block, Q)

        def accumulate(k_block: Any, carry: Any) -> Any:
            d_queries, radial, *d_columns = carry
            k, v = (segment.load_qkv(k_block, which) for which in (K, V))
            tile, _, d_logits, _ = tile_gradients(q_block, k_block, q, k, v, False)
            if gradients.bias is not None:
                part, mask = segment.tile_of(gradients.bias, q_block, k_block)
                triton.store(part, d_logits.astype(gradients.bias.dtype), mask=mask)
            for i, column in enumerate(spec.bias_columns):
                has_bias = spec.has_bias(tile.difference, column)
                d_columns[i] += jnp.sum(jnp.where(has_bias, d_logits, 0.0), axis=1)
            if spec.qk_norm:
                radial += jnp.sum(d_logits * tile.product, axis=1)
                d_logits *= segment.factor(k_block, K)[None]
            d_queries += triton.dot(d_logits.astype(k.dtype), k)
            return d_queries, radial, *d_columns

        zero_queries = jnp.zeros(q.shape, jnp.float32)
        initial = zero_queries, zeros, *(zeros for _ in spec.bias_columns)
        d_queries, radial, *d_columns = jax.lax.fori_loop(
            0, q_block + 1, accumulate, initial
        )
        index, d_table = jnp.arange(COLUMNS), jnp.zeros((COLUMNS,), jnp.float32)
        for column, d_column in zip(spec.bias_columns, d_columns, strict=True):
            d_table += jnp.where(index == column, jnp.sum(d_column), 0.0)
        if spec.qk_norm:
            inverse_norm = segment.load(inputs.inverse_norms[Q], q_block)
            factor = segment.table[FACTOR]
            d_table += jnp.where(index == FACTOR, jnp.sum(radial) / factor, 0.0)
            d_queries *= (inverse_norm * factor)[:, None]
            radial = radial * inverse_norm * inverse_norm / q.shape[1]
            d_queries -= radial[:, None] * q
        else:
            d_queries *= segment.table[FACTOR]
        segment.store_qkv(gradients.qkv, q_block, Q, d_queries)
        return d_table

    program = pl.program_id(2)
    if tiling.has_loop:

        def block_gradients(block: Any, d_table: Any) -> Any:
            key_gradients(block)
            return d_table + query_gradients(block)

        zero_table = jnp.zeros((COLUMNS,), jnp.float32)
        blocks = block_range(tiling, segment)
        d_table = jax.lax.fori_loop(*blocks, block_gradients, zero_table)
        gradients.tables[pl.ds(program, 1)] = d_table[None]
    else:
        # The first half of the programs does keys and values, the second half queries.
        num_blocks = segment.num_blocks

        def store_second_half() -> None:
            block = program - num_blocks
            gradients.tables[pl.ds(block, 1)] = query_gradients(block)[None]

        pl.when(program < num_blocks)(lambda: key_gradients(program))
        pl.when(program >= num_blocks)(store_second_half)
