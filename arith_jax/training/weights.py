"""Reads weights as safetensors, of whatever origin."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import safetensors
from flax import traverse_util

from arith_jax.checks import one_line, shown
from arith_jax.training.loop import Clock

# Bytes of the header of a file, which names every tensor.
MAX_HEADER = 2**22
# What numbers may be stored as; they are float32 in the model.
DTYPES = ("F32", "F16")


def read_released(path: pathlib.Path, like: Any) -> tuple[Any, Clock, int]:
    """Weights written by `checkpoint.write_released`, the seconds they took, the steps.

    The file may come from anywhere: the header is checked against the shapes of `like`
    before a tensor is read, and nothing in the file is run.

    Raises:
        ValueError: If the file cannot be read or its tensors are not those of `like`.
    """
    wanted: dict[str, Any] = dict(traverse_util.flatten_dict(like, sep="/"))
    try:
        check_header(path)
        with safetensors.safe_open(path, framework="flax") as file:
            check_tensors(path, file, wanted)
            clock, steps = read_numbers(file.metadata() or {})
            flat = {n: file.get_tensor(n).astype(jnp.float32) for n in wanted}
    except (OSError, safetensors.SafetensorError, KeyError) as error:
        raise ValueError(
            f"checkpoint {path} cannot be read ({one_line(str(error))[:200]}); "
            "restore the file or name another folder"
        ) from error
    return traverse_util.unflatten_dict(flat, sep="/"), clock, steps


def check_header(path: pathlib.Path) -> None:
    """Raises `OSError` if a file is too short or its header too long to be weights."""
    if not path.is_file():
        raise OSError("it is no file")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > min(MAX_HEADER, path.stat().st_size - 8):
        raise OSError(f"its header claims {size} bytes; allowed: {MAX_HEADER}")


def check_tensors(
    path: pathlib.Path, file: Any, wanted: Mapping[str, jax.ShapeDtypeStruct]
) -> None:
    """Raises `ValueError` if a file's header does not list the tensors wanted."""
    names = file.keys()
    slices = {name: file.get_slice(name) for name in names}
    shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    expected = {name: leaf.shape for name, leaf in wanted.items()}
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            raise ValueError(
                f"checkpoint {path} does not fit its config: {shown(name)} has shape "
                f"{shown(shapes.get(name))}, the model needs {expected.get(name)}"
            )
        if slices[name].get_dtype() not in DTYPES:
            raise ValueError(
                f"checkpoint {path} does not fit its config: {shown(name)} is "
                f"{slices[name].get_dtype()}, the model needs {' or '.join(DTYPES)}"
            )


def read_numbers(metadata: Mapping[str, str]) -> tuple[Clock, int]:
    """The seconds and steps that weights took.

    Raises:
        KeyError: If one of them is missing.
        OSError: If one of them is no number from 0 on.
    """
    try:
        clock = Clock(
            train_seconds=float(metadata["train_seconds"]),
            compile_seconds=float(metadata["compile_seconds"]),
            num_seeds=int(metadata.get("num_seeds", 1)),
        )
        steps = int(metadata["steps"])
    except ValueError as error:
        raise OSError(f"metadata: {one_line(str(error))[:200]}") from error
    if not all(0 <= number < math.inf for number in (*clock, steps)):
        raise OSError("metadata: seconds and steps must be numbers from 0 on")
    return clock, steps
