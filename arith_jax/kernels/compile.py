"""Compiler options, mostly for a GPU."""

from typing import Any

import jax

# For a CPU; JAX's own `jax_disable_most_optimizations` sets the same.
UNOPTIMISED = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


def compiled(
    lowered: Any,
    *,
    triton_gemm: bool,
    autotune: bool = True,
    deterministic: bool = False,
    runs_briefly: bool = False,
) -> Any:
    """Compiles a lowered function.

    Args:
        lowered: What `jax.jit(...).lower(...)` returns.
        triton_gemm: Whether a GPU's compiler may also generate Triton kernels for
            matrix products and time them against cuBLAS, which takes about half of the
            compilation. Otherwise all products are done by cuBLAS.
        autotune: Whether the alternatives for a product are timed at all.
        deterministic: Whether two compilations of it have to give the same bits. Then
            nothing is chosen by its time, and sums are added up in a fixed order.
        runs_briefly: Whether a CPU spends more time on compiling it than on running it:
            compiled in half the time.
    """
    if jax.default_backend() == "cpu" and runs_briefly:
        return lowered.compile(compiler_options=UNOPTIMISED)
    if jax.default_backend() != "gpu":
        return lowered.compile()
    options = {}
    if not triton_gemm:
        options["xla_gpu_enable_triton_gemm"] = False
    if not autotune or deterministic:
        options["xla_gpu_autotune_level"] = 0
    if deterministic:
        options["xla_gpu_deterministic_ops"] = True
    return lowered.compile(compiler_options=options)
