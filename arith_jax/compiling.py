"""How programs are compiled. Imports nothing of the package."""

from typing import Any

import jax


def compiled(lowered: Any, libraries: bool, search: bool = True) -> Any:
    """The program of a lowered function.

    Args:
        lowered: What `jax.jit(...).lower(...)` returns.
        libraries: Whether a GPU does products by its libraries only. Otherwise the
            compiler also makes kernels of its own for each and times them, which takes
            about half of the compilation.
        search: Whether the ways to do a product are timed at all.
    """
    if jax.default_backend() != "gpu":
        return lowered.compile()
    options = {}
    if libraries:
        options["xla_gpu_enable_triton_gemm"] = False
    if not search:
        options["xla_gpu_autotune_level"] = 0
    return lowered.compile(compiler_options=options)
