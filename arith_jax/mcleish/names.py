"""The original's tensor names and layouts, to ours and back.

Linear weights are [out, in] there, except the adapter.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from arith_jax.config.model import ModelConfig
from arith_jax.mcleish.options import max_backprop, model_config

# Tensors that are no parameters: kept as they came, or made anew.
BUFFERS = ("position_ids", "norm_factor", "inv_freq", "init_L")


@dataclasses.dataclass(frozen=True)
class Original:
    """A checkpoint of the original as our model, with what only it needs.

    Attributes:
        config: Our model; the initial state is what `initial_hidden_randomized` says.
        max_backprop: Largest number of recurrences with gradient in its training.
        params: Our parameters.
        arch: `model_config.json` as read.
        buffers: Its tensors that are no parameters, by their own names.
        compiled: Whether names have the `_orig_mod` part of `torch.compile`.
    """

    config: ModelConfig
    max_backprop: int
    params: dict[str, Any]
    arch: Mapping[str, Any]
    buffers: Mapping[str, np.ndarray]
    compiled: bool

    @property
    def by_head(self) -> bool:
        """Whether rows of its attention matrices are grouped by head."""
        return self.arch["attention"]["type"] == "self-attention"


def layer_prefix(config: ModelConfig, layer: int, compiled: bool) -> str:
    """Where the original keeps the parameters of a layer."""
    part = "_orig_mod." if compiled else ""
    if config.injection == "layer":
        return f"encoder.recurrent_blocks.{layer}.{part}layers.0."
    return f"encoder.recurrent_block.{part}layers.{layer}."


def split_qkv(weight: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """[3H, H] rows of the original as our [H, 3, H] kernel.

    `by_head`: head i owns rows 3di to 3d(i+1), its q, k and v (`self-attention`);
    else rows are all of Q, then K, then V (`pytorch`).
    """
    width = weight.shape[1]
    if by_head:
        parts = weight.reshape(heads, 3, width // heads, width).transpose(1, 0, 2, 3)
        weight = parts.reshape(3 * width, width)
    return weight.reshape(3, width, width).transpose(2, 0, 1)


def join_qkv(kernel: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """The inverse of `split_qkv`."""
    width = kernel.shape[0]
    weight = kernel.transpose(1, 2, 0)
    if by_head:
        weight = weight.reshape(3, heads, width // heads, width).transpose(1, 0, 2, 3)
    return weight.reshape(3 * width, width)


def norm_names(name: str, ours: str) -> list[tuple[str, str]]:
    """LayerNorm weight and bias."""
    return [
        (f"{name}.weight", f"{ours}/scale"),
        (f"{name}.bias", f"{ours}/bias"),
    ]


def outer_names(config: ModelConfig) -> list[tuple[str, str]]:
    """Names outside the layers: the original's and ours."""
    table = "encoder.embedding.pos_embedding.embedding.weight"
    names = [("encoder.embedding.word_embedding.weight", "token/embedding")]
    for scheme in ("abacus", "learned"):
        if scheme in config.positions:
            names.append((table, f"{scheme}/embedding"))
    names += norm_names("encoder.embedding.norm", "embed_norm")
    names += [
        ("encoder.head.dense_in.weight", "head_mlp/in/kernel"),
        ("encoder.head.dense_out.weight", "head_mlp/out/kernel"),
    ]
    names += norm_names("encoder.final_norm", "final_norm")
    return [
        *names,
        ("adapter.weight", "adapter/kernel"),
        ("decoder.weight", "decoder/kernel"),
    ]


def layer_names(config: ModelConfig, by_head: bool) -> list[tuple[str, str]]:
    """Names inside a layer: the original's and ours."""
    inner = "attn." if by_head else "attn.attn."
    names = [
        (f"{inner}in_proj_weight", "attention/qkv_kernel"),
        (f"{inner}out_proj.weight", "attention/out/kernel"),
        ("ffn.dense_in.weight", "mlp/in/kernel"),
        ("ffn.dense_out.weight", "mlp/out/kernel"),
        *norm_names("residual1.norm", "attention_norm"),
        *norm_names("residual2.norm", "mlp_norm"),
    ]
    if "fire" in config.positions:
        fire = "attn.rotary_emb."
        names += [
            (f"{fire}c", "attention/fire/slope"),
            (f"{fire}L_multiplier", "attention/fire/multiplier"),
            (f"{fire}mlp.0.weight", "attention/fire/hidden/kernel"),
            (f"{fire}mlp.0.bias", "attention/fire/hidden/bias"),
            (f"{fire}mlp.2.weight", "attention/fire/out/kernel"),
            (f"{fire}mlp.2.bias", "attention/fire/out/bias"),
        ]
    return names


def ours_from(name: str, tensor: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """A tensor of the original as ours: linear weights are [out, in] there.

    The adapter alone is applied untransposed (h A), so it stays as it is.
    """
    if name == "attention/qkv_kernel":
        return split_qkv(tensor, heads, by_head)
    return tensor.T if is_transposed(name) else tensor


def theirs_from(name: str, tensor: np.ndarray, heads: int, by_head: bool) -> np.ndarray:
    """The inverse of `ours_from`."""
    if name == "attention/qkv_kernel":
        return np.ascontiguousarray(join_qkv(tensor, heads, by_head))
    return np.ascontiguousarray(tensor.T) if is_transposed(name) else tensor


def is_transposed(name: str) -> bool:
    """Whether the original keeps this matrix as [out, in]."""
    return name.endswith("/kernel") and name != "adapter/kernel"


def set_leaf(tree: dict[str, Any], name: str, value: Any) -> None:
    """Stores a leaf under a path with slashes."""
    *parents, last = name.split("/")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def get_leaf(tree: Any, name: str) -> Any:
    """The leaf under a path with slashes."""
    for part in name.split("/"):
        tree = tree[part]
    return tree


def from_original(
    tensors: Mapping[str, np.ndarray], arch: Mapping[str, Any]
) -> Original:
    """Our model and parameters from the original's tensors.

    Raises:
        ValueError: If an option is not supported, or tensors are missing, left over or
            of another shape.
    """
    config = model_config(arch)
    by_head = arch["attention"]["type"] == "self-attention"
    compiled = any("_orig_mod." in name for name in tensors)
    left = dict(tensors)
    params: dict[str, Any] = {}

    def take(name: str, ours: str) -> np.ndarray:
        if name not in left:
            raise ValueError(f"model.safetensors: tensor {name!r} is missing")
        return ours_from(ours, left.pop(name), config.num_heads, by_head)

    for name, ours in outer_names(config):
        set_leaf(params, ours, jnp.array(take(name, ours)))
    for name, ours in layer_names(config, by_head):
        stack = [
            take(layer_prefix(config, layer, compiled) + name, ours)
            for layer in range(config.num_layers)
        ]
        set_leaf(params, f"layers/{ours}", jnp.array(np.stack(stack)))
    buffers = {
        name: left.pop(name) for name in list(left) if name.split(".")[-1] in BUFFERS
    }
    for name, tensor in buffers.items():
        if name.endswith("init_L") and float(tensor) != 512.0:
            raise ValueError(f"model.safetensors: {name}={float(tensor)}; allowed: 512")
    if left:
        raise ValueError(f"model.safetensors: unknown tensors {sorted(left)}")
    return Original(
        config=config,
        max_backprop=max_backprop(arch),
        params=params,
        arch=arch,
        buffers=buffers,
        compiled=compiled,
    )


def to_original(
    config: ModelConfig,
    params: Any,
    *,
    by_head: bool,
    compiled: bool = True,
    buffers: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Our parameters, or their gradients, under the original's names and layouts.

    Args:
        config: A model that the original has: from `model_config`.
        params: Parameters, or a tree of their shape.
        by_head: Attention layout, True for `self-attention`.
        compiled: Whether names get the `_orig_mod` part.
        buffers: The original's own buffers; None writes parameters only.
    """
    tensors: dict[str, np.ndarray] = dict(buffers or {})
    for name, ours in outer_names(config):
        leaf = np.asarray(get_leaf(params, ours))
        tensors[name] = theirs_from(ours, leaf, config.num_heads, by_head)
    for name, ours in layer_names(config, by_head):
        stack = np.asarray(get_leaf(params, f"layers/{ours}"))
        for layer, leaf in enumerate(stack):
            where = layer_prefix(config, layer, compiled) + name
            tensors[where] = theirs_from(
                ours, np.asarray(leaf), config.num_heads, by_head
            )
    return tensors


def new_buffers(
    config: ModelConfig, *, by_head: bool, compiled: bool
) -> dict[str, np.ndarray]:
    """The buffers the original would make for this model."""
    buffers: dict[str, np.ndarray] = {}
    if {"abacus", "learned"} & set(config.positions):
        ids = np.arange(config.table_size, dtype=np.int64)[None]
        buffers["encoder.embedding.pos_embedding.position_ids"] = ids
    for layer in range(config.num_layers) if by_head else ():
        prefix = layer_prefix(config, layer, compiled) + "attn."
        half = np.arange(0, config.head_width, 2, dtype=np.float32) / config.head_width
        buffers[prefix + "norm_factor"] = np.array(config.head_width**-0.5, np.float32)
        if "rope" in config.positions:
            buffers[prefix + "rotary_emb.inv_freq"] = np.float32(1.0) / 10000.0**half
        if "fire" in config.positions:
            buffers[prefix + "rotary_emb.init_L"] = np.array(512.0, np.float32)
    return buffers
