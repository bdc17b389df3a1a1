"""How programs are compiled. Imports nothing of the package."""

from typing import Any

import jax

# A GPU's libraries choose well for large products; a search among all ways to do each
# pays off in a program that runs for minutes, and waits for what runs beside it.
WITHOUT_SEARCH = {
    "xla_gpu_autotune_level": 0,
    "xla_gpu_enable_triton_gemm": False,
}


def compiled(lowered: Any, autotune: bool) -> Any:
    """The program of a lowered function.

    Args:
        lowered: What `jax.jit(...).lower(...)` returns.
        autotune: Whether a GPU tries the ways to do each product, which takes seconds.
    """
    is_quick = jax.default_backend() == "gpu" and not autotune
    return lowered.compile(compiler_options=WITHOUT_SEARCH if is_quick else None)
