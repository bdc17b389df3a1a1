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
    PROBLEM,
    K,
    Q,
    Rule,
    Tiling,
    V,
    backward_kernel,
    forward_kernel,
)

# Rows up to this long, and packed ones, are done in small blocks: most of a large one
# would be hidden.
SHORT = 128
# Programs that keep a GPU busy. Fewer find more of what they read nearby.
MANY = 4096


def fits(tokens: int, head_width: int, window: int) -> bool:
    """Whether the kernels take rows, heads and a window of biases of these sizes."""
    is_narrow = 2 * window + 3 <= FACTOR
    return kernels.fits(head_width, 128) and tokens < PROBLEM // 2 and is_narrow


def make_tiling(
    rule: Rule, rows: int, heads: int, tokens: int, is_forward: bool
) -> Tiling:
    """What was fastest on a GPU (docs/experiments.md), for rows of so many tokens."""
    if is_forward and tokens > SHORT and not rule.packed:
        return Tiling(block=64, warps=4, stages=2, share=3)
    blocks = -(-tokens // 16)
    return Tiling(block=16, share=min(max(rows * heads * blocks // MANY, 1), blocks))


def spec(kind: str, blocks: int, block: int, width: int) -> pl.BlockSpec:
    """The part of an array that belongs to a program: of one row and head.

    Args:
        kind: `qkv` [b t 3 h c], `heads` [b t h c], `sums` [b h t], `codes` [b t],
            `table` [h n], `tables` [b h i n], `pairs` [b h t t] or `shared` [1 h t t].
        blocks: Of a row.
        block: Tokens of one.
        width: Of a head.
    """
    rows = blocks * block
    specs = {
        "qkv": ((None, rows, 3, None, width), lambda b, h, i: (b, 0, 0, h, 0)),
        "heads": ((None, rows, None, width), lambda b, h, i: (b, 0, h, 0)),
        "sums": ((None, None, rows), lambda b, h, i: (b, h, 0)),
        "codes": ((None, rows), lambda b, h, i: (b, 0)),
        "table": ((None, COLUMNS), lambda b, h, i: (h, 0)),
        "tables": ((None, None, blocks, COLUMNS), lambda b, h, i: (b, h, 0, 0)),
        "pairs": ((None, None, rows, rows), lambda b, h, i: (b, h, 0, 0)),
        "shared": ((None, None, rows, rows), lambda b, h, i: (0, h, 0, 0)),
    }
    return pl.BlockSpec(*specs[kind])


@functools.partial(jax.jit, static_argnums=range(5))
def run_kernel(
    kernel: Callable[..., None],
    rule: Rule,
    tiling: Tiling,
    names: tuple[str, ...],
    outputs: tuple[tuple[str, jax.ShapeDtypeStruct], ...],
    *arrays: Array,
) -> list[Array]:
    """Runs a kernel for every row and head: traced once for all layers.

    Args:
        kernel: What to run.
        rule: What is visible.
        tiling: How the work is shared.
        names: The `spec` of every array.
        outputs: The `spec` and the shape of every result.
        *arrays: `qkv` first.
    """
    rows, tokens, _, heads, width = arrays[0].shape
    blocks = -(-tokens // tiling.block)
    kinds = (*names, *(kind for kind, _ in outputs))
    specs = [spec(kind, blocks, tiling.block, width) for kind in kinds]
    programs = tiling.programs(tokens)
    if kernel is not forward_kernel and tiling.share == 1:
        programs *= 2  # those of the blocks of keys, then those of queries
    call = kernels.call(
        functools.partial(kernel, rule, tiling, tokens),
        (rows, heads, programs),
        tiling.warps,
        tiling.stages,
        in_specs=specs[: len(names)],
        out_specs=specs[len(names) :],
        out_shape=[shape for _, shape in outputs],
    )
    return list(call(*arrays))


def codes(
    start: Int[Array, "b t"] | None, place: Int[Array, "b t"]
) -> Int[Array, "b t"]:
    """What the mask and the bias are worked out from.

    Args:
        start: First token of each token's problem in the row; None: there is one.
        place: Abacus ids without offset, below `PROBLEM` / 2.
    """
    return place if start is None else place + PROBLEM * start


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
    names = ("qkv", "codes", "table", *(["sums"] * 2 * rule.normalise))
    if not rule.dense:
        return names
    return (*names, "shared" if arrays[-1].shape[0] == 1 else "pairs")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    rule: Rule,
    qkv: Float[Array, "b t 3 h c"],
    code: Int[Array, "b t"],
    table: Float[Array, "h 16"],
    bias: Float[Array, "#b h t t"] | None = None,
) -> Float[Array, "b t h c"]:
    """Causal softmax attention with logits factor * q.k + bias.

    Args:
        rule: What is visible, and whether there are biases and a norm.
        qkv: Queries, keys and values.
        code: From `codes`.
        table: From `make_table`. The factor has a gradient with `rule.normalise`.
        bias: With `rule.dense`, of every pair of tokens.
    """
    return forward(rule, qkv, code, table, bias)[0]


def forward(
    rule: Rule, qkv: Array, code: Array, table: Array, bias: Array | None
) -> tuple[Array, Any]:
    """Output, and what the backward pass needs."""
    b, t, _, h, c = qkv.shape
    arrays = [qkv, code, table]
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
    out, norm = run_kernel(forward_kernel, rule, tiling, names, outputs, *arrays)
    return out, (arrays, out, norm)


def backward(rule: Rule, kept: Any, d_out: Array) -> tuple[Any, ...]:
    """Gradients of `attend`."""
    arrays, out, norm = kept
    qkv, code, *_ = arrays
    b, t, _, h, _ = qkv.shape
    drift = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), axis=-1)
    inputs = (*arrays, norm, jnp.moveaxis(drift, 1, 2), d_out)
    names = (*kinds(rule, arrays), "sums", "sums", "heads")
    tiling = make_tiling(rule, b, h, t, False)
    tables = (b, h, -(-t // tiling.block), COLUMNS)
    outputs = (
        ("qkv", jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)),
        ("tables", jax.ShapeDtypeStruct(tables, jnp.float32)),
    )
    if rule.dense:
        pairs = jax.ShapeDtypeStruct((b, h, t, t), arrays[-1].dtype)
        outputs += (("pairs", pairs),)
    found = run_kernel(backward_kernel, rule, tiling, names, outputs, *inputs)
    d_qkv, d_tables, *d_bias = found
    d_dense = d_bias[0] if d_bias else None
    if d_dense is not None and arrays[-1].shape[0] == 1:
        total = jnp.sum(d_dense.astype(jnp.float32), axis=0, keepdims=True)
        d_dense = total.astype(d_dense.dtype)
    none = np.zeros(code.shape, jax.dtypes.float0)
    return d_qkv, none, jnp.sum(d_tables, axis=(0, 2)), d_dense


attend.defvjp(forward, backward)
