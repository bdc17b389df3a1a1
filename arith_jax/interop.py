"""Checkpoints of the original PyTorch code, in and out, and the parity command.

python -m arith_jax.interop check DIR [DIR...]

A checkpoint is a folder with `model.safetensors` and `model_config.json`, as the
original writes it. No pickle is ever loaded.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import safetensors.numpy

from arith_jax import parity
from arith_jax.model_config import ModelConfig
from arith_jax.original import (
    SUPPORTED,
    Original,
    config_of,
    from_original,
    new_buffers,
    to_original,
)


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


def export(config: ModelConfig, params: Any) -> Original:
    """A model of ours as a checkpoint of the original, for `save`.

    Args:
        config: A model that the original has, such as those of `configs/paper`.
        params: Its parameters.

    Raises:
        ValueError: If the original has no such model; names the options that differ.
    """
    rotary: bool | str = "rope" in config.positions
    if "fire" in config.positions:
        rotary = "fire"
    tables = [name for name in ("abacus", "learned") if name in config.positions]
    arch = {
        "model_type": "ScriptableCrammedDepthRecurrent",
        "layers_in_recurrent_block": config.layers,
        "maximal_recurrence": config.recurrences,
        "max_backprop": config.max_backprop,
        "maximal_recurrence_in_eval": config.recurrences,
        "hidden_size": config.width,
        "intermed_size": config.mlp_width,
        "initial_hidden_randomized": config.initial_state == "noise",
        "norm_eps": config.norm_eps,
        "throttle": False,
        "alpha": 1.0,
        "local_compilation": True,
        "forward_only_model_with_skip": config.injection == "layer",
        "embedding": {
            "vocab_size": config.vocab_size,
            "pos_embedding": tables[0] if tables else "None",
            "max_seq_length": config.table_size,
            "embedding_dim": config.width,
            "stable_low_precision": False,
            "max_abacus_len": 100,
        },
        "attention": {
            "type": "self-attention" if rotary else "pytorch",
            "num_attention_heads": config.heads,
            "rotary_embedding": rotary,
            "seq_op_in_fp32": False,
        },
        "init": {"std": 0.02},
    }
    for path, allowed in SUPPORTED.items():
        *parents, name = path.split(".")
        section = arch[parents[0]] if parents else arch
        section.setdefault(name, allowed[0])
    # Choices of ours that leave no trace in a checkpoint.
    names = ("dtype", "unroll", "kernels", "abacus_window", "qk_gain")
    unseen = {name: getattr(config, name) for name in names}
    theirs = dataclasses.asdict(dataclasses.replace(config_of(arch), **unseen))
    differing = [
        f"{name}={value!r} (there {theirs[name]!r})"
        for name, value in dataclasses.asdict(config).items()
        if value != theirs[name]
    ]
    if differing:
        raise ValueError(f"the original has no model with {', '.join(differing)}")
    by_head = arch["attention"]["type"] == "self-attention"
    buffers = new_buffers(config, by_head, compiled=True)
    return Original(config, params, arch, buffers, compiled=True)


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
