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

from arith_jax.devices import on_each_device
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
        block_rows: Rows of a program of the forward pass.
        backward_block_rows: Rows that a program of the backward pass does at a time.
        max_programs: Of the backward pass.
    """

    eps: float
    dtype: str
    use_kernel: bool
    block_rows: int
    backward_block_rows: int
    max_programs: int


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
    norm = functools.partial(_layer_norm, options)
    if not options.use_kernel:
        return norm(inputs, scale, bias)
    is_split = ((True,) * len(inputs), False, False)
    return on_each_device(norm, (inputs, scale, bias), is_split)


def make_options(width: int, eps: float, dtype: str, use_kernel: bool) -> Options:
    """Options for rows of some width, which the kernels may not take."""
    problem = dispatch.width_problem(width, MAX_WIDTH)
    return Options(
        eps,
        dtype,
        use_kernel=dispatch.chosen(use_kernel, "layer_norm", problem),
        block_rows=max(ELEMENTS_PER_PROGRAM // width, 1),
        backward_block_rows=max(ELEMENTS_PER_BACKWARD_PROGRAM // width, 1),
        max_programs=BACKWARD_PROGRAMS,
    )


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
    out = run_forward(options, rows, scale, bias)
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
    if options.use_kernel:
        rows = tuple(map(pallas.as_rows, inputs))
        d_rows = pallas.as_rows(d_out)
        d_x, d_scale, d_bias = run_backward(options, rows, scale, d_rows)
        d_x = d_x.reshape(d_out.shape)
    else:
        unit, factor = standardise(sum(inputs[1:], inputs[0]), options.eps)
        d_rows = d_out.astype(jnp.float32)
        d_x = standardise_gradient(unit, factor, d_rows * add_axes(scale, d_rows))
        d_x = d_x.astype(inputs[0].dtype)
        axes = tuple(range(d_rows.ndim - 1))
        d_scale, d_bias = jnp.sum(d_rows * unit, axes), jnp.sum(d_rows, axes)
    return (d_x,) * len(inputs), d_scale, d_bias


_layer_norm.defvjp(layer_norm_forward, layer_norm_backward)


# Both are traced once for all layers, which saves seconds.
@functools.partial(jax.jit, static_argnums=0)
def run_forward(
    options: Options,
    inputs: tuple[Float[Array, "n d"], ...],
    scale: Float[Array, " d"],
    bias: Float[Array, " d"],
) -> Float[Array, "n d"]:
    """Runs the forward kernel on blocks of rows."""
    num_rows, width = inputs[0].shape
    block = pl.BlockSpec((options.block_rows, width), lambda i: (i, 0))
    vector = pl.BlockSpec((width,), lambda i: (0,))
    return pallas.call(
        functools.partial(forward_kernel, options.eps, num_rows),
        (-(-num_rows // options.block_rows),),
        in_specs=((block,) * len(inputs), vector, vector),
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct((num_rows, width), options.dtype),
    )(inputs, scale, bias)


@functools.partial(jax.jit, static_argnums=0)
def run_backward(
    options: Options,
    inputs: tuple[Float[Array, "n d"], ...],
    scale: Float[Array, " d"],
    d_out: Float[Array, "n d"],
) -> tuple[Float[Array, "n d"], Float[Array, " d"], Float[Array, " d"]]:
    """Runs the backward kernel; each program does several blocks of rows."""
    num_rows, width = inputs[0].shape
    block_rows = options.backward_block_rows
    num_programs = min(options.max_programs, -(-num_rows // block_rows))
    rows = pl.BlockSpec((num_rows, width), lambda i: (0, 0))
    vector = pl.BlockSpec((width,), lambda i: (0,))
    program_sum = pl.BlockSpec((None, width), lambda i: (i, 0))
    sums = jax.ShapeDtypeStruct((num_programs, width), jnp.float32)
    d_x, d_scale, d_bias = pallas.call(
        functools.partial(backward_kernel, options.eps, num_rows, block_rows),
        (num_programs,),
        in_specs=((rows,) * len(inputs), vector, rows),
        out_specs=[rows, program_sum, program_sum],
        out_shape=[jax.ShapeDtypeStruct(inputs[0].shape, inputs[0].dtype), sums, sums],
    )(inputs, scale, d_out)
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
    block_rows: int,
    inputs: tuple[Any, ...],
    scale: Any,
    d_out: Any,
    d_x: Any,
    d_scale: Any,
    d_bias: Any,
) -> None:
    """Gradients of every n-th block of rows, n being the number of programs.

    The parameters' gradients are summed over the rows of a program.
    """
    program, num_programs = pl.program_id(0), pl.num_programs(0)
    num_blocks = -(-num_rows // block_rows)
    zeros = jnp.zeros((block_rows, *scale.shape), jnp.float32)

    def accumulate(step: Any, sums: Any) -> Any:
        block = program + step * num_programs
        part = lambda ref: ref.at[pl.ds(block * block_rows, block_rows)]
        x, mask = load_sum(block, num_rows, [part(ref) for ref in inputs])
        d_rows = triton.load(part(d_out), mask=mask, other=0).astype(jnp.float32)
        unit, factor = standardise(x, eps)
        d_sum = standardise_gradient(unit, factor, d_rows * scale[...][None])
        triton.store(part(d_x), d_sum.astype(d_x.dtype), mask=mask)
        return sums[0] + d_rows * unit, sums[1] + d_rows

    num_steps = (num_blocks - program + num_programs - 1) // num_programs
    # Rows are summed after the loop: a sum over rows makes the threads wait.
    sums = jax.lax.fori_loop(0, num_steps, accumulate, (zeros, zeros))
    d_scale[...], d_bias[...] = (jnp.sum(x, axis=0) for x in sums)


def load_sum(block: Any, num_rows: int, refs: Any) -> tuple[Any, Any]:
    """Sum of the same block of rows of some arrays, in their dtype, and its mask."""
    block_rows = refs[0].shape[0]
    index = block * block_rows + jnp.arange(block_rows)
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
