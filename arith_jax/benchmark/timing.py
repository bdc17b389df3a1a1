"""Seconds, bytes and the device's own limits, as measured; used by every benchmark.

Every measurement waits for the device before it reads the clock.
"""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {
        "median": statistics.median(seconds),
        "min": min(seconds),
        "max": max(seconds),
    }


def timed(call: Callable[[], Any]) -> float:
    """Seconds until what a call returns is ready on the device."""
    started = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - started


def matmul_peak() -> dict[str, Any]:
    """Rate of a big square product on one device, best of several.

    bfloat16, float32 on a CPU.
    """
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (2048, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    repeats = 2 if on_cpu else 20
    # Random numbers: equal ones take a GPU less power, and so less time.
    left = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(left, left))
    best = min(
        timed(lambda: [product(left, left) for _ in range(repeats)]) for _ in range(8)
    )
    return {
        "size": size,
        "dtype": jnp.dtype(dtype).name,
        "flops_per_second": repeats * 2 * size**3 / best,
    }


def peak_memory() -> dict[str, Any]:
    """Most bytes in use so far: of the device, or of the process where it is a CPU."""
    stats = jax.local_devices()[0].memory_stats()
    if stats is None:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"of": "process", "bytes": 1024 * kilobytes}
    return {"of": "device", "bytes": stats["peak_bytes_in_use"]}


def program_bytes(compiled: Any) -> int:
    """Memory of a compiled step by XLA's own plan: state, temporaries, outputs."""
    plan = compiled.memory_analysis()
    return (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )
