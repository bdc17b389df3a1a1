"""What the GPU kernels share: they are written with Pallas for Triton."""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

try:
    from jax.experimental.pallas import triton
except ImportError:  # `dispatch` says why
    triton: Any = None


def as_rows(x: Float[Array, "*dims d"]) -> Float[Array, "n d"]:
    """Flattens all axes but the last."""
    return x.reshape(-1, x.shape[-1])


def call(
    kernel: functools.partial[None],
    grid: tuple[int, ...],
    num_warps: int = 1,
    num_stages: int = 1,
    **specs: Any,
) -> Any:
    """Makes a function of arrays from a kernel; on a CPU it is interpreted, slowly.

    Args:
        kernel: A function of references, with its static arguments already bound.
        grid: Number of programs along each axis.
        num_warps: Warps per program. A single warp needs no synchronisation.
        num_stages: Iterations of a loop whose loads are in flight at the same time.
        **specs: Further arguments of `pallas_call`.
    """
    module = kernel.func.__module__.rpartition(".")[2]
    return pl.pallas_call(
        kernel,
        grid=grid,
        compiler_params=triton.CompilerParams(
            num_warps=num_warps, num_stages=num_stages
        ),
        interpret=jax.default_backend() == "cpu",
        name=f"{module}_{kernel.func.__name__}",
        **specs,
    )
