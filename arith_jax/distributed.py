"""Several processes that run one experiment together, on one machine or on many.

Every process runs the same programs in the same order; the first one also writes files
and prints. What a process reads off its own clock is therefore agreed on first.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AUTO = "auto"
# Seconds: of silence until a process counts as dead, and to wait for all to start.
HEARTBEAT_TIMEOUT, START_TIMEOUT = 30, 300
# How errors of the connection begin. Where a value is read they are ValueErrors.
LOST = re.compile(
    "(ABORTED|CANCELLED|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|UNKNOWN): "
)


def start(how: str) -> None:
    """Joins the other processes; before anything else asks JAX for its devices.

    Args:
        how: `auto` for what Slurm, Open MPI, Kubernetes or a TPU pod says of itself, or
            `HOST:PORT,COUNT,INDEX`: where process 0 listens, how many processes there
            are, and which one this is, from 0.

    Raises:
        ValueError: If `how` is neither, there is no such environment, or the others do
            not come.
    """
    options: dict[str, Any] = {} if how == AUTO else parse(how)
    try:
        jax.distributed.initialize(
            **options,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            initialization_timeout=START_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        hint = "no environment of Slurm, Open MPI, Kubernetes or a TPU pod; " * (
            how == AUTO
        )
        raise ValueError(
            f"--distributed={how}: {hint}{reason}; allowed: auto, or "
            "HOST:PORT,COUNT,INDEX with the same HOST:PORT,COUNT for every process"
        ) from error


def parse(how: str) -> dict[str, Any]:
    """What `jax.distributed.initialize` is told of `HOST:PORT,COUNT,INDEX`.

    Raises:
        ValueError: If it is not of this form, or the index is too large.
    """
    match = re.fullmatch(r"(\S+:\d+),(\d+),(\d+)", how)
    if not match or not int(match[3]) < int(match[2]):
        raise ValueError(
            f"--distributed={how}: allowed: auto, or HOST:PORT,COUNT,INDEX with an "
            "INDEX from 0 to COUNT - 1, as in 10.0.0.1:12355,4,0"
        )
    return {
        "coordinator_address": match[1],
        "num_processes": int(match[2]),
        "process_id": int(match[3]),
    }


def is_first() -> bool:
    """Whether this process writes files and prints."""
    return jax.process_index() == 0


def agreed(values: tuple[float, ...]) -> tuple[float, ...]:
    """The values of the first process; all wait here for each other."""
    if jax.process_count() == 1:
        return values
    sent = multihost_utils.broadcast_one_to_all(np.array(values, np.float32))
    return tuple(float(value) for value in sent)


def is_from_others(error: BaseException) -> bool:
    """Whether an error tells that other processes have died."""
    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    is_of_disk = isinstance(error, OSError) and not isinstance(error, TimeoutError)
    is_lost = any(LOST.match(str(cause)) for cause in causes)
    return jax.process_count() > 1 and is_lost and not is_of_disk


@contextlib.contextmanager
def leave_if_others_died() -> Iterator[None]:
    """Ends this process in one line if others have died; other errors go on.

    At once: the usual end waits for all processes.
    """
    try:
        yield
    except Exception as error:
        if not is_from_others(error):
            raise
        reason = str(error).strip().splitlines()[0]
        print(
            f"error: process {jax.process_index()} of {jax.process_count()} cannot go "
            f"on without the others, one of which has died ({reason}); start all of "
            "them again: the run goes on from its last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)
