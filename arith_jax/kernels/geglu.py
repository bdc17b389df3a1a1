"""The gate of a GELU-gated MLP, with a gradient that keeps only the input.

On a GPU each pass is one kernel that reads and writes every number once.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from arith_jax.devices import on_each_device
from arith_jax.kernels import dispatch, pallas
from arith_jax.kernels.pallas import triton

# Numbers of one half that a program holds in registers, and its warps.
ELEMENTS_PER_PROGRAM, NUM_WARPS = 2048, 4
# erf(x) = 1 - t (c1 + t (c2 + ...)) exp(-x^2), t = 1 / (1 + RATE x), x >= 0, to 1.5e-7
# (Abramowitz and Stegun 1964, 7.1.26): Triton has no erf.
RATE = 0.3275911
SERIES = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def geglu(x: Float[Array, "*dims m"], *, use_kernel: bool) -> Float[Array, "*dims n"]:
    """gelu(g) * u, with the exact GELU, of the halves (u, g) of the last axis.

    Args:
        x: Both halves. The result has their dtype; it is computed in float32.
        use_kernel: Whether to use the kernels; halves of a width that they do not take
            are left to plain operations, with a warning.

    Source:
        Shazeer 2020, arXiv:2002.05202, with the halves in the order of mcleish7/
        arithmetic's `GELUglu` @ 86022a5.
    """
    problem = dispatch.width_problem(x.shape[-1] // 2, ELEMENTS_PER_PROGRAM)
    gate = functools.partial(_geglu, dispatch.chosen(use_kernel, "geglu", problem))
    return on_each_device(gate, (x,), (True,)) if gate.args[0] else gate(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _geglu(use_kernel: bool, x: Array) -> Array:
    """As `geglu`, by the kernels or not."""
    if use_kernel:
        width = x.shape[-1] // 2
        out = run_kernel(
            forward_kernel, ELEMENTS_PER_PROGRAM // width, width, pallas.as_rows(x)
        )
        return out.reshape(*x.shape[:-1], width)
    u, g = halves(x)
    return product(u, g, normal_distribution(g)[0]).astype(x.dtype)


def geglu_forward(use_kernel: bool, x: Array) -> tuple[Array, Array]:
    """The result, and what the backward pass needs."""
    return _geglu(use_kernel, x), x


def geglu_backward(use_kernel: bool, x: Array, d_out: Array) -> tuple[Array]:
    """Gradient of `geglu`."""
    if use_kernel:
        rows_per_program = ELEMENTS_PER_PROGRAM // d_out.shape[-1]
        rows = pallas.as_rows(x), pallas.as_rows(d_out)
        d_x = run_kernel(backward_kernel, rows_per_program, x.shape[-1], *rows)
        return (d_x.reshape(x.shape),)
    u, g = halves(x)
    d_u, d_g = gradients(u, g, normal_distribution(g), d_out.astype(jnp.float32))
    return (jnp.concatenate((d_u, d_g), axis=-1).astype(x.dtype),)


_geglu.defvjp(geglu_forward, geglu_backward)


# Traced once for all layers, which saves seconds.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_kernel(
    kernel: Callable[..., None], rows_per_program: int, width: int, *arrays: Array
) -> Array:
    """Runs a kernel on blocks of rows.

    Args:
        kernel: The kernel.
        rows_per_program: Rows in a block.
        width: Of the result.
        *arrays: What the kernel reads, [rows, ...].
    """
    rows = arrays[0].shape[0]
    block = lambda width: pl.BlockSpec((rows_per_program, width), lambda i: (i, 0))
    return pallas.call(
        functools.partial(kernel, rows),
        (-(-rows // rows_per_program),),
        NUM_WARPS,
        in_specs=[block(array.shape[1]) for array in arrays],
        out_specs=block(width),
        out_shape=jax.ShapeDtypeStruct((rows, width), arrays[0].dtype),
    )(*arrays)


def forward_kernel(rows: int, x: Any, out: Any) -> None:
    """The result of one block of rows."""
    (u, g), mask = load_halves(rows, x)
    value = product(u, g, normal_distribution_triton(g)[0])
    triton.store(out, value.astype(out.dtype), mask=mask)


def backward_kernel(rows: int, x: Any, d_out: Any, d_x: Any) -> None:
    """The gradient of one block of rows."""
    (u, g), mask = load_halves(rows, x)
    d_rows = triton.load(d_out, mask=mask, other=0).astype(jnp.float32)
    width = d_out.shape[1]
    d_halves = gradients(u, g, normal_distribution_triton(g), d_rows)
    for first, d_half in zip((0, width), d_halves, strict=True):
        part = d_x.at[:, pl.ds(first, width)]
        triton.store(part, d_half.astype(d_x.dtype), mask=mask)


def load_halves(rows: int, ref: Any) -> tuple[list[Any], Any]:
    """Both halves of a program's block of rows in float32, and the mask of its rows."""
    rows_per_program, width = ref.shape[0], ref.shape[1] // 2
    index = pl.program_id(0) * rows_per_program + jnp.arange(rows_per_program)
    mask = (index < rows)[:, None]
    parts = (ref.at[:, pl.ds(first, width)] for first in (0, width))
    loaded = [triton.load(part, mask=mask, other=0) for part in parts]
    return [part.astype(jnp.float32) for part in loaded], mask


def halves(x: Array) -> list[Array]:
    """Both halves of the last axis in float32."""
    return [half.astype(jnp.float32) for half in jnp.split(x, 2, axis=-1)]


def product(u: Any, g: Any, cdf: Any) -> Any:
    """gelu(g) * u."""
    return g * cdf * u


def gradients(u: Any, g: Any, normal: tuple[Any, Any], d_out: Any) -> tuple[Any, Any]:
    """Gradients with respect to u and g."""
    cdf, density = normal
    return d_out * g * cdf, d_out * u * (cdf + g * density)


def normal_distribution(x: Any) -> tuple[Any, Any]:
    """Distribution function and density of the standard normal distribution."""
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))), density


def normal_distribution_triton(x: Any) -> tuple[Any, Any]:
    """As `normal_distribution`, with the operations that Triton has."""
    decay = jnp.exp(-0.5 * x * x)
    t = 1 / (1 + RATE * math.sqrt(0.5) * jnp.abs(x))
    series = jnp.zeros_like(t)
    for factor in reversed(SERIES):
        series = t * (factor + series)
    tail = 0.5 * series * decay
    return jnp.where(x < 0, tail, 1 - tail), decay / math.sqrt(2 * math.pi)
