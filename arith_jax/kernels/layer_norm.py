"""LayerNorm of a sum, with a gradient that keeps only the inputs.

On a GPU each pass is one kernel that reads and writes every number once.

Source:
    Ba et al. 2016, arXiv:1607.06450. Each program adds up the parameters' gradients
    over its own rows, as in the Triton tutorial on layer normalisation.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from arith_jax.kernels import dispatch, pallas
from arith_jax.kernels.pallas import triton

# Numbers that a program holds in registers, if a row has no more. One warp per program
# needs no synchronisation.
ELEMENTS_PER_PROGRAM, ELEMENTS_PER_BACKWARD_PROGRAM = 1024, 512
MAX_WIDTH = 4096
# Programs of the backward pass: 8 for each multiprocessor of an H100.
BACKWARD_PROGRAMS = 1056


class Options(NamedTuple):
    """Static options of the differentiable functions.

    Attributes:
        eps: Added to the variance.
        dtype: Of the result; statistics are computed in float32.
        use_kernel: Whether the kernels do it.
    """

    eps: float
    dtype: str
    use_kernel: bool


def layer_norm(
    inputs: tuple[Float[Array, "*dims d"], ...],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    *,
    eps: float,
    dtype: str,
    use_kernel: bool,
) -> Float[Array, "*dims d"]:
    """LayerNorm over the last axis of the sum of some arrays.

    Args:
        inputs: The arrays to add up, in their common dtype.
        scale: Multiplies the normalised rows.
        bias: Added to the scaled rows.
        eps: Added to the variance.
        dtype: Of the result; statistics are computed in float32.
        use_kernel: Whether to use the kernels; rows of a width that they do not take
            are left to plain operations, with a warning.
    """
    options = make_options(inputs[0].shape[-1], eps, dtype, use_kernel)
    return _layer_norm(options, inputs, scale, bias)


def norm_with_residual(
    x: Float[Array, "*dims d"],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
    *,
    eps: float,
    dtype: str,
    use_kernel: bool,
) -> tuple[Float[Array, "*dims d"], Float[Array, "*dims d"]]:
    """An array for the residual connection, and its LayerNorm for the branch.

    The array is returned as it is, so that one operation computes its gradient through
    the norm and adds that of the residual connection.

    Args:
        x: The array.
        scale: As in `layer_norm`.
        bias: As in `layer_norm`.
        eps: As in `layer_norm`.
        dtype: As in `layer_norm`.
        use_kernel: As in `layer_norm`.
    """
    options = make_options(x.shape[-1], eps, dtype, use_kernel)
    return _norm_with_residual(options, x, scale, bias)


def make_options(width: int, eps: float, dtype: str, use_kernel: bool) -> Options:
    """Options for rows of some width, which the kernels may not take."""
    problem = dispatch.width_problem(width, MAX_WIDTH)
    return Options(eps, dtype, dispatch.chosen(use_kernel, "layer_norm", problem))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_norm(
    options: Options, inputs: tuple[Array, ...], scale: Array, bias: Array
) -> Array:
    """As `layer_norm`."""
    if not options.use_kernel:
        unit, _ = standardise(sum(inputs[1:], inputs[0]), options.eps)
        out = unit * add_axes(scale, unit) + add_axes(bias, unit)
        return out.astype(options.dtype)
    rows = tuple(map(pallas.as_rows, inputs))
    rows_per_program = max(ELEMENTS_PER_PROGRAM // rows[0].shape[-1], 1)
    out = run_forward(options, rows_per_program, rows, scale, bias)
    return out.reshape(inputs[0].shape)


def layer_norm_forward(
    options: Options, inputs: tuple[Array, ...], scale: Array, bias: Array
) -> tuple[Array, Any]:
    """The norm, and what the backward pass needs."""
    return _layer_norm(options, inputs, scale, bias), (inputs, scale)


def layer_norm_backward(
    options: Options, saved: tuple[tuple[Array, ...], Array], d_out: Array
) -> tuple[tuple[Array, ...], Array, Array]:
    """Gradients of `layer_norm`: the same one for everything that was added up."""
    inputs, scale = saved
    d_x, d_scale, d_bias = gradients(options, inputs, scale, d_out)
    return (d_x,) * len(inputs), d_scale, d_bias


_layer_norm.defvjp(layer_norm_forward, layer_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _norm_with_residual(
    options: Options, x: Array, scale: Array, bias: Array
) -> tuple[Array, Array]:
    """As `norm_with_residual`."""
    return x, _layer_norm(options, (x,), scale, bias)


def norm_with_residual_forward(
    options: Options, x: Array, scale: Array, bias: Array
) -> tuple[tuple[Array, Array], Any]:
    """Both results, and what the backward pass needs."""
    return _norm_with_residual(options, x, scale, bias), (x, scale)


def norm_with_residual_backward(
    options: Options, saved: tuple[Array, Array], d_results: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """Gradients of `norm_with_residual`."""
    x, scale = saved
    d_residual, d_out = d_results
    return gradients(options, (x,), scale, d_out, d_residual)


_norm_with_residual.defvjp(norm_with_residual_forward, norm_with_residual_backward)


def gradients(
    options: Options,
    inputs: tuple[Array, ...],
    scale: Array,
    d_out: Array,
    d_residual: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients with respect to the sum of the inputs, the scale and the bias.

    Args:
        options: Static options.
        inputs: What was added up.
        scale: As in `layer_norm`.
        d_out: Gradient with respect to the norm.
        d_residual: A further gradient with respect to the sum, which is added.
    """
    if not options.use_kernel:
        unit, factor = standardise(sum(inputs[1:], inputs[0]), options.eps)
        d_rows = d_out.astype(jnp.float32)
        d_x = standardise_gradient(unit, factor, d_rows * add_axes(scale, d_rows))
        axes = tuple(range(d_rows.ndim - 1))
        d_scale, d_bias = jnp.sum(d_rows * unit, axes), jnp.sum(d_rows, axes)
        d_x = d_x.astype(inputs[0].dtype)
        return d_x if d_residual is None else d_x + d_residual, d_scale, d_bias
    rows = tuple(map(pallas.as_rows, inputs))
    d_outs = (d_out,) if d_residual is None else (d_out, d_residual)
    d_outs = tuple(map(pallas.as_rows, d_outs))
    rows_per_program = max(ELEMENTS_PER_BACKWARD_PROGRAM // rows[0].shape[-1], 1)
    d_x, d_scale, d_bias = run_backward(
        options, rows_per_program, BACKWARD_PROGRAMS, rows, scale, d_outs
    )
    return d_x.reshape(inputs[0].shape), d_scale, d_bias


# Both are traced once for all layers, which saves seconds.
@functools.partial(jax.jit, static_argnums=(0, 1))
def run_forward(
    options: Options,
    rows_per_program: int,
    inputs: tuple[Float[Array, "n d"], ...],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
) -> Float[Array, "n d"]:
    """Runs the forward kernel on blocks of rows."""
    num_rows, width = inputs[0].shape
    block = pl.BlockSpec((rows_per_program, width), lambda i: (i, 0))
    vector = pl.BlockSpec((width,), lambda i: (0,))
    return pallas.call(
        functools.partial(forward_kernel, options.eps, num_rows),
        (-(-num_rows // rows_per_program),),
        in_specs=((block,) * len(inputs), vector, vector),
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct((num_rows, width), options.dtype),
    )(inputs, scale, bias)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_backward(
    options: Options,
    rows_per_program: int,
    max_programs: int,
    inputs: tuple[Float[Array, "n d"], ...],
    scale: Float[Array, " d"],
    d_outs: tuple[Float[Array, "n d"], ...],
) -> tuple[Float[Array, "n d"], Float[Array, " d"], Float[Array, " d"]]:
    """Runs the backward kernel; each program does several blocks of rows.

    Args:
        options: Static options.
        rows_per_program: Rows that a program does at a time.
        max_programs: Largest number of programs.
        inputs: What was added up.
        scale: As in `layer_norm`.
        d_outs: Gradient with respect to the norm and, if there is one, the residual's.
    """
    num_rows, width = inputs[0].shape
    num_programs = min(max_programs, -(-num_rows // rows_per_program))
    rows = pl.BlockSpec((num_rows, width), lambda i: (0, 0))
    vector = pl.BlockSpec((width,), lambda i: (0,))
    program_sum = pl.BlockSpec((None, width), lambda i: (i, 0))
    sums = jax.ShapeDtypeStruct((num_programs, width), jnp.float32)
    d_x, d_scale, d_bias = pallas.call(
        functools.partial(backward_kernel, options.eps, num_rows, rows_per_program),
        (num_programs,),
        in_specs=((rows,) * len(inputs), vector, (rows,) * len(d_outs)),
        out_specs=[rows, program_sum, program_sum],
        out_shape=[jax.ShapeDtypeStruct(inputs[0].shape, inputs[0].dtype), sums, sums],
    )(inputs, scale, d_outs)
    return d_x, jnp.sum(d_scale, axis=0), jnp.sum(d_bias, axis=0)


def forward_kernel(
    eps: float, num_rows: int, inputs: tuple[Any, ...], scale: Any, bias: Any, out: Any
) -> None:
    """The norm of one block of rows."""
    x, mask = load_sum(pl.program_id(0), num_rows, inputs)
    unit, _ = standardise(x, eps)
    value = (unit * scale[...][None] + bias[...][None]).astype(out.dtype)
    triton.store(out, value, mask=mask)


def backward_kernel(
    eps: float,
    num_rows: int,
    rows_per_program: int,
    inputs: tuple[Any, ...],
    scale: Any,
    d_outs: tuple[Any, ...],
    d_x: Any,
    d_scale: Any,
    d_bias: Any,
) -> None:
    """Gradients of every n-th block of rows, n being the number of programs.

    The parameters' gradients are summed over the rows of a program. `d_outs` are as in
    `run_backward`.
    """
    d_norm, *d_residual = d_outs
    program, num_programs = pl.program_id(0), pl.num_programs(0)
    num_blocks = -(-num_rows // rows_per_program)
    zeros = jnp.zeros((rows_per_program, *scale.shape), jnp.float32)

    def accumulate(step: Any, sums: Any) -> Any:
        block = program + step * num_programs
        part = lambda ref: ref.at[pl.ds(block * rows_per_program, rows_per_program)]
        x, mask = load_sum(block, num_rows, [part(ref) for ref in inputs])
        load = lambda ref: triton.load(part(ref), mask=mask, other=0)
        d_rows = load(d_norm).astype(jnp.float32)
        unit, factor = standardise(x, eps)
        d_sum = standardise_gradient(unit, factor, d_rows * scale[...][None])
        for ref in d_residual:
            d_sum += load(ref).astype(jnp.float32)
        triton.store(part(d_x), d_sum.astype(d_x.dtype), mask=mask)
        return sums[0] + d_rows * unit, sums[1] + d_rows

    num_steps = (num_blocks - program + num_programs - 1) // num_programs
    # Rows are summed after the loop: a sum over rows makes the threads wait.
    sums = jax.lax.fori_loop(0, num_steps, accumulate, (zeros, zeros))
    d_scale[...], d_bias[...] = (jnp.sum(x, axis=0) for x in sums)


def load_sum(block: Any, num_rows: int, refs: Any) -> tuple[Any, Any]:
    """Sum of the same block of rows of some arrays, in their dtype, and its mask."""
    rows_per_program = refs[0].shape[0]
    index = block * rows_per_program + jnp.arange(rows_per_program)
    mask = (index < num_rows)[:, None]
    first, *rest = (triton.load(ref, mask=mask, other=0) for ref in refs)
    return sum(rest, first), mask


def standardise(x: Any, eps: float) -> tuple[Any, Any]:
    """Rows of mean 0 and variance 1, and what they were multiplied by; float32."""
    x = x.astype(jnp.float32)
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    factor = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * factor, factor


def standardise_gradient(unit: Any, factor: Any, d_unit: Any) -> Any:
    """Gradient with respect to the rows that were standardised."""
    mean = jnp.mean(d_unit, axis=-1, keepdims=True)
    radial = jnp.mean(d_unit * unit, axis=-1, keepdims=True)
    return factor * (d_unit - mean - unit * radial)


def add_axes(vector: Array, rows: Array) -> Array:
    """The vector with as many axes as the rows: broadcasting is explicit here."""
    return vector.reshape((1,) * (rows.ndim - 1) + vector.shape)
