"""The gate of an MLP, gelu(g) * u, with a gradient that keeps the inputs only.

On a GPU both passes are one kernel each: every number is read once and written once.
Elsewhere they are plain operations. Imports `kernels`.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from arith_jax import kernels
from arith_jax.kernels import triton

# Numbers of one half that a program of the kernels holds; groups of threads of it.
HELD, WARPS = 2048, 4
# erf(x) = 1 - t (c1 + t (c2 + ...)) exp(-x^2), t = 1 / (1 + RATE x), x >= 0, to 1.5e-7
# (Abramowitz and Stegun 1964, 7.1.26): Triton has no erf.
RATE = 0.3275911
SERIES = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def normal(x: Any) -> tuple[Any, Any]:
    """Distribution function of the standard normal distribution, and its density."""
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))), density


def normal_in_kernel(x: Any) -> tuple[Any, Any]:
    """As `normal`, of what the kernels can compute."""
    decay = jnp.exp(-0.5 * x * x)
    t = 1 / (1 + RATE * math.sqrt(0.5) * jnp.abs(x))
    series = jnp.zeros_like(t)
    for factor in reversed(SERIES):
        series = t * (factor + series)
    tail = 0.5 * series * decay
    return jnp.where(x < 0, tail, 1 - tail), decay / math.sqrt(2 * math.pi)


def product(u: Any, g: Any, cdf: Any) -> Any:
    """gelu(g) * u."""
    return g * cdf * u


def gradients(u: Any, g: Any, normal: tuple[Any, Any], d_out: Any) -> tuple[Any, Any]:
    """Gradients to both halves."""
    cdf, density = normal
    return d_out * g * cdf, d_out * u * (cdf + g * density)


def load(rows: int, ref: Any) -> tuple[list[Any], Any]:
    """Both halves of a block of rows in float32, and the mask of its rows."""
    held, width = ref.shape[0], ref.shape[1] // 2
    mask = (pl.program_id(0) * held + jnp.arange(held) < rows)[:, None]
    parts = (ref.at[:, pl.ds(first, width)] for first in (0, width))
    loaded = [triton.load(part, mask=mask, other=0) for part in parts]
    return [part.astype(jnp.float32) for part in loaded], mask


def forward_kernel(rows: int, x: Any, out: Any) -> None:
    """The gate of a block of rows."""
    (u, g), mask = load(rows, x)
    found = product(u, g, normal_in_kernel(g)[0])
    triton.store(out, found.astype(out.dtype), mask=mask)


def backward_kernel(rows: int, x: Any, d_out: Any, d_x: Any) -> None:
    """Gradient of a block of rows."""
    (u, g), mask = load(rows, x)
    d_rows = triton.load(d_out, mask=mask, other=0).astype(jnp.float32)
    width = d_out.shape[1]
    found = gradients(u, g, normal_in_kernel(g), d_rows)
    for first, half in zip((0, width), found, strict=True):
        part = d_x.at[:, pl.ds(first, width)]
        triton.store(part, half.astype(d_x.dtype), mask=mask)


def fits(width: int) -> bool:
    """Whether the kernels take halves of this width."""
    return kernels.fits(width, HELD)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_kernel(kernel: Any, held: int, width: int, *arrays: Array) -> Array:
    """Runs a kernel on blocks of rows: traced once for all layers, which saves seconds.

    Args:
        kernel: What to run.
        held: Rows of a block.
        width: Of the result.
        *arrays: What it reads, [rows, ...].
    """
    rows = arrays[0].shape[0]
    block = lambda width: pl.BlockSpec((held, width), lambda i: (i, 0))
    return kernels.call(
        functools.partial(kernel, rows),
        (-(-rows // held),),
        WARPS,
        in_specs=[block(array.shape[1]) for array in arrays],
        out_specs=block(width),
        out_shape=jax.ShapeDtypeStruct((rows, width), arrays[0].dtype),
    )(*arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def gated(in_kernel: bool, x: Float[Array, "*dims m"]) -> Float[Array, "*dims n"]:
    """gelu(g) * u, exact GELU, of the halves (u, g) of the last axis.

    Computed in float32; the gradient keeps `x` only.

    Args:
        in_kernel: Whether a GPU's kernels do it (`fits`).
        x: Both halves.
    """
    if in_kernel:
        width = x.shape[-1] // 2
        found = run_kernel(forward_kernel, HELD // width, width, kernels.as_rows(x))
        return found.reshape(*x.shape[:-1], width)
    u, g = halves(x)
    return product(u, g, normal(g)[0]).astype(x.dtype)


def forward(in_kernel: bool, x: Array) -> tuple[Array, Array]:
    """The product, and what the backward pass needs."""
    return gated(in_kernel, x), x


def backward(in_kernel: bool, x: Array, d_out: Array) -> tuple[Array]:
    """Gradient of `gated`."""
    if in_kernel:
        flat = map(kernels.as_rows, (x, d_out))
        held = HELD // d_out.shape[-1]
        found = run_kernel(backward_kernel, held, x.shape[-1], *flat)
        return (found.reshape(x.shape),)
    u, g = halves(x)
    found = gradients(u, g, normal(g), d_out.astype(jnp.float32))
    return (jnp.concatenate(found, axis=-1).astype(x.dtype),)


gated.defvjp(forward, backward)


def halves(x: Array) -> list[Array]:
    """Both halves of the last axis in float32."""
    return [half.astype(jnp.float32) for half in jnp.split(x, 2, axis=-1)]
