"""Checkpoints of the original PyTorch code, in and out.

A checkpoint is a folder with `model.safetensors` and `model_config.json`, as the
original writes it. No pickle is ever loaded.
"""

import json
import pathlib
from typing import Any

import safetensors.numpy

from arith_jax.config.model import ModelConfig
from arith_jax.mcleish.names import (
    Original,
    from_original,
    new_buffers,
    to_original,
)
from arith_jax.mcleish.options import architecture


def load(folder: pathlib.Path | str) -> Original:
    """Reads a checkpoint folder of the original.

    Raises:
        ValueError: If it cannot be read or holds what is not supported.
    """
    folder = pathlib.Path(folder)
    try:
        arch = json.loads((folder / "model_config.json").read_text())
        tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    except (OSError, json.JSONDecodeError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"checkpoint {folder} cannot be read ({error}); it must hold "
            "model_config.json and model.safetensors"
        ) from error
    return from_original(tensors, arch)


def save(folder: pathlib.Path | str, original: Original) -> None:
    """Writes a checkpoint folder in the original's format."""
    folder = pathlib.Path(folder)
    layout = {"by_head": original.by_head, "compiled": original.compiled}
    buffers = original.buffers or new_buffers(original.config, **layout)
    tensors = to_original(original.config, original.params, buffers=buffers, **layout)
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    text = json.dumps(original.arch, indent=2, ensure_ascii=False)
    (folder / "model_config.json").write_text(text + "\n")


def export(config: ModelConfig, params: Any, *, max_backprop: int = 1) -> Original:
    """A model of ours as a checkpoint of the original, for `save`.

    Args:
        config: A model that the original has, such as those of `configs/paper`.
        params: Its parameters.
        max_backprop: Largest number of recurrences with gradient in its training.

    Raises:
        ValueError: If the original has no such model; names the options that differ.
    """
    arch = architecture(config, max_backprop)
    by_head = arch["attention"]["type"] == "self-attention"
    buffers = new_buffers(config, by_head=by_head, compiled=True)
    return Original(
        config=config,
        max_backprop=max_backprop,
        params=params,
        arch=arch,
        buffers=buffers,
        compiled=True,
    )
