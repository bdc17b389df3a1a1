"""Attention in one GPU kernel: logits and weights never reach the GPU's memory.

Mask, learned biases and the norm of queries and keys are computed where they are used,
from a few numbers per token. The backward pass computes the weights again, tile by
tile.

Source:
    Dao et al. 2022, arXiv:2205.14135 (FlashAttention), for tiles, the running softmax
    and recomputation; Dao 2023, arXiv:2307.08691 (FlashAttention-2), for the separate
    loops over keys and over queries in the backward pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from arith_jax.devices import on_each_device
from arith_jax.kernels import dispatch, pallas
from arith_jax.kernels.attention_spec import (
    COLUMNS,
    FACTOR,
    AttentionSpec,
    BackwardInputs,
    Blocks,
    Gradients,
    Inputs,
    K,
    Q,
    Tiling,
    V,
)
from arith_jax.kernels.attention_triton import backward_kernel, forward_kernel

# The tilings that were fastest on a GPU: see docs/experiments.md.
PACKED_TILING = Tiling(block_size=16, blocks_per_program=None)
LONG_ROW_TILING = Tiling(block_size=64, num_warps=4, num_stages=2, blocks_per_program=3)
# Rows up to this length are done in small blocks: causality hides most of a large one.
MAX_SHORT_ROW = 128
# Enough programs to keep a GPU busy. With fewer, more of what each reads is in a cache.
PROGRAMS_TO_FILL_GPU = 4096
MAX_HEAD_WIDTH = 128


def attend(
    spec: AttentionSpec,
    qkv: Float[Array, "b t 3 h c"],
    position_ids: Int[Array, "b t"],
    table: Float[Array, "h 16"],
    *,
    bounds: Int[Array, "b n"] | None = None,
    bias: Float[Array, "#b h t t"] | None = None,
) -> Float[Array, "b t h c"]:
    """Causal softmax attention with logits factor * q.k + bias.

    Args:
        spec: What is visible, and which biases and norms there are.
        qkv: Queries, keys and values.
        position_ids: Position ids without offset; 0 for symbols, which no window hides.
        table: From `make_table`. Its factor has a gradient only with `spec.qk_norm`.
        bounds: From `segment_bounds`, with `spec.packed`.
        bias: Of every pair of tokens, with `spec.dense_bias`.

    Raises:
        ValueError: If `bounds` or `bias` is missing or not expected.
    """
    if spec.packed != (bounds is not None):
        raise ValueError(f"bounds with packed={spec.packed}: one needs the other")
    if spec.dense_bias != (bias is not None):
        raise ValueError(f"bias with dense_bias={spec.dense_bias}: one needs the other")
    inputs = Inputs(qkv, position_ids, table, bounds=bounds, bias=bias)
    is_split = Inputs(
        qkv=True,
        position_ids=True,
        table=False,
        bounds=None if bounds is None else True,
        bias=None if bias is None else not inputs.has_shared_bias,
    )
    attention = functools.partial(_attend, spec)
    return on_each_device(attention, (inputs,), (is_split,))


def problem(head_width: int, window: int) -> str:
    """Why the kernels cannot compute a model's attention, or "" if they can.

    Args:
        head_width: Numbers per head.
        window: Largest difference of position ids with a bias of its own; all larger
            ones share another.
    """
    max_window = (FACTOR - 1) // 2 - 1
    if window > max_window:
        return f"a window of {window} position ids is larger than {max_window}"
    return dispatch.width_problem(head_width, MAX_HEAD_WIDTH, "head width")


def segment_bounds(segment: Int[Array, "b t"], num_segments: int) -> Int[Array, "b n"]:
    """First token of every segment of a row, and the number of tokens of the row.

    Args:
        segment: Number of the segment of each token, from 0 to `num_segments` - 1 and
            never smaller than that of the token before. A segment may be empty.
        num_segments: Segments of a row; the result has one number more.
    """
    number = jnp.arange(num_segments + 1, dtype=segment.dtype)
    return jnp.sum(segment[:, None, :] < number[None, :, None], axis=-1)


def make_table(
    factor: Float[Array, " h"] | float, bias: Float[Array, "h n"] | None, num_heads: int
) -> Float[Array, "h 16"]:
    """The learned numbers of each head, as `attend` takes them.

    Args:
        factor: Multiplies q.k.
        bias: Of the differences of position ids from -`spec.max_difference` to
            `spec.max_difference`.
        num_heads: Number of heads.
    """
    table = jnp.zeros((num_heads, COLUMNS)).at[:, FACTOR].set(factor)
    return table if bias is None else table.at[:, : bias.shape[1]].set(bias)


def inverse_rms(x: Float[Array, "*dims c"]) -> Float[Array, "*dims"]:
    """1 / root mean square of the last axis, computed in float32."""
    x = x.astype(jnp.float32)
    return jax.lax.rsqrt(jnp.mean(x * x, axis=-1) + 1e-6)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(spec: AttentionSpec, inputs: Inputs) -> Array:
    """As `attend`."""
    return attend_forward(spec, inputs)[0]


def attend_forward(
    spec: AttentionSpec, inputs: Inputs
) -> tuple[Array, tuple[Inputs, Array, Array]]:
    """Output, and what the backward pass needs."""
    if spec.qk_norm:
        inverse = inverse_rms(inputs.qkv[:, :, :V])
        norms = tuple(jnp.moveaxis(inverse[:, :, which], 1, 2) for which in (Q, K))
        inputs = inputs._replace(inverse_norms=norms)
    tiling = choose_tiling(spec, inputs.qkv.shape, is_forward=True)
    out, log_sum_exp = run_forward(spec, tiling, inputs)
    return out, (inputs, out, log_sum_exp)


def attend_backward(
    spec: AttentionSpec, saved: tuple[Inputs, Array, Array], d_out: Array
) -> tuple[Inputs]:
    """Gradients of `attend`; integers have none, which JAX wants as float0."""
    inputs, out, log_sum_exp = saved
    b, t, _, h, _ = inputs.qkv.shape
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)
    zeros = None
    if inputs.bias is not None:
        zeros = jnp.zeros((b, h, t, t), inputs.bias.dtype)
    backward_inputs = BackwardInputs(
        log_sum_exp, jnp.moveaxis(delta, 1, 2), d_out, zeros
    )
    tiling = choose_tiling(spec, inputs.qkv.shape, is_forward=False)
    d_qkv, d_tables, d_bias = run_backward(spec, tiling, inputs, backward_inputs)
    if d_bias is not None and inputs.has_shared_bias:
        total = jnp.sum(d_bias.astype(jnp.float32), axis=0, keepdims=True)
        d_bias = total.astype(d_bias.dtype)
    float0 = lambda x: np.zeros(x.shape, jax.dtypes.float0)
    d_bounds = None if inputs.bounds is None else float0(inputs.bounds)
    d_table = jnp.sum(d_tables, axis=(0, 2))
    d_ids = float0(inputs.position_ids)
    return (Inputs(d_qkv, d_ids, d_table, bounds=d_bounds, bias=d_bias),)


_attend.defvjp(attend_forward, attend_backward)


def choose_tiling(
    spec: AttentionSpec, shape: tuple[int, ...], *, is_forward: bool
) -> Tiling:
    """The tiling for queries, keys and values of some shape [b t 3 h c]."""
    b, t, _, h, _ = shape
    if spec.packed:
        return PACKED_TILING
    if is_forward and t > MAX_SHORT_ROW:
        return LONG_ROW_TILING
    num_blocks = -(-t // 16)
    per_program = min(max(b * h * num_blocks // PROGRAMS_TO_FILL_GPU, 1), num_blocks)
    return Tiling(block_size=16, blocks_per_program=per_program)


def make_blocks(tiling: Tiling, inputs: Inputs) -> Blocks:
    """Block specs that reach as far as the last block of any segment."""
    _, t, _, _, c = inputs.qkv.shape
    num_blocks = -(-t // tiling.block_size) + 1
    return Blocks(num_blocks * tiling.block_size, c)


# Both are traced once for all layers, which saves seconds.
@functools.partial(jax.jit, static_argnums=(0, 1))
def run_forward(
    spec: AttentionSpec, tiling: Tiling, inputs: Inputs
) -> tuple[Array, Array]:
    """Runs the forward kernel: output, and logarithm of the softmax's divisor."""
    b, t, _, h, c = inputs.qkv.shape
    blocks = make_blocks(tiling, inputs)
    call = pallas.call(
        functools.partial(forward_kernel, spec, tiling, t),
        (b, h, inputs.num_programs(tiling)),
        tiling.num_warps,
        tiling.num_stages,
        in_specs=(inputs.block_specs(blocks),),
        out_specs=(blocks.heads(), blocks.token_scalars()),
        out_shape=(
            jax.ShapeDtypeStruct((b, t, h, c), inputs.qkv.dtype),
            jax.ShapeDtypeStruct((b, h, t), jnp.float32),
        ),
    )
    return call(inputs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def run_backward(
    spec: AttentionSpec, tiling: Tiling, inputs: Inputs, backward_inputs: BackwardInputs
) -> Gradients:
    """Runs the backward kernel."""
    qkv, zeros = inputs.qkv, backward_inputs.d_bias
    b, t, _, h, _ = qkv.shape
    blocks, num_tables = make_blocks(tiling, inputs), inputs.num_programs(tiling)
    shapes = Gradients(
        jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
        jax.ShapeDtypeStruct((b, h, num_tables, COLUMNS), jnp.float32),
    )
    specs = Gradients(blocks.qkv(), blocks.program_tables(num_tables))
    aliases, pairs = {}, None
    if zeros is not None:
        pairs = blocks.pairs()
        shapes = shapes._replace(bias=jax.ShapeDtypeStruct(zeros.shape, zeros.dtype))
        specs = specs._replace(bias=pairs)
        # The zeros are the last array and become the last result.
        aliases = {
            len(jax.tree.leaves((inputs, backward_inputs))) - 1: len(Gradients._fields)
            - 1
        }
    scalars = blocks.token_scalars()
    # Without a loop, a block's keys and its queries have a program each.
    num_programs = num_tables if tiling.has_loop else 2 * num_tables
    call = pallas.call(
        functools.partial(backward_kernel, spec, tiling, t),
        (b, h, num_programs),
        tiling.num_warps,
        tiling.num_stages,
        in_specs=(
            inputs.block_specs(blocks),
            BackwardInputs(scalars, scalars, blocks.heads(), pairs),
        ),
        out_specs=(specs,),
        out_shape=(shapes,),
        input_output_aliases=aliases,
    )
    (gradients,) = call(inputs, backward_inputs)
    return gradients
