"""Decides whether the kernels run or plain operations take their place.

The kernels are written for Pallas' Triton backend, which JAX 0.11 deprecates;
pyproject.toml caps JAX for that reason.
"""

import functools
import logging
import re

import jax

from arith_jax.kernels import pallas

# Compute capability of the first NVIDIA GPUs that multiply bfloat16 (Ampere).
MIN_COMPUTE_CAPABILITY = 8.0

logger = logging.getLogger("arith_jax")


def compute_capability() -> float:
    """Compute capability of the NVIDIA GPU that JAX uses; 0 for any other device."""
    if jax.default_backend() != "gpu":
        return 0.0
    version = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    # AMD GPUs report a name such as gfx942 instead.
    return float(version) if re.fullmatch(r"\d+\.\d+", version) else 0.0


def obstacle(dtype: str) -> str:
    """Why this machine cannot run the kernels, or "" if it can.

    Args:
        dtype: In which the model computes.
    """
    if dtype != "bfloat16":
        return f"the kernels compute in bfloat16, not in {dtype}"
    if pallas.triton is None:
        return f"jax.experimental.pallas has no triton module in JAX {jax.__version__}"
    if compute_capability() < MIN_COMPUTE_CAPABILITY:
        return (
            f"the default device ({jax.default_backend()}) is not an NVIDIA GPU of "
            f"compute capability {MIN_COMPUTE_CAPABILITY} or higher"
        )
    return ""


def width_problem(width: int, max_width: int, name: str = "width") -> str:
    """Why kernels do not take rows of this width, or "" if they do.

    Args:
        width: Numbers in a row. Triton's blocks have powers of two as their sizes.
        max_width: The widest row that a kernel takes.
        name: What the message calls the width.
    """
    if 16 <= width <= max_width and width & (width - 1) == 0:
        return ""
    return f"{name} {width} is not a power of two from 16 to {max_width}"


def chosen(requested: bool, name: str, problem: str) -> bool:
    """Whether a kernel runs: if it is requested and nothing speaks against it.

    A request that cannot be met is logged as a warning, once for each problem. The
    device decides nothing here: see `obstacle`. On a CPU kernels are interpreted, for
    tests.

    Args:
        requested: Whether the caller wants the kernel.
        name: Of the operation, for the warning.
        problem: Why the kernel cannot do it, or "".
    """
    if requested and problem:
        warn_once(name, f"plain operations instead of the kernel: {problem}")
    elif requested and jax.default_backend() == "cpu":
        warn_once(name, "the kernel is interpreted on a CPU, which is slow")
    return requested and not problem


@functools.cache
def warn_once(name: str, message: str) -> None:
    """Warns of an operation's kernel, the first time only."""
    logger.warning("%s: %s", name, message)
