"""How this machine computes a model: decided once, by the program that runs it."""

import dataclasses

from arith_jax.config.model import Execution
from arith_jax.kernels.dispatch import obstacle


def resolve(wanted: Execution) -> tuple[Execution, str]:
    """What this device can do of what a config wants.

    Returns:
        The execution, and one line that says what is missing; "" if nothing is.
    """
    if not wanted.kernels:
        return wanted, ""
    reason = obstacle(wanted.dtype)
    if not reason:
        return wanted, ""
    return dataclasses.replace(wanted, kernels=False), f"no GPU kernels: {reason}"


def on_this_device(wanted: Execution, backend: str) -> Execution:
    """How to compute a trained model: in float32 on a CPU, whatever it was trained in.

    Args:
        wanted: Of the model's run.
        backend: `jax.default_backend()`.
    """
    if backend == "cpu":
        wanted = dataclasses.replace(wanted, dtype="float32")
    return resolve(wanted)[0]
