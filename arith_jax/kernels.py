"""What the GPU kernels of `flash`, `gate` and `norms` share.

They are written with Pallas for Triton, which JAX means to remove some day: without it
the model is computed by plain operations. Imports nothing of the package.
"""

import functools
from typing import Any

import jax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

try:
    from jax.experimental.pallas import triton
except ImportError:
    triton: Any = None


def fits(width: int, most: int) -> bool:
    """Whether kernels take rows of this width, at `most` so wide: a power of two."""
    return width & (width - 1) == 0 and 16 <= width <= most


def as_rows(x: Float[Array, "*dims d"]) -> Float[Array, "n d"]:
    """An array as rows."""
    return x.reshape(-1, x.shape[-1])


def call(
    kernel: functools.partial[None],
    grid: tuple[int, ...],
    warps: int = 1,
    stages: int = 1,
    **specs: Any,
) -> Any:
    """A kernel as a function of arrays; interpreted on a CPU, which is slow.

    Args:
        kernel: Takes references, and static arguments that are given already.
        grid: Number of programs along each axis.
        warps: Groups of 32 threads of a program.
        stages: Blocks that are loaded at a time in a loop.
        **specs: The rest of `pallas_call`.
    """
    module = kernel.func.__module__.rpartition(".")[2]
    return pl.pallas_call(
        kernel,
        grid=grid,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=jax.default_backend() == "cpu",
        name=f"{module}_{kernel.func.__name__}",
        **specs,
    )
