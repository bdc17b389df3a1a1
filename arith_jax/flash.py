"""Attention in one GPU kernel: logits and weights never reach the memory.

Mask, learned biases and the norm of queries and keys are worked out where they are
used, from a few numbers a token. The backward pass repeats the forward one, tile by
tile. Imports `flash_kernels` and `kernels`.

Source:
    FlashAttention (Dao et al. 2022) for the tiles, the running softmax and the
    recomputation; FlashAttention-2 (Dao 2023) for keys and queries in turn in the
    backward pass.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from arith_jax import kernels
from arith_jax.flash_kernels import (
    COLUMNS,
    FACTOR,
    K,
    Q,
    Rule,
    Tiling,
    V,
    backward_kernel,
    forward_kernel,
)

# Rows up to this long are done in small blocks: most of a large one would be hidden.
SHORT = 128
# Of packed rows, each of whose problems is done by a program.
PACKED = Tiling(block=16)
# Number of the array of bounds, if there are any.
BOUNDS = 3
# Programs that keep a GPU busy. Fewer find more of what they read nearby.
MANY = 4096


def fits(head_width: int, window: int) -> bool:
    """Whether the kernels take heads and a window of biases of these sizes."""
    return kernels.fits(head_width, 128) and 2 * window + 3 <= FACTOR


def make_tiling(
    rule: Rule, rows: int, heads: int, tokens: int, is_forward: bool
) -> Tiling:
    """What was fastest on a GPU (docs/experiments.md), for rows of so many tokens."""
    if rule.packed:
        return PACKED
    if is_forward and tokens > SHORT:
        return Tiling(block=64, warps=4, stages=2, share=3)
    blocks = -(-tokens // 16)
    return Tiling(block=16, share=min(max(rows * heads * blocks // MANY, 1), blocks))


def spec(kind: str, rows: int, programs: int, width: int) -> pl.BlockSpec:
    """The part of an array that belongs to a program: of one row and head.

    Args:
        kind: `qkv` [b t 3 h c], `heads` [b t h c], `sums` [b h t], `places` [b t],
            `table` [h n], `bounds` [b i + 1], `tables` [b h i n], `pairs` [b h t t] or
            `shared` [1 h t t].
        rows: Tokens that are addressed, at least those of a row.
        programs: i, those of a row and head that have a sum for the table.
        width: Of a head.
    """
    specs = {
        "qkv": ((None, rows, 3, None, width), lambda b, h, i: (b, 0, 0, h, 0)),
        "heads": ((None, rows, None, width), lambda b, h, i: (b, 0, h, 0)),
        "sums": ((None, None, rows), lambda b, h, i: (b, h, 0)),
        "places": ((None, rows), lambda b, h, i: (b, 0)),
        "bounds": ((None, programs + 1), lambda b, h, i: (b, 0)),
        "table": ((None, COLUMNS), lambda b, h, i: (h, 0)),
        "tables": ((None, None, programs, COLUMNS), lambda b, h, i: (b, h, 0, 0)),
        "pairs": ((None, None, rows, rows), lambda b, h, i: (b, h, 0, 0)),
        "shared": ((None, None, rows, rows), lambda b, h, i: (0, h, 0, 0)),
    }
    return pl.BlockSpec(*specs[kind])


@functools.partial(jax.jit, static_argnums=range(6))
def run_kernel(
    kernel: Callable[..., None],
    rule: Rule,
    tiling: Tiling,
    names: tuple[str, ...],
    outputs: tuple[tuple[str, jax.ShapeDtypeStruct], ...],
    aliases: tuple[tuple[int, int], ...],
    *arrays: Array,
) -> list[Array]:
    """Runs a kernel for every row and head: traced once for all layers.

    Args:
        kernel: What to run.
        rule: What is visible.
        tiling: How the work is shared.
        names: The `spec` of every array.
        outputs: The `spec` and the shape of every result.
        aliases: Numbers of arrays, and of the results that take their place.
        *arrays: `qkv` first.
    """
    rows, tokens, _, heads, width = arrays[0].shape
    # A problem's last block may end past the row.
    addressed = (-(-tokens // tiling.block) + 1) * tiling.block
    own = programs_of(rule, tiling, arrays)
    kinds = (*names, *(kind for kind, _ in outputs))
    specs = [spec(kind, addressed, own, width) for kind in kinds]
    programs = own
    if kernel is backward_kernel and not rule.packed and tiling.share == 1:
        programs *= 2  # those of the blocks of keys, then those of queries
    call = kernels.call(
        functools.partial(kernel, rule, tiling, tokens),
        (rows, heads, programs),
        tiling.warps,
        tiling.stages,
        in_specs=specs[: len(names)],
        out_specs=specs[len(names) :],
        out_shape=[shape for _, shape in outputs],
        input_output_aliases=dict(aliases),
    )
    return list(call(*arrays))


def programs_of(rule: Rule, tiling: Tiling, arrays: Sequence[Array]) -> int:
    """Programs of a row and head: of each problem, or of a few blocks."""
    if rule.packed:
        return arrays[BOUNDS].shape[1] - 1
    return tiling.programs(arrays[0].shape[1])


def bounds(lengths: Int[Array, "b n"], tokens: int) -> Int[Array, "b m"]:
    """First token of every problem of a row, and the number of tokens of the row.

    Args:
        lengths: Tokens of each problem; what is left belongs to the last one.
        tokens: Of a row.
    """
    ends = jnp.cumsum(lengths, axis=1).at[:, -1].set(tokens)
    return jnp.pad(ends, ((0, 0), (1, 0)))


def make_table(
    factor: Float[Array, " h"] | float, bias: Float[Array, "h n"] | None, heads: int
) -> Float[Array, "h 16"]:
    """The learned numbers of each head.

    Args:
        factor: On q.k.
        bias: Of the differences of ids, from -`Rule.edge` to `Rule.edge`.
        heads: Number of heads.
    """
    table = jnp.zeros((heads, COLUMNS)).at[:, FACTOR].set(factor)
    return table if bias is None else table.at[:, : bias.shape[1]].set(bias)


def inverse_rms(x: Float[Array, "*dims c"]) -> Float[Array, "*dims"]:
    """1 / root mean square of the last axis, computed in float32."""
    x = x.astype(jnp.float32)
    return jax.lax.rsqrt(jnp.mean(x * x, axis=-1) + 1e-6)


def kinds(rule: Rule, arrays: Sequence[Array]) -> tuple[str, ...]:
    """The `spec` of each of the arrays that both kernels read."""
    names = ("qkv", "places", "table", *(["bounds"] * rule.packed))
    names += ("sums",) * 2 * rule.normalise
    if not rule.dense:
        return names
    return (*names, "shared" if arrays[-1].shape[0] == 1 else "pairs")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    rule: Rule,
    qkv: Float[Array, "b t 3 h c"],
    place: Int[Array, "b t"],
    table: Float[Array, "h 16"],
    bounds: Int[Array, "b n"] | None = None,
    bias: Float[Array, "#b h t t"] | None = None,
) -> Float[Array, "b t h c"]:
    """Causal softmax attention with logits factor * q.k + bias.

    Args:
        rule: What is visible, and whether there are biases and a norm.
        qkv: Queries, keys and values.
        place: Abacus ids without offset.
        table: From `make_table`. The factor has a gradient with `rule.normalise`.
        bounds: With `rule.packed`, from `bounds`.
        bias: With `rule.dense`, of every pair of tokens.
    """
    return forward(rule, qkv, place, table, bounds, bias)[0]


def forward(
    rule: Rule,
    qkv: Array,
    place: Array,
    table: Array,
    bounds: Array | None,
    bias: Array | None,
) -> tuple[Array, Any]:
    """Output, and what the backward pass needs."""
    b, t, _, h, c = qkv.shape
    arrays = [qkv, place, table]
    if bounds is not None:
        arrays.append(bounds)
    if rule.normalise:
        sizes = inverse_rms(qkv[:, :, :V])
        arrays += [jnp.moveaxis(sizes[:, :, which], 1, 2) for which in (Q, K)]
    if bias is not None:
        arrays.append(bias)
    outputs = (
        ("heads", jax.ShapeDtypeStruct((b, t, h, c), qkv.dtype)),
        ("sums", jax.ShapeDtypeStruct((b, h, t), jnp.float32)),
    )
    tiling, names = make_tiling(rule, b, h, t, True), kinds(rule, arrays)
    out, norm = run_kernel(forward_kernel, rule, tiling, names, outputs, (), *arrays)
    return out, (arrays, out, norm)


def backward(rule: Rule, kept: Any, d_out: Array) -> tuple[Any, ...]:
    """Gradients of `attend`."""
    arrays, out, norm = kept
    qkv, place, *_ = arrays
    b, t, _, h, _ = qkv.shape
    drift = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)
    inputs = [*arrays, norm, jnp.moveaxis(drift, 1, 2), d_out]
    names = [*kinds(rule, arrays), "sums", "sums", "heads"]
    tiling = make_tiling(rule, b, h, t, False)
    tables = (b, h, programs_of(rule, tiling, arrays), COLUMNS)
    outputs = [
        ("qkv", jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)),
        ("tables", jax.ShapeDtypeStruct(tables, jnp.float32)),
    ]
    aliases = ()
    if rule.dense:
        zeros = jnp.zeros((b, h, t, t), arrays[-1].dtype)
        aliases = ((len(arrays), len(outputs)),)
        inputs.insert(len(arrays), zeros)
        names.insert(len(arrays), "pairs")
        outputs.append(("pairs", jax.ShapeDtypeStruct(zeros.shape, zeros.dtype)))
    options = rule, tiling, tuple(names), tuple(outputs), aliases
    d_qkv, d_tables, *d_bias = run_kernel(backward_kernel, *options, *inputs)
    d_dense = d_bias[0] if d_bias else None
    if d_dense is not None and arrays[-1].shape[0] == 1:
        total = jnp.sum(d_dense.astype(jnp.float32), axis=0, keepdims=True)
        d_dense = total.astype(d_dense.dtype)
    none = lambda x: np.zeros(x.shape, jax.dtypes.float0)
    d_bounds = none(arrays[BOUNDS]) if rule.packed else None
    return d_qkv, none(place), jnp.sum(d_tables, axis=(0, 2)), d_bounds, d_dense


attend.defvjp(forward, backward)
