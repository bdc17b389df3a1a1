"""Compiler options for a GPU."""

from typing import Any

import jax


def compiled(lowered: Any, *, triton_gemm: bool, autotune: bool = True) -> Any:
    """Compiles a lowered function.

    Args:
        lowered: What `jax.jit(...).lower(...)` returns.
        triton_gemm: Whether a GPU's compiler may also generate Triton kernels for
            matrix products and time them against cuBLAS, which takes about half of the
            compilation. Otherwise all products are done by cuBLAS.
        autotune: Whether the alternatives for a product are timed at all.
    """
    if jax.default_backend() != "gpu":
        return lowered.compile()
    options = {}
    if not triton_gemm:
        options["xla_gpu_enable_triton_gemm"] = False
    if not autotune:
        options["xla_gpu_autotune_level"] = 0
    return lowered.compile(compiler_options=options)
