"""Checkpoints of the original PyTorch code, in and out, and the parity command.

python -m arith_jax.interop check DIR [DIR...]

A checkpoint is a folder with `model.safetensors` and `model_config.json`, as the
original writes it. No pickle is ever loaded.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

import safetensors.numpy

from arith_jax import parity
from arith_jax.original import Original, from_original, new_buffers, to_original


def load(folder: pathlib.Path) -> Original:
    """Reads a checkpoint folder of the original.

    Raises:
        ValueError: If it cannot be read or holds what is not supported.
    """
    try:
        arch = json.loads((folder / "model_config.json").read_text())
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    except (OSError, json.JSONDecodeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"checkpoint {folder} cannot be read ({error}); it must hold "
            "model_config.json and model.safetensors"
        ) from error
    return from_original(tensors, arch)


def save(folder: pathlib.Path, original: Original) -> None:
    """Writes a checkpoint folder in the original's format."""
    by_head = original.arch["attention"]["type"] == "self-attention"
    buffers = original.buffers or new_buffers(
        original.config, by_head, original.compiled
    )
    tensors = to_original(
        original.config, original.params, by_head, original.compiled, buffers
    )
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    text = json.dumps(original.arch, indent=2, ensure_ascii=False)
    (folder / "model_config.json").write_text(text + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parity check."""
    parser = argparse.ArgumentParser(prog="python -m arith_jax.interop")
    parser.add_argument("command", choices=["check"])
    parser.add_argument("folders", nargs="+", type=pathlib.Path, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        passed = parity.check(options.folders)
    except ValueError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
