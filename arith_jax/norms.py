"""LayerNorm of a sum, with a gradient that keeps the inputs only.

On a GPU both passes are one kernel each: every number is read once and written once.
Elsewhere they are plain operations. Imports `kernels`.

Source:
    Ba et al. 2016; partial sums of the parameters' gradients, one for each program,
    after the Triton tutorial on layer normalisation.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from arith_jax import kernels
from arith_jax.kernels import triton

# Numbers that a program of the forward and of the backward pass holds at a time, at
# least one row; the widest row. One group of threads a program has nobody to wait for.
HELD, HELD_BACKWARD, WIDEST = 1024, 512, 4096
PROGRAMS = 1056  # of the backward pass: 8 for each multiprocessor of an H100


def standardised(x: Any, eps: float) -> tuple[Any, Any]:
    """Rows of mean 0 and variance 1, and what they were multiplied with; float32."""
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * factor, factor


def gradient_of_standardised(unit: Any, factor: Any, d_unit: Any) -> Any:
    """Gradient to the rows that were standardised."""
    mean = jnp.mean(d_unit, axis=-1, keepdims=True)
    along = jnp.mean(d_unit * unit, axis=-1, keepdims=True)
    return factor * (d_unit - mean - unit * along)


def load(number: Any, rows: int, refs: Any) -> tuple[Any, Any]:
    """Sum of a block of rows of some arrays, in the first one's dtype, and its mask."""
    held = refs[0].shape[0]
    mask = (number * held + jnp.arange(held) < rows)[:, None]
    first, *others = (triton.load(ref, mask=mask, other=0) for ref in refs)
    for other in others:
        first = first + other
    return first, mask


def forward_kernel(eps: float, rows: int, count: int, *refs: Any) -> None:
    """Norm of a block of rows: `count` inputs, scale, bias, what is added, output."""
    inputs, (scale, bias, *added, out) = refs[:count], refs[count:]
    x, mask = load(pl.program_id(0), rows, inputs)
    unit, _ = standardised(x, eps)
    found = (unit * scale[...][None] + bias[...][None]).astype(out.dtype)
    for ref in added:
        found += triton.load(ref, mask=mask, other=0)
    triton.store(out, found, mask=mask)


def backward_kernel(eps: float, rows: int, held: int, count: int, *refs: Any) -> None:
    """Gradients of every `PROGRAMS`-th block of rows; sums for the parameters.

    The first `count` references are what was added up; what follows the norm's gradient
    is added to theirs.
    """
    inputs, (scale, d_out, *others) = refs[:count], refs[count:-3]
    d_x, d_scale, d_bias = refs[-3:]
    blocks, zeros = -(-rows // held), jnp.zeros((held, *scale.shape), jnp.float32)
    program = pl.program_id(0)

    def add(step: Any, sums: Any) -> Any:
        number = program + step * pl.num_programs(0)
        part = lambda ref: ref.at[pl.ds(number * held, held)]
        x, mask = load(number, rows, [part(ref) for ref in inputs])
        d_rows = triton.load(part(d_out), mask=mask, other=0).astype(jnp.float32)
        unit, factor = standardised(x, eps)
        found = gradient_of_standardised(unit, factor, d_rows * scale[...][None])
        for other in others:
            found += triton.load(part(other), mask=mask, other=0).astype(jnp.float32)
        triton.store(part(d_x), found.astype(d_x.dtype), mask=mask)
        return sums[0] + d_rows * unit, sums[1] + d_rows

    mine = (blocks - program + pl.num_programs(0) - 1) // pl.num_programs(0)
    # Sums over rows come last: they make the threads wait for each other.
    sums = jax.lax.fori_loop(0, mine, add, (zeros, zeros))
    d_scale[...], d_bias[...] = (jnp.sum(x, axis=0) for x in sums)


def fits(width: int) -> bool:
    """Whether the kernels take rows of this width."""
    return kernels.fits(width, WIDEST)


def spread(vector: Array, rows: Array) -> Array:
    """The vector with as many axes as the rows, whose last one is its own."""
    return vector.reshape((1,) * (rows.ndim - 1) + vector.shape)


# Both are traced once for all layers, which saves seconds.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_forward(
    eps: float,
    dtype: str,
    held: int,
    inputs: tuple[Float[Array, "n d"], ...],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    added: tuple[Float[Array, "n d"], ...],
) -> Float[Array, "n d"]:
    """The norm of a sum of rows, and what is added to it, `held` rows at a time."""
    rows, width = inputs[0].shape
    block = pl.BlockSpec((held, width), lambda i: (i, 0))
    whole = pl.BlockSpec((width,), lambda i: (0,))
    return kernels.call(
        functools.partial(forward_kernel, eps, rows, len(inputs)),
        (-(-rows // held),),
        in_specs=[*(block for _ in inputs), whole, whole, *(block for _ in added)],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct((rows, width), dtype),
    )(*inputs, scale, bias, *added)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_backward(
    eps: float,
    held: int,
    programs: int,
    inputs: tuple[Float[Array, "n d"], ...],
    scale: Float[Array, " d"],
    d_outs: tuple[Float[Array, "n d"], ...],
) -> tuple[Float[Array, "n d"], Float[Array, " d"], Float[Array, " d"]]:
    """Gradients to the sum, the scale and the bias, `held` rows a program at a time.

    `d_outs` are those to the norm and, if it has one from elsewhere, to the sum.
    """
    rows, width = inputs[0].shape
    programs = min(programs, -(-rows // held))
    row = pl.BlockSpec((rows, width), lambda i: (0, 0))
    whole = pl.BlockSpec((width,), lambda i: (0,))
    partial = pl.BlockSpec((None, width), lambda i: (i, 0))
    sums = jax.ShapeDtypeStruct((programs, width), jnp.float32)
    d_x, d_scale, d_bias = kernels.call(
        functools.partial(backward_kernel, eps, rows, held, len(inputs)),
        (programs,),
        in_specs=[*(row for _ in inputs), whole, *(row for _ in d_outs)],
        out_specs=[row, partial, partial],
        out_shape=[jax.ShapeDtypeStruct(inputs[0].shape, inputs[0].dtype), sums, sums],
    )(*inputs, scale, *d_outs)
    return d_x, jnp.sum(d_scale, axis=0), jnp.sum(d_bias, axis=0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def layer_norm(
    inputs: tuple[Float[Array, "*dims d"], ...],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    eps: float,
    dtype: str,
    in_kernel: bool,
    added: tuple[Float[Array, "*dims d"], ...] = (),
) -> Float[Array, "*dims d"]:
    """LayerNorm over the last axis of the sum of some arrays of one shape and dtype.

    Args:
        inputs: What is added up, in their own dtype.
        scale: Of the result.
        bias: Of the result.
        eps: Added to the variance.
        dtype: Of the result; statistics are in float32.
        in_kernel: Whether a GPU's kernels do it (`fits`).
        added: What is added to the result, in its dtype.
    """
    if not in_kernel:
        unit, _ = standardised(sum(inputs[1:], inputs[0]), eps)
        out = (unit * spread(scale, unit) + spread(bias, unit)).astype(dtype)
        return sum(added, out)
    held = max(HELD // inputs[0].shape[-1], 1)
    flat, others = (tuple(map(kernels.as_rows, xs)) for xs in (inputs, added))
    out = run_forward(eps, dtype, held, flat, scale, bias, others)
    return out.reshape(inputs[0].shape)


def gradients(
    eps: float,
    in_kernel: bool,
    inputs: tuple[Array, ...],
    scale: Array,
    d_out: Array,
    d_sum: Array | None = None,
) -> tuple[tuple[Array, ...], Array, Array]:
    """Gradients to inputs, scale and bias: the same one for all that was added up.

    Args:
        eps: As in `layer_norm`.
        in_kernel: As in `layer_norm`.
        inputs: As in `layer_norm`.
        scale: As in `layer_norm`.
        d_out: Gradient to the norm.
        d_sum: Gradient to the sum from elsewhere, added to that through the norm.
    """
    if not in_kernel:
        unit, factor = standardised(sum(inputs[1:], inputs[0]), eps)
        d_rows = d_out.astype(jnp.float32)
        d_x = gradient_of_standardised(unit, factor, d_rows * spread(scale, d_rows))
        axes = tuple(range(d_rows.ndim - 1))
        sums = jnp.sum(d_rows * unit, axes), jnp.sum(d_rows, axes)
        d_x = d_x.astype(inputs[0].dtype)
        return (d_x if d_sum is None else d_x + d_sum,) * len(inputs), *sums
    held = max(HELD_BACKWARD // inputs[0].shape[-1], 1)
    d_outs = (d_out,) if d_sum is None else (d_out, d_sum)
    flat, d_outs = (tuple(map(kernels.as_rows, xs)) for xs in (inputs, d_outs))
    d_x, d_scale, d_bias = run_backward(eps, held, PROGRAMS, flat, scale, d_outs)
    return (d_x.reshape(inputs[0].shape),) * len(inputs), d_scale, d_bias


def forward(
    inputs: tuple[Array, ...], scale: Array, bias: Array, *rest: Any
) -> tuple[Array, Any]:
    """The norm, and what the backward pass needs: of what is added, the number."""
    *_, added = rest
    return layer_norm(inputs, scale, bias, *rest), (inputs, scale, ((),) * len(added))


def backward(
    eps: float, dtype: str, in_kernel: bool, kept: Any, d_out: Array
) -> tuple[tuple[Array, ...], Array, Array, tuple[Array, ...]]:
    """Gradients of `layer_norm`."""
    del dtype  # of `d_out`
    inputs, scale, added = kept
    found = gradients(eps, in_kernel, inputs, scale, d_out)
    return *found, (d_out,) * len(added)


layer_norm.defvjp(forward, backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def beside(
    x: Float[Array, "*dims d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    eps: float,
    dtype: str,
    in_kernel: bool,
) -> tuple[Float[Array, "*dims d"], Float[Array, "*dims d"]]:
    """An array, and its LayerNorm: for both, the gradient is one operation.

    Args:
        x: What goes past the norm and through it; the rest as in `layer_norm`.
        scale: Of the norm.
        bias: Of the norm.
        eps: Added to the variance.
        dtype: Of the norm.
        in_kernel: Whether a GPU's kernels do it.
    """
    return x, layer_norm((x,), scale, bias, eps, dtype, in_kernel)


def beside_forward(
    x: Array, scale: Array, bias: Array, *options: Any
) -> tuple[tuple[Array, Array], Any]:
    """Both, and what the backward pass needs."""
    return beside(x, scale, bias, *options), (x, scale)


def beside_backward(
    eps: float, dtype: str, in_kernel: bool, kept: Any, d_both: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """Gradients of `beside`."""
    del dtype  # of both
    (x, scale), (d_past, d_out) = kept, d_both
    (d_x,), d_scale, d_bias = gradients(eps, in_kernel, (x,), scale, d_out, d_past)
    return d_x, d_scale, d_bias


beside.defvjp(beside_forward, beside_backward)
